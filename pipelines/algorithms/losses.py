"""The policy loss: a per-token term (`surrogates`), how it is averaged, KL and entropy around it.

Shapes: N completions, C tokens each, padded. Log-probabilities, mask, entropies [N, C]; advantages [N] or [N, C].
m is the mask, n_i = sum_t m_it, r = exp(new - old), l the per-token term. All arithmetic is float32.

Micro-batches: the loss of an update is the *sum* of its micro-batches' losses, and so are the gradients, when each
call is given the denominators of the whole update: `num_items` (active tokens) and `num_rows` (rows). Left out, they
are counted from the rows given. bnpo is the exception by definition: it averages within the micro-batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from pipelines.algorithms.entropy import entropy_threshold as threshold_of
from pipelines.algorithms.importance import DEFAULT_CORRECTION, SamplerCorrection, sampler_weights
from pipelines.algorithms.kl import token_kl
from pipelines.algorithms.loss_metrics import Metrics, cispo_metrics, clip_metrics, masked_mean, sampler_metrics
from pipelines.algorithms.surrogates import (
    clipped,
    gamma_weight,
    gamma_weighted,
    log_ratio,
    soft_gated,
    weighted_logprob,
)
from pipelines.config import LossConfig

Count = int | float | mx.array


class LossOutput(NamedTuple):
    """The loss to differentiate, and scalars to log. A tuple, so that mlx transforms can return it."""

    loss: mx.array
    metrics: Metrics


class Tokens(NamedTuple):
    """One micro-batch, float32 and clean: every array is 0 outside the mask."""

    mask: mx.array  # [N, C], 0 or 1
    new: mx.array  # [N, C]
    old: mx.array  # [N, C], no gradient
    advantages: mx.array  # [N, 1], or [N, C] where each token has its own; no gradient
    ratio: mx.array  # [N, C], or [N, 1] at the sequence level


class Denominators(NamedTuple):
    """What the sums are divided by."""

    by_row: mx.array  # [N] tokens of each row, at least 1
    given: mx.array  # tokens of the rows given, at least 1
    items: mx.array  # tokens of the whole update, at least 1
    rows: mx.array  # rows of the whole update, at least 1
    budget: int  # the longest completion allowed, in tokens


def clipped_term(tokens: Tokens, config: LossConfig) -> tuple[mx.array, Metrics]:
    """The clipped ratio of `surrogates.clipped`."""
    terms = clipped(tokens.ratio, tokens.advantages, config)
    return terms, clip_metrics(tokens.ratio, tokens.advantages, tokens.mask, config)


def cispo_term(tokens: Tokens, config: LossConfig) -> tuple[mx.array, Metrics]:
    """The capped importance weight of `surrogates.weighted_logprob`."""
    terms = weighted_logprob(tokens.ratio, tokens.advantages, tokens.new, config)
    return terms, cispo_metrics(tokens.ratio, tokens.advantages, tokens.mask, config)


def sapo_term(tokens: Tokens, _config: LossConfig) -> tuple[mx.array, Metrics]:
    """The smooth gate of `surrogates.soft_gated`."""
    return soft_gated(tokens.ratio, tokens.advantages), {}


def vespo_term(tokens: Tokens, _config: LossConfig) -> tuple[mx.array, Metrics]:
    """The row weight of `surrogates.gamma_weighted`; the level plays no part."""
    difference = tokens.new - tokens.old
    phi = gamma_weight(difference, tokens.advantages)
    return gamma_weighted(difference, tokens.advantages, tokens.new), {
        "vespo/phi_seq_mean": masked_mean(phi, tokens.mask)
    }


def mean_of_row_means(terms: mx.array, over: Denominators) -> mx.array:
    """1/rows sum_i (1/n_i) sum_t l_it: every completion weighs the same (GRPO, arXiv:2402.03300, eq. 3).

    Rows without a token count in the mean, with 0.
    """
    return (terms.sum(axis=1) / over.by_row).sum() / over.rows


def mean_of_row_sums(terms: mx.array, over: Denominators) -> mx.array:
    """1/rows sum_i sum_t l_it: LUSPO, GRPO's row times its length."""
    return terms.sum() / over.rows


