"""Correction for a sampler whose log-probabilities differ from the trainer's (another precision, kernel or engine).

Each token's term is multiplied by w = pi_old / pi_sampler, per token or per row, truncated or masked outside a range.
"""

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx


@dataclass(frozen=True)
class SamplerCorrection:
    """How the weight is formed and bounded."""

    mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "sequence_mask"
    """A weight per token or one per row (the product over its tokens); clamped to the range, or 0 outside it."""

    low: float | None = None
    """Lower bound of the weight; None for no bound."""

    high: float | None = 3.0
    """Upper bound of the weight; None for no bound."""


DEFAULT_CORRECTION = SamplerCorrection()


def sampler_weights(old: mx.array, sampler: mx.array, correction: SamplerCorrection) -> mx.array:
    """w = exp(old - sampler) [N, C], or exp(sum_t(old - sampler)) [N, 1] for the sequence modes, bounded; no gradient.

    Both inputs hold 0 outside the mask. Truncated importance sampling and its masked variant, as in the usual trainers.
    """
    difference = mx.stop_gradient(old) - sampler
    scope, bound = correction.mode.split("_")
    if scope == "sequence":
        difference = difference.sum(axis=1, keepdims=True)
    weights = mx.exp(difference)
    low = 0.0 if correction.low is None else correction.low
    high = float("inf") if correction.high is None else correction.high
    if bound == "truncate":
        return mx.clip(weights, low, high)
    return mx.where((weights >= low) & (weights <= high), weights, 0.0)
