"""Correction for tokens that were drawn from another distribution than the one the loss is about.

Each token's term is multiplied by w = pi_old / pi_sampler, per token or per row, truncated or masked outside a range.
Two causes: top-p, top-k and min-p narrow the distribution, so that w is the probability mass they kept, at most 1;
and another precision, kernel or engine computes the same distribution a little differently, so that w is near 1.
"""

from dataclasses import dataclass

import mlx.core as mx

from pipelines.config import LossConfig
from pipelines.config.loss import CorrectionMode


@dataclass(frozen=True)
class SamplerCorrection:
    """How the weight is formed and bounded."""

    mode: CorrectionMode = "sequence_mask"
    """A weight per token or one per row (the product over its tokens); clamped to the range, or 0 outside it."""

    low: float | None = None
    """Lower bound of the weight; None for no bound."""

    high: float | None = 3.0
    """Upper bound of the weight; None for no bound."""


DEFAULT_CORRECTION = SamplerCorrection()


def configured_correction(config: LossConfig) -> SamplerCorrection | None:
    """What `trainer.loss.sampler_correction` asks for; None when it is off.

    Pass it with the log-probabilities of the distribution that was drawn from as `sampler_logprobs`; with None, pass
    neither.
    """
    if config.sampler_correction is None:
        return None
    return SamplerCorrection(config.sampler_correction, low=None, high=config.sampler_correction_cap)


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
