"""The numpy twin, checked on its own before anything is checked against it."""

import importlib.util
import sys
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx_lm.tuner.utils import build_schedule

from pipelines.algorithms.advantages import compute_advantages
from pipelines.algorithms.losses import policy_loss
from pipelines.config import AdvantageConfig, LossConfig


def load_twin():
    spec = importlib.util.spec_from_file_location(
        "reference_grpo", Path(__file__).resolve().parents[1] / "reference_grpo.py"
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twin = load_twin()
LOSSES = ["dapo", "grpo", "dr_grpo"]
VOCABULARY, ROWS, WIDTH, GROUP = 6, 8, 5, 4


def settings(loss="dapo", **changes):
    return twin.Settings(**({"group_size": GROUP, "loss": loss, "beta": 0.1, "max_completion_length": 9} | changes))


def rollouts(seed):
    """Prompts, completions, lengths and rewards; the second group's rewards are all equal."""
    rng = np.random.default_rng(seed)
    return {
        "prompts": [rng.integers(0, VOCABULARY, rng.integers(1, 4)) for _ in range(ROWS)],
        "completions": rng.integers(0, VOCABULARY, (ROWS, WIDTH)),
        "lengths": rng.integers(1, WIDTH + 1, ROWS),
        "rewards": np.array([1.0, 0.0, 0.25, 1.0, 2.7, 2.7, 2.7, 2.7]),
    }


def logprobs(seed):
    """new, old, ref, advantages, mask: off-policy, with ratios on both sides of the clip."""
    rng = np.random.default_rng(seed)
    new = -rng.exponential(1.0, (ROWS, WIDTH))
    old, ref = new + rng.normal(0, 0.4, new.shape), new + rng.normal(0, 0.4, new.shape)
    mask = (np.arange(WIDTH) < rng.integers(1, WIDTH + 1, ROWS)[:, None]).astype(float)
    return new, old, ref, rng.normal(0, 1, ROWS), mask


def finite_differences(function, at, step=1e-6):
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_the_loss_by_finite_differences(loss):
    new, *rest = logprobs(0)
    found = twin.loss_and_gradient(new, *rest, settings(loss))[1]
    expected = finite_differences(lambda new: twin.loss_and_gradient(new, *rest, settings(loss))[0], new)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert (found == 0).any()
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_the_policy_by_finite_differences(loss):
    rng, data = np.random.default_rng(1), rollouts(1)
    table, old_table, ref_table = rng.normal(0, 1, (3, VOCABULARY, VOCABULARY))
    previous = twin.previous_tokens(data["prompts"], data["completions"])
    old, ref = (twin.bigram_logprobs(part, previous, data["completions"]) for part in (old_table, ref_table))
    mask = (np.arange(WIDTH) < data["lengths"][:, None]).astype(float)
    advantages = rng.normal(0, 1, ROWS)

    def parts(table):
        new = twin.bigram_logprobs(table, previous, data["completions"])
        return twin.loss_and_gradient(new, old, ref, advantages, mask, settings(loss))

    found = twin.bigram_gradient(table, previous, data["completions"], parts(table)[1])
    np.testing.assert_allclose(found, finite_differences(lambda table: parts(table)[0], table), atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_the_product_has_the_same_loss_and_gradient(loss, seed):
    arrays = [mx.array(values.astype(np.float32)) for values in logprobs(seed)]
    config = LossConfig(type=loss)

    def product(new):
        return policy_loss(new, *arrays[1:], config, beta=0.1, max_completion_length=9)

    (value, metrics), gradient = mx.value_and_grad(product)(arrays[0])
    expected, slopes, kl = twin.loss_and_gradient(*logprobs(seed), settings(loss))
    assert value.item() == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(np.array(gradient), slopes, atol=1e-6)
    assert metrics["kl"].item() == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_product_has_the_same_advantages(seed):
    rewards = np.random.default_rng(seed).integers(0, 3, 24) / 2
    values, equal = twin.group_advantages(rewards, GROUP, 1e-4)
    found = compute_advantages(mx.array(rewards.astype(np.float32)), GROUP, AdvantageConfig())
    np.testing.assert_allclose(np.array(found.values), values, atol=1e-6)
    assert found.zero_variance.tolist() == equal.tolist()


def test_the_optimizer_is_the_one_mlx_has():
    """Warm-up, bias correction, weight decay and clipping, against mlx over ten steps."""
    options = settings(learning_rate=0.02, warmup_steps=4, warmup_init=0.002, clip_norm=0.5)
    schedule = {"name": "linear_schedule", "arguments": [0.02, 0.02, 1], "warmup": 4, "warmup_init": 0.002}
    theirs = optim.AdamW(build_schedule(schedule), betas=[0.9, 0.95], weight_decay=0.01, bias_correction=True)
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (3, 4))
    ours, parameters = twin.AdamW(table.shape, options), {"table": mx.array(table.astype(np.float32))}
    for _ in range(10):
        gradient = rng.normal(0, 0.3, table.shape)
        clipped, norm = twin.clip_by_global_norm(gradient, options.clip_norm)
        table = ours.apply(table, clipped)
        grads, total = optim.clip_grad_norm({"table": mx.array(gradient.astype(np.float32))}, options.clip_norm)
        parameters = theirs.apply_gradients(grads, parameters)
        assert total.item() == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(np.array(parameters["table"]), table, rtol=1e-5, atol=1e-6)


def test_warm_up_rises_in_a_line_and_stays():
    optimizer = twin.AdamW((1,), settings(learning_rate=1.0, warmup_steps=4, warmup_init=0.2))
    rates = []
    for _ in range(6):
        rates.append(optimizer.learning_rate())
        optimizer.apply(np.zeros(1), np.zeros(1))
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_five_updates_raise_what_is_rewarded():
    rng, data = np.random.default_rng(3), rollouts(3)
    start = rng.normal(0, 1, (VOCABULARY, VOCABULARY))
    policy = twin.Twin(start, start, settings(beta=0.0, learning_rate=0.05))
    previous = twin.previous_tokens(data["prompts"], data["completions"])
    mask = np.arange(WIDTH) < data["lengths"][:, None]

    def row_logprobs():
        return (twin.bigram_logprobs(policy.table, previous, data["completions"]) * mask).sum(axis=1)

    before = row_logprobs()
    reports = [policy.update(**data) for _ in range(5)]
    gained = row_logprobs() - before
    assert gained[[0, 3]].sum() > gained[[1, 2]].sum()
    assert all(report["grad_norm"] > 0 for report in reports)
    assert reports[0]["rows"] == GROUP
    assert reports[0]["tokens"] == data["lengths"][:GROUP].sum()


def test_kl_is_zero_at_the_reference_and_grows():
    start = np.random.default_rng(4).normal(0, 1, (VOCABULARY, VOCABULARY))
    policy = twin.Twin(start, start, settings(learning_rate=0.05))
    kls = [policy.update(**rollouts(4))["kl"] for _ in range(3)]
    assert kls[0] == 0
    assert 0 < kls[1] < kls[2]


def test_an_update_of_equal_rewards_makes_no_step():
    start = np.eye(VOCABULARY)
    policy = twin.Twin(start, start, settings())
    report = policy.update(**(rollouts(5) | {"rewards": np.ones(ROWS)}))
    assert report["rows"] == 0
    np.testing.assert_array_equal(policy.table, start)
    assert policy.optimizer.step == 0
