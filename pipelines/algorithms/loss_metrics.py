"""What a policy loss reports about itself, and how the reports of micro-batches become the report of the update.

All are mlx scalars without gradient, means over the active tokens of the rows given (over active rows at the
sequence level); `low_min` and `high_max` are the extremes over rows. Names are those of the usual trainers.
"""

from collections.abc import Sequence

import mlx.core as mx

from pipelines.config import LossConfig

Metrics = dict[str, mx.array]


def masked_mean(values: mx.array, mask: mx.array) -> mx.array:
    """Mean of `values` [N, C] (or [N, 1], then over rows with any token) where the mask [N, C] is 1."""
    mask = _mask_for(values, mask)
    return (values * mask).sum() / mx.maximum(mask.sum(), 1)


def clip_metrics(ratio: mx.array, advantages: mx.array, mask: mx.array, config: LossConfig) -> Metrics:
    """Share of tokens whose clip is active: ratio below 1 - epsilon with A < 0, above 1 + epsilon_high with A > 0."""
    low = _indicator((ratio < 1 - config.epsilon) & (advantages < 0))
    high = _indicator((ratio > 1 + config.epsilon_high) & (advantages > 0))
    by_row_low, by_row_high = _row_means(low, mask), _row_means(high, mask)
    some = mask.max(axis=1) > 0
    lowest = mx.where(some, by_row_low, mx.inf).min()
    return {
        "clip_ratio/low_mean": masked_mean(low, mask),
        "clip_ratio/high_mean": masked_mean(high, mask),
        "clip_ratio/region_mean": masked_mean(mx.maximum(low, high), mask),
        "clip_ratio/low_min": mx.where(mx.isinf(lowest), 0.0, lowest),
        "clip_ratio/high_max": by_row_high.max(),
    }


def cispo_metrics(ratio: mx.array, advantages: mx.array, mask: mx.array, config: LossConfig) -> Metrics:
    """Share of tokens with A > 0 whose importance weight was capped."""
    return {"cispo_clip_ratio": masked_mean(_indicator((ratio > config.epsilon_high) & (advantages > 0)), mask)}


def sampler_metrics(old: mx.array, sampler: mx.array, mask: mx.array) -> Metrics:
    """How far the sampler's log-probabilities are from the trainer's: |old - sampler| in nats."""
    gap = mx.abs(mx.stop_gradient(old) - sampler) * mask
    return {
        "sampling/sampling_logp_difference/mean": masked_mean(gap, mask),
        "sampling/sampling_logp_difference/max": gap.max(),
    }


def merged_metrics(parts: Sequence[Metrics], tokens: Sequence[float | mx.array]) -> Metrics:
    """One report from those of several micro-batches, weighted by their active tokens; extremes stay extremes.

    Means over rows (sequence level) are weighted by tokens too, hence approximate after a split.
    """
    total = sum(tokens)
    return {name: _merge(name, [part[name] for part in parts], tokens, total) for name in parts[0]}


def _merge(name: str, values: list[mx.array], tokens: Sequence[float | mx.array], total: float | mx.array) -> mx.array:
    if name.endswith("min"):
        return mx.stack(values).min()
    if name.endswith("max"):
        return mx.stack(values).max()
    weighted = mx.stack([value * count for value, count in zip(values, tokens, strict=True)]).sum()
    return weighted / mx.maximum(total, 1)


def _indicator(condition: mx.array) -> mx.array:
    return mx.stop_gradient(condition.astype(mx.float32))


def _mask_for(values: mx.array, mask: mx.array) -> mx.array:
    return mask if values.shape[1] == mask.shape[1] else mask.max(axis=1, keepdims=True)


def _row_means(values: mx.array, mask: mx.array) -> mx.array:
    mask = _mask_for(values, mask)
    return (values * mask).sum(axis=1) / mx.maximum(mask.sum(axis=1), 1)
