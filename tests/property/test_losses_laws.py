"""The laws every policy loss obeys: padding, order, zero advantage, on-policy gradient, levels, compilation."""

from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.algorithms.losses import LOSSES, policy_loss, without_truncated
from pipelines.config import LossConfig

OFFERED = ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"]
ROWS, WIDTH, BUDGET = 5, 7, 12
GARBAGE = [float("nan"), float("inf"), float("-inf"), 1e30, -7.0]
every_type = pytest.mark.parametrize("type_", OFFERED)
laws = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def config_of(type_, **fields):
    return LossConfig(type=type_, epsilon_high=5.0 if type_ == "cispo" else 0.28, **fields)


def batch_of(seed, rows=ROWS, width=WIDTH):
    """Ragged log-probabilities, a reference, advantages, entropies; the mask may have holes and empty rows."""
    rng = np.random.default_rng(seed)
    new = -rng.exponential(1.0, (rows, width))
    batch = {
        "new": new,
        "old": new + rng.normal(0, 0.3, (rows, width)),
        "ref": new + rng.normal(0, 0.3, (rows, width)),
        "sampler": new + rng.normal(0, 0.1, (rows, width)),
        "advantages": rng.normal(0, 1, rows),
        "entropies": rng.uniform(0, 3, (rows, width)),
        "mask": (np.arange(width) < rng.integers(0, width + 1, rows)[:, None]) * (rng.random((rows, width)) < 0.9),
    }
    batch["mask"][0, :2] = True  # never nothing at all
    return {name: values.astype(np.float32) for name, values in batch.items()}


def evaluate(batch, config, *, on_policy=False, with_sampler=False, **arguments):
    """(loss, metrics, gradient with respect to new) as plain numbers and numpy arrays."""
    arrays = {name: mx.array(values) for name, values in batch.items()}

    def loss(new):
        return policy_loss(
            new,
            None if on_policy else arrays["old"],
            arrays["ref"],
            arrays["advantages"],
            arrays["mask"],
            config,
            **({"max_completion_length": BUDGET, "entropies": arrays["entropies"]} | arguments),
            sampler_logprobs=arrays["sampler"] if with_sampler else None,
        )

    (value, metrics), gradient = mx.value_and_grad(loss)(arrays["new"])
    return value.item(), {name: metric.item() for name, metric in metrics.items()}, np.array(gradient)


@every_type
@given(seed=seeds, garbage=st.sampled_from(GARBAGE), level=st.sampled_from(["token", "sequence"]))
@laws
def test_padding_garbage_changes_nothing(type_, seed, garbage, level):
    config = config_of(type_, level=level, entropy_coef=0.01, top_entropy_quantile=0.5, kl_bias_correction=True)
    clean = batch_of(seed)
    dirty = {name: values.copy() for name, values in clean.items()}
    outside = clean["mask"] == 0
    for name in ("new", "old", "ref", "sampler", "entropies"):
        dirty[name][outside] = garbage
    dirty["advantages"][outside.all(axis=1)] = garbage
    settings_ = {"beta": 0.1, "with_sampler": True}
    expected, found = evaluate(clean, config, **settings_), evaluate(dirty, config, **settings_)
    assert found[:2] == expected[:2]
    np.testing.assert_array_equal(found[2], expected[2])
    assert np.isfinite(found[2]).all()
    assert not found[2][outside].any()


@every_type
@given(seed=seeds, extra=st.integers(1, 4))
@laws
def test_wider_padding_changes_nothing(type_, seed, extra):
    batch = batch_of(seed)
    wide = {
        name: values if values.ndim == 1 else np.pad(values, ((0, 0), (0, extra))) for name, values in batch.items()
    }
    loss, _, gradient = evaluate(batch, config_of(type_), beta=0.1)
    wide_loss, _, wide_gradient = evaluate(wide, config_of(type_), beta=0.1)
    assert wide_loss == pytest.approx(loss, abs=1e-5)
    np.testing.assert_allclose(wide_gradient[:, :WIDTH], gradient, atol=1e-6)


