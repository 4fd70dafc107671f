"""PPO's file: rewards of tokens, advantages, and the whole loss with its gradient by finite differences."""

import mlx.core as mx
import numpy as np
import pytest

from pipelines.algorithms.base import AlgorithmRegistry, Batch, Recorded, Totals
from pipelines.algorithms.ppo import Ppo
from pipelines.algorithms.value import gae, whitened
from pipelines.config import LossConfig, PpoConfig, TrainerConfig

ROWS, WIDTH = 5, 7


def ppo(loss=None, **changes):
    return Ppo(TrainerConfig(algorithm="ppo", loss=LossConfig(**(loss or {})), **changes))


def mask_with_holes(seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(WIDTH) < rng.integers(2, WIDTH + 1, ROWS)[:, None]
    mask[0, 1] = False
    return mask


def drawn(seed, count):
    return np.random.default_rng(seed).normal(0, 1, (count, ROWS, WIDTH)).astype(np.float32)


def test_it_is_registered():
    made = AlgorithmRegistry.create(TrainerConfig(algorithm="ppo"))
    assert isinstance(made, Ppo)
    assert made.uses_rollouts
    assert made.uses_values
    assert not made.compares_completions


def test_a_completion_keeps_its_reward_whatever_the_others_got():
    """Equal rewards, groups of one and a single completion: all of them teach."""
    for rewards, group in (([2.5, 2.5, 2.5, 2.5], 4), ([1.0, 0.0], 1), ([3.0], 1)):
        found = ppo().advantages(mx.array(rewards)[:, None], mx.ones(1), group)
        assert found.values.tolist() == rewards
        assert not any(found.zero_variance.tolist())


def test_rewards_that_abstain_are_left_out_and_a_row_without_any_is_dropped():
    rewards = mx.array([[1.0, 0.0], [1.0, np.nan], [np.nan, 0.5], [np.nan, np.nan]])
    found = ppo().advantages(rewards, mx.array([3.0, 1.0]), 2)
    np.testing.assert_allclose(np.array(found.values), [0.75, 1.0, 0.5, np.nan])
    assert found.zero_variance.tolist() == [False, False, False, True]


def recorded(seed=1, *, reference=True, rewards=None):
    """Values, log-probabilities and rewards; NaN wherever nothing is to be looked at."""
    mask = mask_with_holes()
    new, ref, values = (np.where(mask, array, np.nan) for array in drawn(seed, 3))
    given = np.arange(ROWS, dtype=np.float32) if rewards is None else np.array(rewards, np.float32)
    return Recorded(
        mx.array(given), mx.array(mask), mx.array(new), mx.array(ref) if reference else None, mx.array(values)
    )


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_kl_is_paid_token_by_token_and_the_reward_at_the_end(estimator):
    rows = recorded()
    found = ppo({"kl_estimator": estimator}, grpo_beta=0.3).token_advantages(rows)
    mask, d = np.array(rows.mask), np.array(rows.ref_logprobs) - np.array(rows.logprobs)
    kl = {"k1": -d, "k2": d**2 / 2, "k3": np.exp(d) - d - 1}[estimator]
    rewards = np.where(mask, -0.3 * kl, 0.0)
    for row in range(ROWS):
        rewards[row, np.flatnonzero(mask[row])[-1]] += row
    advantages, returns = gae(mx.array(rewards.astype(np.float32)), rows.values, rows.mask, 1.0, 0.95)
    np.testing.assert_allclose(np.array(found.returns), np.array(returns), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.array(found.values), np.array(whitened(advantages, rows.mask)), rtol=1e-5, atol=1e-5)
    assert float(found.metrics["kl"]) == pytest.approx(kl[mask].mean(), rel=1e-5)
    assert float(found.metrics["critic/values/mean"]) == pytest.approx(np.array(rows.values)[mask].mean(), rel=1e-5)
    assert float(found.metrics["critic/returns/mean"]) == pytest.approx(np.array(returns)[mask].mean(), rel=1e-5)


def test_settings_reach_the_estimate():
    rows = recorded(reference=False)
    plain = ppo().token_advantages(rows)
    assert "kl" not in plain.metrics
    for changed in (PpoConfig(gamma=0.5), PpoConfig(gae_lambda=0.1)):
        other = ppo(ppo=changed).token_advantages(rows)
        assert not np.allclose(np.array(other.returns), np.array(plain.returns), atol=0.05)


def test_a_completion_without_a_score_teaches_nothing_even_where_it_is_not_dropped():
    rows = recorded(rewards=[0, 1, np.nan, 3, 4])
    found = ppo(grpo_beta=0.3).token_advantages(rows)
    others = [0, 1, 3, 4]
    alone = Recorded(*(array[mx.array(others)] for array in rows))
    wanted = ppo(grpo_beta=0.3).token_advantages(alone)
    np.testing.assert_allclose(np.array(found.values)[others], np.array(wanted.values), atol=1e-6)
    mask = np.array(rows.mask)
    assert not np.array(found.values)[2].any()
    np.testing.assert_array_equal(np.array(found.returns)[2, mask[2]], np.array(rows.values)[2, mask[2]])


def a_batch(seed=2, *, advantages=None):
    mask = mask_with_holes()
    new, old, gains, values, old_values, returns = drawn(seed, 6)
    old = new + 0.4 * old  # ratios on both sides of the clip
    values = old_values + 0.4 * values
    nothing = mx.zeros((ROWS, WIDTH), mx.int32)
    batch = Batch(
        tokens=nothing,
        starts=mx.ones(ROWS, mx.int32),
        completions=nothing,
        mask=mx.array(mask),
        thinking=mx.array(np.arange(WIDTH)[None] < np.arange(ROWS)[:, None]),
        advantages=mx.array(gains) if advantages is None else advantages,
        old_logprobs=mx.array(old),
        values=mx.array(values),
        old_values=mx.array(old_values),
        returns=mx.array(returns),
    )
    return mx.array(new), mx.abs(mx.array(drawn(seed + 1, 1)[0])), batch


def totals_of(batch, **changes):
    return Totals(**({"items": int(batch.mask.sum()), "rows": ROWS, "budget_tokens": 9} | changes))


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "cispo"])
def test_the_gradient_of_the_whole_loss_by_finite_differences(loss):
    algorithm = ppo({"type": loss, "entropy_coef": 0.1, "epsilon_high": 5.0 if loss == "cispo" else 0.28})
    logprobs, entropies, batch = a_batch()

    def value(new, entropy, values):
        return algorithm.loss(new, entropy, batch._replace(values=values), totals_of(batch)).loss

    inputs = [logprobs, entropies, batch.values]
    gradients = [np.array(g) for g in mx.grad(value, argnums=(0, 1, 2))(*inputs)]
    frozen = loss == "cispo"  # whose weight is a constant for the gradient and not for the difference
    for which, step in ((0, 2e-3), (1, 1e-2), (2, 1e-2)):
        for row, column in np.ndindex(ROWS, WIDTH):
            moved = []
            for sign in (1, -1):
                nudge = np.zeros((ROWS, WIDTH), np.float32)
                nudge[row, column] = sign * step
                moved.append(float(value(*(x + mx.array(nudge) if i == which else x for i, x in enumerate(inputs)))))
            slope = (moved[0] - moved[1]) / (2 * step)
            if not (frozen and which == 0):
                assert gradients[which][row, column] == pytest.approx(slope, abs=3e-4), (which, row, column)
    assert all(np.abs(gradient).max() > 0.01 / (1 + 9 * (i == 1)) for i, gradient in enumerate(gradients))


