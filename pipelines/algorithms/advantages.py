"""Advantages: how much better each completion is than what it is compared with.

Shapes: N = B * G completions in order of their prompts, so that a group is G consecutive rows; K rewards.
A NaN reward is one that abstained. A group whose rewards are all equal carries no signal and gets exact zeros.
"""

from typing import NamedTuple

import mlx.core as mx

from pipelines.config import AdvantageConfig
from pipelines.errors import ConfigError

ROUNDING = 4 * 2.0**-23
"""Rewards this close, relative to the largest, are equal up to float32 rounding: four units in the last place."""


class Advantages(NamedTuple):
    """What `compute_advantages` found. A tuple, so that mlx transforms can return it."""

    values: mx.array
    """[N] float32, exactly 0 where nothing can be compared."""

    zero_variance: mx.array
    """[N] bool: the row's comparison set had two or more rewards and all of them were equal."""


class _Spread(NamedTuple):
    """Statistics of M comparison sets with G rewards each, over the scorable rewards only."""

    centered: mx.array  # [M, G], 0 where unscored
    std: mx.array  # [M, 1], ddof = 1, 0 with fewer than two rewards
    count: mx.array  # [M, 1]
    equal: mx.array  # [M, 1] bool


def compute_advantages(
    rewards: mx.array, group_size: int, config: AdvantageConfig, *, weights: mx.array | None = None
) -> Advantages:
    """Turn rewards [N] or [N, K] into advantages [N].

    A = (r - baseline) / (std + epsilon), with r the weighted sum of the K rewards, abstained ones left out
    (`weights` [K], default all 1). The baseline is the mean of the row's group (GRPO, arXiv:2402.03300), of the whole
    batch, or of the *other* rows of the group (RLOO, arXiv:2402.14740); the divisor is the sample deviation of the
    group, of the whole batch, or 1 (Dr. GRPO, arXiv:2503.20783). Rows without any score, and groups with fewer than
    two scored rows, get 0.

    `aggregation: normalize_then_sum` (GDPO, arXiv:2601.05242) standardises each reward within its group first, then
    the weighted sum over the whole batch, so that no reward drowns the others by its scale; `scale` has no say there.
    Where a reward abstained, the others' weights grow to make up for it, or the row would look average.

    Raises ConfigError for a single row, which has nothing to be compared with.
    """
    table = _as_table(rewards, group_size)  # [N, K]
    weights = mx.ones(table.shape[1]) if weights is None else mx.array(weights).astype(mx.float32)
    width = _comparison_width(table.shape[0], group_size, config)
    if config.aggregation == "normalize_then_sum":
        return _normalize_then_sum(table, weights, width, config)
    return _sum_then_normalize(table, weights, width, config)


def kept_rows(advantages: Advantages, *, drop: bool = True) -> list[int]:
    """Indices of the rows worth an update: those outside zero-variance groups, or all of them with `drop` off.

    A dropped row leaves the loss, the KL and every denominator, so take `num_items` and `num_rows` after the drop.
    Reads the values on the host: call it between rollout and update, not inside a compiled step.
    """
    flat: list[bool] = advantages.zero_variance.tolist()  # pyright: ignore[reportAssignmentType]
    return [row for row, equal in enumerate(flat) if not (drop and equal)]


def _as_table(rewards: mx.array, group_size: int) -> mx.array:
    rewards = mx.array(rewards).astype(mx.float32)
    count = rewards.shape[0]
    if count == 1:
        raise ConfigError(
            "one completion per update has nothing to be compared with",
            hint="raise trainer.num_rollout_samples, trainer.ppo_batch_size or trainer.grad_accum_steps",
        )
    if group_size < 1 or count % group_size:
        raise ValueError(f"{count} rewards do not divide into groups of {group_size}")
    return rewards.reshape(count, -1)


def _comparison_width(count: int, group_size: int, config: AdvantageConfig) -> int:
    """How many consecutive rows are compared: the group, or all N rows when the batch is the baseline."""
    alone = config.baseline == "auto" and group_size == 1
    return count if alone or config.baseline == "batch" else group_size


