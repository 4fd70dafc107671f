"""A learned baseline: generalised advantages from values, and the loss that the values learn from.

Shapes: `[N, C]` float32, N completions of C tokens, padded. V_t is what the value head expects before token t. Tokens
outside the mask are the environment's (padding, forced tokens): the sums go from an active token to the next active
one, and what stands at the others, NaN and infinities included, changes nothing.
"""

from typing import NamedTuple

import mlx.core as mx

EPSILON = 1e-8
"""Added to the deviation of advantages before it divides them."""


class ValueLoss(NamedTuple):
    """The loss, and the share of tokens whose clip was active, a mean over the mask of the rows given."""

    loss: mx.array
    clipped: mx.array


def gae(
    rewards: mx.array, values: mx.array, mask: mx.array, gamma: float, gae_lambda: float
) -> tuple[mx.array, mx.array]:
    """Generalised advantages and returns (arXiv:1506.02438, eq. 16), 0 outside the mask.

    A_t = sum_k>=0 (gamma lambda)^k delta_t+k with delta_t = r_t + gamma V_t+1 - V_t, t counting active tokens; the
    value after the last one is 0. R_t = A_t + V_t. lambda = 1 makes R the discounted reward to go, lambda = 0 the
    reward and the next value.
    """
    order = _active_first(mask)
    rewards, values = (mx.take_along_axis(_clean(array, mask), order, axis=1) for array in (rewards, values))
    deltas = rewards + gamma * _ahead(values, 1) - values
    advantages = _discounted_sums(deltas, gamma * gae_lambda)
    back = mx.argsort(order, axis=1)
    advantages, returns = (mx.take_along_axis(a, back, axis=1) for a in (advantages, advantages + values))
    return _clean(advantages, mask), _clean(returns, mask)


def whitened(advantages: mx.array, mask: mx.array) -> mx.array:
    """Mean 0 and sample deviation (ddof = 1) 1 over the active tokens; 0 where there is nothing to compare.

    Measured from the first active token, so that equal advantages give exact zeros.
    """
    flat, active = advantages.reshape(-1), (mask > 0).reshape(-1)
    count = active.sum()
    relative = mx.where(active, flat - flat[mx.argmax(active)], 0.0)
    centered = mx.where(active, relative - relative.sum() / mx.maximum(count, 1), 0.0)
    std = mx.sqrt(centered.square().sum() / mx.maximum(count - 1, 1))
    return (centered / (std + EPSILON)).reshape(advantages.shape)


def value_loss(  # noqa: PLR0917 - as in the formula
    values: mx.array,
    old_values: mx.array,
    returns: mx.array,
    mask: mx.array,
    clip: float,
    items: int | mx.array,
    *,
    weights: mx.array | None = None,
) -> ValueLoss:
    """1/(2 M) sum max((V - R)^2, (V_clip - R)^2), V_clip = V_old + clamp(V - V_old, -clip, clip); clip 0: no bound.

    M is `items`, the active tokens of the whole update, so that the losses of micro-batches add up. Differentiable in
    `values`. `weights` `[N, C]` are factors on the terms that M does not see.
    """
    values, old_values, returns = (_clean(array, mask) for array in (values, old_values, returns))
    old_values, returns = mx.stop_gradient(old_values), mx.stop_gradient(returns)
    terms, active = (values - returns).square(), (mask > 0).astype(mx.float32)
    held = mx.zeros_like(active)
    if clip:
        bounded = (old_values + mx.clip(values - old_values, -clip, clip) - returns).square()
        held = (bounded > terms).astype(mx.float32)
        terms = mx.where(bounded > terms, bounded, terms)
    factor = active if weights is None else _clean(weights, mask)
    loss = (terms * factor).sum() / (2 * mx.maximum(items, 1))
    return ValueLoss(loss, mx.stop_gradient((held * active).sum() / mx.maximum(active.sum(), 1)))


def explained_variance(values: mx.array, returns: mx.array, mask: mx.array) -> mx.array:
    """1 - Var(R - V) / Var(R) over the active tokens: 1 = perfect, 0 = no better than a constant; 0 for constant R."""
    error, spread = (_variance(_clean(array, mask), mask) for array in (returns - values, returns))
    return mx.where(spread > 0, 1 - error / mx.where(spread > 0, spread, 1.0), 0.0)


def _variance(array: mx.array, mask: mx.array) -> mx.array:
    active = mask > 0
    count = mx.maximum(active.sum(), 1)
    return mx.where(active, array - array.sum() / count, 0.0).square().sum() / count


def _active_first(mask: mx.array) -> mx.array:
    """`[N, C]` indices that move the active tokens of each row to its front, in their order."""
    width = mask.shape[1]
    position = mx.arange(width)[None]
    return mx.argsort(mx.where(mask > 0, position, width + position), axis=1)


def _discounted_sums(terms: mx.array, factor: float) -> mx.array:
    """sum_k>=0 factor^k x_t+k along the rows, in log2(C) steps: each doubles how far every sum reaches."""
    reach = 1
    while reach < terms.shape[1]:
        terms = terms + factor**reach * _ahead(terms, reach)
        reach *= 2
    return terms


def _ahead(array: mx.array, steps: int) -> mx.array:
    """x_t+steps at t, 0 behind the end."""
    return mx.pad(array[:, steps:], [(0, 0), (0, steps)])


def _clean(array: mx.array, mask: mx.array) -> mx.array:
    """Float32 with 0 outside the mask: chosen before any arithmetic, so that NaN reaches no gradient either."""
    return mx.where(mask > 0, array, 0.0).astype(mx.float32)