@every_type
@given(seed=seeds)
@laws
def test_the_order_of_rows_does_not_matter(type_, seed):
    batch, order = batch_of(seed), np.random.default_rng(seed).permutation(ROWS)
    loss, metrics, gradient = evaluate(batch, config_of(type_), beta=0.1)
    found = evaluate({name: values[order] for name, values in batch.items()}, config_of(type_), beta=0.1)
    assert found[0] == pytest.approx(loss, abs=1e-5)
    assert found[1] == pytest.approx(metrics, abs=1e-5)
    np.testing.assert_allclose(found[2], gradient[order], atol=1e-6)


@every_type
@given(seed=seeds)
@laws
def test_zero_advantage_means_zero_gradient(type_, seed):
    batch = batch_of(seed) | {"advantages": np.zeros(ROWS, dtype=np.float32)}
    loss, _, gradient = evaluate(batch, config_of(type_))
    assert loss == 0
    assert not gradient.any()


@every_type
@given(seed=seeds, level=st.sampled_from(["token", "sequence"]))
@laws
def test_on_policy_gradient_is_the_advantage_over_its_denominator(type_, seed, level):
    batch = batch_of(seed)
    _, metrics, gradient = evaluate(batch, config_of(type_, level=level), on_policy=True)
    mask = batch["mask"]
    by_row = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    items = mask.sum()
    denominator = {"dapo": items, "bnpo": items, "cispo": items, "dr_grpo": ROWS * BUDGET}.get(type_, by_row * ROWS)
    spread = mask * (-batch["advantages"][:, None]) / denominator
    np.testing.assert_allclose(gradient, spread, atol=1e-6)
    assert not any(value for name, value in metrics.items() if "clip_ratio" in name)


@pytest.mark.parametrize("type_", [name for name in OFFERED if name != "gspo"])
@given(seed=seeds)
@laws
def test_sequence_level_with_one_token_is_token_level(type_, seed):
    batch = batch_of(seed, width=1)
    token = evaluate(batch, config_of(type_), beta=0.1)
    sequence = evaluate(batch, config_of(type_, level="sequence"), beta=0.1)
    assert sequence[0] == pytest.approx(token[0], abs=1e-6)
    np.testing.assert_allclose(sequence[2], token[2], atol=1e-6)


@given(seed=seeds)
@laws
def test_gspo_is_grpo_at_the_sequence_level(seed):
    batch = batch_of(seed)
    gspo, grpo = evaluate(batch, config_of("gspo")), evaluate(batch, config_of("grpo", level="sequence"))
    assert gspo[:2] == grpo[:2]
    np.testing.assert_array_equal(gspo[2], grpo[2])


@every_type
@pytest.mark.parametrize("level", ["token", "sequence"])
@given(seed=seeds)
@laws
def test_regional_losses_add_up_to_the_plain_one(type_, level, seed):
    """Weights leave the denominators and the sequence ratio alone, so the loss is linear in them."""
    batch, config = batch_of(seed), config_of(type_, level=level, entropy_coef=0.02)
    thinking = (np.arange(WIDTH) < 3) * np.ones((ROWS, 1), dtype=np.float32)
    parts = [evaluate(batch, config, beta=0.1, weights=mx.array(part)) for part in (thinking, 1 - thinking)]
    loss, _, gradient = evaluate(batch, config, beta=0.1)
    assert parts[0][0] + parts[1][0] == pytest.approx(loss, abs=1e-5)
    np.testing.assert_allclose(parts[0][2] + parts[1][2], gradient, atol=1e-6)


COMPILED = {  # mlx compiles each anew, which takes a second
    **{type_: (type_, {}, False) for type_ in OFFERED},
    "on-policy": ("dapo", {}, True),
    "on-policy by row": ("gspo", {"kl_bias_correction": True}, True),
    "k1, capped": ("dapo", {"kl_estimator": "k1", "delta": 1.5}, False),
    "k2, corrected": ("grpo", {"kl_estimator": "k2", "kl_bias_correction": True, "level": "sequence"}, False),
}


