"""Splitting an update into micro-batches changes neither its loss nor its gradient, for any split."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.algorithms.entropy import entropy_threshold
from pipelines.algorithms.loss_metrics import merged_metrics
from pipelines.algorithms.losses import policy_loss
from pipelines.config import LossConfig

ROWS, WIDTH, BUDGET = 6, 5, 9
ADDITIVE = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"]
splits = st.lists(st.integers(1, ROWS - 1), unique=True, max_size=ROWS - 1).map(sorted)


def update_of(seed):
    rng = np.random.default_rng(seed)
    new = -rng.exponential(1.0, (ROWS, WIDTH))
    mask = np.arange(WIDTH) < rng.integers(0, WIDTH + 1, ROWS)[:, None]
    mask[0, 0] = True
    arrays = {
        "new": new,
        "old": new + rng.normal(0, 0.3, new.shape),
        "ref": new + rng.normal(0, 0.3, new.shape),
        "advantages": rng.normal(0, 1, ROWS),
        "mask": mask,
        "entropies": rng.uniform(0, 3, new.shape),
    }
    return {name: mx.array(values.astype(np.float32)) for name, values in arrays.items()}


def loss_and_gradient(rows, config, **arguments):
    def loss(new):
        return policy_loss(
            new,
            rows["old"],
            rows["ref"],
            rows["advantages"],
            rows["mask"],
            config,
            beta=0.1,
            max_completion_length=BUDGET,
            entropies=rows["entropies"],
            **arguments,
        )

    return mx.value_and_grad(loss)(rows["new"])


@pytest.mark.parametrize("type_", ADDITIVE)
@pytest.mark.parametrize("level", ["token", "sequence"])
@given(seed=st.integers(0, 2**31), cuts=splits, quantile=st.sampled_from([1.0, 0.4]))
@settings(deadline=None, max_examples=20)
def test_the_sum_over_micro_batches_is_the_update(type_, level, seed, cuts, quantile):
    config = LossConfig(type=type_, level=level, entropy_coef=0.01, top_entropy_quantile=quantile)
    update = update_of(seed)
    (whole, metrics), gradient = loss_and_gradient(update, config)
    shared = {
        "num_items": update["mask"].sum(),
        "num_rows": ROWS,
        "entropy_threshold": entropy_threshold(update["entropies"], update["mask"], quantile),
    }
    bounds = list(zip([0, *cuts], [*cuts, ROWS], strict=True))
    parts = [{name: values[start:end] for name, values in update.items()} for start, end in bounds]
    results = [loss_and_gradient(part, config, **shared) for part in parts]

    assert sum(output.loss.item() for output, _ in results) == pytest.approx(whole.item(), abs=1e-5)
    joined = np.concatenate([np.array(part_gradient) for _, part_gradient in results])
    np.testing.assert_allclose(joined, np.array(gradient), atol=1e-6)

    reported = merged_metrics([output.metrics for output, _ in results], [part["mask"].sum() for part in parts])
    for name in ("kl", "entropy"):
        assert reported[name].item() == pytest.approx(metrics[name].item(), abs=1e-5)
    if type_ == "dapo" and level == "token":
        for name in (name for name in metrics if name.startswith("clip_ratio") and not name.endswith("min")):
            assert reported[name].item() == pytest.approx(metrics[name].item(), abs=1e-5)


@pytest.mark.parametrize("type_", [type_ for type_ in ADDITIVE if type_ != "gspo"])
@given(seed=st.integers(0, 2**31), cuts=splits)
@settings(deadline=None, max_examples=10)
def test_so_it_is_with_an_advantage_per_token_and_a_sampler_correction(type_, seed, cuts):
    rng = np.random.default_rng(seed)
    update = update_of(seed) | {"advantages": mx.array(rng.normal(0, 1, (ROWS, WIDTH)).astype(np.float32))}
    sampler = update["old"] + mx.array(rng.normal(0, 0.2, (ROWS, WIDTH)).astype(np.float32))
    config = LossConfig(type=type_)
    (whole, _), gradient = loss_and_gradient(update, config, sampler_logprobs=sampler)
    shared = {"num_items": update["mask"].sum(), "num_rows": ROWS}
    parts = [slice(start, end) for start, end in zip([0, *cuts], [*cuts, ROWS], strict=True)]
    results = [
        loss_and_gradient(
            {name: values[rows] for name, values in update.items()}, config, sampler_logprobs=sampler[rows], **shared
        )
        for rows in parts
    ]
    assert sum(output.loss.item() for output, _ in results) == pytest.approx(whole.item(), abs=1e-5)
    joined = np.concatenate([np.array(part_gradient) for _, part_gradient in results])
    np.testing.assert_allclose(joined, np.array(gradient), atol=1e-6)


def test_bnpo_averages_within_the_micro_batch():
    """The documented exception: the sum of two micro-batches is not the update, but each is a mean of its own."""
    update = update_of(11)
    halves = [{name: values[start : start + 3] for name, values in update.items()} for start in (0, 3)]
    config = LossConfig(type="bnpo")
    whole = loss_and_gradient(update, config)[0].loss.item()
    tokens = [half["mask"].sum().item() for half in halves]
    losses = [loss_and_gradient(half, config, num_items=99, num_rows=99)[0].loss.item() for half in halves]
    assert np.average(losses, weights=tokens) == pytest.approx(whole, abs=1e-5)
    assert sum(losses) != pytest.approx(whole, abs=1e-3)


def test_the_denominators_may_be_numbers_or_arrays():
    update = update_of(2)
    for type_ in ADDITIVE:
        config = LossConfig(type=type_)
        numbers = loss_and_gradient(update, config, num_items=30, num_rows=12)[0].loss.item()
        arrays = loss_and_gradient(update, config, num_items=mx.array(30), num_rows=mx.array(12))[0].loss.item()
        assert numbers == arrays