def mean_over_budget(terms: mx.array, over: Denominators) -> mx.array:
    """1/(rows L) sum_it l_it with L the longest completion allowed: no length bias (Dr. GRPO, arXiv:2503.20783)."""
    return terms.sum() / (over.rows * over.budget)


def mean_over_update(terms: mx.array, over: Denominators) -> mx.array:
    """1/items sum_it l_it: every token of the update weighs the same (DAPO, arXiv:2503.14476, eq. 8)."""
    return terms.sum() / over.items


def mean_over_given(terms: mx.array, over: Denominators) -> mx.array:
    """1/(tokens given) sum_it l_it: the token mean within a micro-batch (BNPO)."""
    return terms.sum() / over.given


Term = Callable[[Tokens, LossConfig], tuple[mx.array, Metrics]]
Average = Callable[[mx.array, Denominators], mx.array]

LOSSES: dict[str, tuple[Term, Average]] = {
    "grpo": (clipped_term, mean_of_row_means),
    "gspo": (clipped_term, mean_of_row_means),  # with the sequence-level ratio
    "bnpo": (clipped_term, mean_over_given),
    "dr_grpo": (clipped_term, mean_over_budget),
    "dapo": (clipped_term, mean_over_update),
    "cispo": (cispo_term, mean_over_update),
    "sapo": (sapo_term, mean_of_row_means),
    "luspo": (clipped_term, mean_of_row_sums),
    "vespo": (vespo_term, mean_over_update),
}
"""Loss type -> (per-token term, average)."""


def policy_loss(  # noqa: PLR0917 - the order of the six arrays is relied on from outside
    logprobs: mx.array,
    old_logprobs: mx.array | None,
    ref_logprobs: mx.array | None,
    advantages: mx.array,
    mask: mx.array,
    config: LossConfig,
    *,
    beta: float = 0.0,
    num_items: Count | None = None,
    max_completion_length: int | None = None,
    entropies: mx.array | None = None,
    sampler_logprobs: mx.array | None = None,
    num_rows: Count | None = None,
    weights: mx.array | None = None,
    entropy_threshold: mx.array | None = None,
    correction: SamplerCorrection = DEFAULT_CORRECTION,
) -> LossOutput:
    """The scalar to minimise: average of (term, entropy filter, sampler weight, + beta KL), minus the entropy bonus.

    Differentiable in `logprobs` (and `entropies`); traceable, nothing is read on the host. What lies outside the mask,
    NaN and infinities included, changes neither value nor gradient.

    old_logprobs: None when on-policy, then r = 1 with the gradient of new.
    ref_logprobs: needed when beta is not 0.
    advantages: [N], one a completion; or [N, C], one a token, as PPO has them. Terms that weigh whole rows (the
        sequence level, vespo) take no advantages of single tokens: ValueError.
    mask: bool or 0/1; rows left out by `mask_truncated_completions` come emptied (`without_truncated`).
    num_items, num_rows: active tokens and rows of the whole update (see the module's docstring).
    max_completion_length: dr_grpo's token budget; without it the width C, which then must not vary.
    entropies: needed by `entropy_coef` and `top_entropy_quantile`.
    sampler_logprobs: what the sampler said, where it differs from old; bounded by `correction`.
    weights: [N, C] factors on the terms that no denominator and no ratio sees, such as the mask of a region.
    entropy_threshold: that of the whole update, when this is one micro-batch of several.
    """
    _require(config, beta, ref_logprobs, entropies)
    _require_shape(config, logprobs, advantages)
    tokens = _tokens(logprobs, old_logprobs, advantages, mask, config)
    over = _denominators(tokens.mask, num_items, num_rows, max_completion_length)
    factor = tokens.mask if weights is None else _clean(weights, tokens.mask)
    term, average = LOSSES[config.type]
    terms, metrics = term(tokens, config)
    if entropies is not None:
        entropies = _clean(entropies, tokens.mask)
        terms = _undecided_only(terms, entropies, tokens.mask, config, entropy_threshold)
    if sampler_logprobs is not None:
        sampler = _clean(sampler_logprobs, tokens.mask)
        terms = terms * sampler_weights(tokens.old, sampler, correction)
        metrics |= sampler_metrics(tokens.old, sampler, tokens.mask)
    if beta and ref_logprobs is not None:
        kl = _kl(tokens, ref_logprobs, config)
        terms = terms + beta * kl
        metrics["kl"] = masked_mean(mx.stop_gradient(kl), tokens.mask)
    loss = average(terms * factor, over)
    if entropies is not None:
        metrics["entropy"] = masked_mean(mx.stop_gradient(entropies), tokens.mask)
        if config.entropy_coef:
            metrics |= {"policy_loss": mx.stop_gradient(loss), "entropy_coef": mx.array(config.entropy_coef)}
            loss = loss - config.entropy_coef * (entropies * factor).sum() / over.items
    return LossOutput(loss, metrics)