def _sum_then_normalize(table: mx.array, weights: mx.array, width: int, config: AdvantageConfig) -> Advantages:
    total = _weighted_sum(table, weights)
    spread = _spread(total.reshape(-1, width))
    batch = _spread(total.reshape(1, -1))
    judge = batch if config.scale == "batch" else spread
    values = _baselined(spread, config)
    if config.scale != "none":
        values = values / (judge.std + config.epsilon)
    zero = mx.broadcast_to(judge.equal, values.shape)
    return Advantages(mx.where(zero, 0.0, values).flatten(), zero.flatten())


def _normalize_then_sum(table: mx.array, weights: mx.array, width: int, config: AdvantageConfig) -> Advantages:
    columns = table.T.reshape(-1, width)  # [K * N / width, width]
    spread = _spread(columns)
    scores = _baselined(spread, config) / (spread.std + config.epsilon)
    scores = mx.where(mx.isnan(columns), mx.nan, scores).reshape(table.T.shape).T  # [N, K]
    zero = _all_rewards_equal(spread, table.shape[0] // width, width)  # [N]
    batch = _spread((_weighted_sum(scores, weights) * _made_up_for(scores, weights)).reshape(1, -1))
    values = (batch.centered / (batch.std + config.epsilon)).flatten()
    return Advantages(mx.where(zero, 0.0, values), zero)


def _all_rewards_equal(spread: _Spread, groups: int, width: int) -> mx.array:
    """[N] bool: no reward distinguishes the rows of the group, and at least one of them was there to compare."""
    silent = (spread.equal | (spread.count < 2)).reshape(-1, groups).all(axis=0)
    compared = spread.equal.reshape(-1, groups).any(axis=0)
    return mx.repeat(silent & compared, width)


def _weighted_sum(table: mx.array, weights: mx.array) -> mx.array:
    """[N, K] -> [N], over the rewards that did not abstain; NaN for a row where all did."""
    present = ~mx.isnan(table)
    total = (mx.where(present, table, 0.0) * weights).sum(axis=1)
    return mx.where(present.any(axis=1), total, mx.nan)


def _made_up_for(table: mx.array, weights: mx.array) -> mx.array:
    """[N]: what brings the weights of a row's present rewards to the sum that the fullest row has."""
    present = (mx.where(mx.isnan(table), 0.0, 1.0) * mx.abs(weights)).sum(axis=1)
    return mx.where(present > 0, present.max() / mx.where(present > 0, present, 1.0), 1.0)


def _baselined(spread: _Spread, config: AdvantageConfig) -> mx.array:
    """[M, G]: r - mean, or r - mean of the others, which is the same thing times n / (n - 1)."""
    if config.baseline != "leave_one_out":
        return spread.centered
    return spread.centered * (spread.count / mx.maximum(spread.count - 1, 1))


def _spread(rewards: mx.array) -> _Spread:
    """Center the scorable rewards of every row of [M, G] and measure their deviation."""
    scorable = ~mx.isnan(rewards)
    count = scorable.sum(axis=1, keepdims=True)
    # The mean of ten 2.7s is not 2.7 in float32; measuring from the first makes equal sets exactly 0.
    first = mx.take_along_axis(rewards, mx.argmax(scorable, axis=1, keepdims=True), axis=1)
    relative = mx.where(scorable, rewards - first, 0.0)
    centered = mx.where(scorable, relative - relative.sum(axis=1, keepdims=True) / mx.maximum(count, 1), 0.0)
    std = mx.sqrt(centered.square().sum(axis=1, keepdims=True) / mx.maximum(count - 1, 1))
    largest = mx.where(scorable, mx.abs(rewards), 0.0).max(axis=1, keepdims=True)
    reach = relative.max(axis=1, keepdims=True) - relative.min(axis=1, keepdims=True)
    return _Spread(centered, std, count, (count >= 2) & (reach <= ROUNDING * largest))