@pytest.mark.parametrize("case", COMPILED)
def test_compiled_equals_eager(case):
    type_, fields, on_policy = COMPILED[case]
    config = config_of(type_, entropy_coef=0.01, top_entropy_quantile=0.5, **fields)
    arrays = {name: mx.array(values) for name, values in batch_of(7).items()}

    def loss(new, items):
        return policy_loss(
            new,
            None if on_policy else arrays["old"],
            arrays["ref"],
            arrays["advantages"],
            arrays["mask"],
            config,
            beta=0.1,
            num_items=items,
            max_completion_length=BUDGET,
            entropies=arrays["entropies"],
            sampler_logprobs=arrays["sampler"],
        )

    step = mx.value_and_grad(loss)
    (eager, eager_metrics), eager_gradient = step(arrays["new"], mx.array(20))
    (compiled, metrics), gradient = mx.compile(step)(arrays["new"], mx.array(20))
    assert compiled.item() == pytest.approx(eager.item(), abs=1e-6)
    np.testing.assert_allclose(np.array(gradient), np.array(eager_gradient), atol=1e-6)
    assert {name: metric.item() for name, metric in metrics.items()} == pytest.approx(
        {name: metric.item() for name, metric in eager_metrics.items()}, abs=1e-6
    )


@every_type
def test_16_bit_inputs_are_scored_in_float32(type_):
    batch = batch_of(3)
    rounded = {
        name: np.array(mx.array(values).astype(mx.bfloat16).astype(mx.float32)) for name, values in batch.items()
    }
    arrays = [mx.array(rounded[name]).astype(mx.bfloat16) for name in ("new", "old", "ref", "advantages")]
    half = policy_loss(*arrays, mx.array(batch["mask"]), config_of(type_), max_completion_length=BUDGET).loss
    assert half.dtype == mx.float32
    assert half.item() == pytest.approx(evaluate(rounded, config_of(type_))[0], abs=1e-6)


@every_type
def test_an_update_without_any_token_is_zero_not_nan(type_):
    batch = batch_of(1)
    empty = batch | {"mask": np.zeros_like(batch["mask"])}
    loss, metrics, gradient = evaluate(empty, config_of(type_), beta=0.1, with_sampler=True)
    assert loss == 0
    assert np.isfinite(list(metrics.values())).all()
    assert not gradient.any()


def test_a_truncated_row_leaves_loss_and_count():
    batch = batch_of(5)
    emptied = batch | {"mask": batch["mask"] * np.array([[1], [0], [1], [1], [1]], dtype=np.float32)}
    mask = without_truncated(mx.array(batch["mask"]), mx.array([False, True, False, False, False]))
    np.testing.assert_array_equal(np.array(mask), emptied["mask"])
    rest = {name: np.delete(values, 1, axis=0) for name, values in batch.items()}
    assert evaluate(emptied, config_of("dapo"))[0] == pytest.approx(evaluate(rest, config_of("dapo"))[0], abs=1e-6)


def test_clip_metrics_count_the_tokens_that_the_clip_stops():
    """Ratios on both sides of 0.8 and 1.28; the third row is empty and has no share that could be the lowest."""
    ratios = np.array([[0.5, 0.79, 0.9, 1.4], [1.25, 1.3, 1.5, 0.5], [1, 1, 1, 1]], dtype=np.float32)
    mask = mx.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    advantages = mx.array([-1.0, 1.0, -1.0])
    new = mx.log(mx.array(ratios))
    metrics = policy_loss(new, mx.zeros((3, 4)), None, advantages, mask, config_of("dapo")).metrics
    down = policy_loss(new, mx.zeros((3, 4)), None, -mx.abs(advantages), mask, config_of("dapo")).metrics
    assert {name.removeprefix("clip_ratio/"): metric.item() for name, metric in metrics.items()} == pytest.approx(
        {"low_mean": 2 / 8, "high_mean": 2 / 8, "region_mean": 4 / 8, "low_min": 0, "high_max": 2 / 4}
    )
    assert down["clip_ratio/low_min"].item() == pytest.approx(1 / 4)
    assert down["clip_ratio/high_max"].item() == 0


@pytest.mark.parametrize("fields", [{"entropy_coef": 0.1}, {"top_entropy_quantile": 0.5}])
def test_missing_entropies_are_a_loud_bug(fields):
    with pytest.raises(ValueError, match="need entropies"):
        evaluate(batch_of(0), config_of("dapo", **fields), entropies=None)


def test_a_missing_reference_is_a_loud_bug():
    with pytest.raises(ValueError, match="ref_logprobs are needed"):
        policy_loss(mx.zeros((1, 1)), None, None, mx.zeros(1), mx.ones((1, 1)), config_of("dapo"), beta=0.1)


def test_every_type_of_the_schema_has_a_loss():
    assert set(get_args(LossConfig.model_fields["type"].annotation)) <= LOSSES.keys()