def without_truncated(mask: mx.array, truncated: mx.array) -> mx.array:
    """The mask [N, C] with the rows that hit the length limit (`truncated` [N] bool) emptied.

    For `mask_truncated_completions`: the row leaves the loss and `num_items`, its reward stays in the statistics of its
    group.
    """
    return mx.where(truncated[:, None], mx.zeros_like(mask), mask)


def _require(config: LossConfig, beta: float, ref: mx.array | None, entropies: mx.array | None) -> None:
    if beta and ref is None:
        raise ValueError("beta is not 0, so ref_logprobs are needed")
    if entropies is None and (config.entropy_coef or config.top_entropy_quantile < 1):
        raise ValueError("entropy_coef and top_entropy_quantile need entropies")


def _require_shape(config: LossConfig, logprobs: mx.array, advantages: mx.array) -> None:
    if advantages.shape not in (logprobs.shape[:1], logprobs.shape):
        raise ValueError(
            f"advantages {advantages.shape} fit log-probabilities {logprobs.shape} neither by row nor token"
        )
    if advantages.ndim > 1 and (config.sequence_level or config.type == "vespo"):
        raise ValueError(f"type {config.type}, level {config.level}: a ratio per row needs an advantage per row, [N]")


def _undecided_only(
    terms: mx.array, entropies: mx.array, mask: mx.array, config: LossConfig, threshold: mx.array | None
) -> mx.array:
    """The terms of the `top_entropy_quantile` most uncertain tokens; 0 for the others, which stay in denominators."""
    if config.top_entropy_quantile >= 1:
        return terms
    if threshold is None:
        threshold = threshold_of(entropies, mask, config.top_entropy_quantile)
    return mx.where(mx.stop_gradient(entropies) >= threshold, terms, 0.0)


def _clean(values: mx.array, mask: mx.array) -> mx.array:
    """Float32 with 0 outside the mask: chosen before any arithmetic, so that NaN reaches no gradient either."""
    return mx.where(mask > 0, values, 0.0).astype(mx.float32)


def _tokens(
    logprobs: mx.array, old_logprobs: mx.array | None, advantages: mx.array, mask: mx.array, config: LossConfig
) -> Tokens:
    mask = (mask > 0).astype(mx.float32)
    new = _clean(logprobs, mask)
    old = mx.stop_gradient(new if old_logprobs is None else _clean(old_logprobs, mask))
    if advantages.ndim == 1:
        advantages = _clean(advantages[:, None], mask.max(axis=1, keepdims=True))
    else:
        advantages = _clean(advantages, mask)
    ratio = mx.exp(log_ratio(new, old, mask, per_row=config.sequence_level))
    return Tokens(mask, new, old, mx.stop_gradient(advantages), ratio)


def _kl(tokens: Tokens, ref_logprobs: mx.array, config: LossConfig) -> mx.array:
    ref = mx.stop_gradient(_clean(ref_logprobs, tokens.mask))
    return token_kl(tokens.new, ref, tokens.ratio, config.kl_estimator, bias_correction=config.kl_bias_correction)


def _denominators(mask: mx.array, items: Count | None, rows: Count | None, budget: int | None) -> Denominators:
    by_row = mask.sum(axis=1)
    given = mx.maximum(by_row.sum(), 1)
    return Denominators(
        by_row=mx.maximum(by_row, 1),
        given=given,
        items=given if items is None else mx.maximum(items, 1),
        rows=mx.maximum(mask.shape[0] if rows is None else rows, 1),
        budget=mask.shape[1] if budget is None else budget,
    )
