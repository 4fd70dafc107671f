"""Entropy as a filter: train only the tokens where the policy was undecided."""

import mlx.core as mx

ROUNDING = 2.0**-22
"""How far, relative to the number of tokens, a rank may be from a whole number and still mean it."""


def entropy_threshold(entropies: mx.array, mask: mx.array, quantile: float) -> mx.array:
    """The (1 - quantile) quantile, linearly interpolated, of the active tokens' entropies; a scalar without gradient.

    `quantile` is the share of tokens to keep: 0.2 keeps the most uncertain fifth ("forking tokens", arXiv:2506.01939).
    Pass the threshold of the whole update to every micro-batch, so that splitting changes nothing.
    """
    active = mask > 0
    count = active.sum()
    ordered = mx.sort(mx.where(active, mx.stop_gradient(entropies).astype(mx.float32), mx.inf).flatten())
    position = (1 - quantile) * mx.maximum(count - 1, 0)
    whole = mx.round(position)  # 0.6 * 50 is a little above 30 in float32, which would lose the token at the threshold
    position = mx.where(mx.abs(position - whole) <= ROUNDING * count, whole, position)
    lower = mx.floor(position).astype(mx.int32)
    upper = mx.minimum(lower + 1, mx.maximum(count - 1, 0))
    below, above = mx.take(ordered, lower), mx.take(ordered, upper)
    return below + (position - lower) * (above - below)