def test_the_kl_is_no_part_of_the_loss():
    logprobs, entropies, batch = a_batch()
    with_reference = batch._replace(ref_logprobs=logprobs + 1)
    losses = {float(ppo(grpo_beta=b).loss(logprobs, entropies, with_reference, totals_of(batch)).loss) for b in (0, 1)}
    assert len(losses) == 1
    assert "kl" not in ppo(grpo_beta=1.0).loss(logprobs, entropies, with_reference, totals_of(batch)).metrics


def test_the_parts_of_the_loss_are_reported():
    logprobs, entropies, batch = a_batch()
    for coefficient in (0.0, 0.5, 2.0):
        output = ppo(ppo=PpoConfig(value_coef=coefficient)).loss(logprobs, entropies, batch, totals_of(batch))
        parts = {name: float(value) for name, value in output.metrics.items()}
        assert float(output.loss) == pytest.approx(parts["policy_loss"] + coefficient * parts["value_loss"], rel=1e-6)
        assert 0 < parts["critic/vf_clipfrac"] < 1
        assert 0 < parts["clip_ratio/region_mean"] < 1


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "sapo"])
def test_micro_batches_and_regions_add_up(loss):
    algorithm = ppo({"type": loss})
    logprobs, entropies, batch = a_batch()
    totals = totals_of(batch)
    whole = algorithm.loss(logprobs, entropies, batch, totals)

    def rows(where):
        return Batch(*(None if array is None else array[where] for array in batch))

    halves = [algorithm.loss(logprobs[w], entropies[w], rows(w), totals).loss for w in (slice(0, 2), slice(2, ROWS))]
    regions = [
        algorithm.loss(logprobs, entropies, batch._replace(weights=w), totals).loss
        for w in (batch.thinking, ~batch.thinking)
    ]
    for parts in (halves, regions):
        assert float(sum(parts)) == pytest.approx(float(whole.loss), rel=1e-5)
        assert all(abs(float(part)) > 1e-3 for part in parts)


def test_values_are_needed():
    logprobs, entropies, batch = a_batch()
    with pytest.raises(ValueError, match="values and returns"):
        ppo().loss(logprobs, entropies, batch._replace(values=None), totals_of(batch))
