"""One token from each row of logits, and the log of what the row's probabilities are divided by.

Both ways take neighbouring tokens together: first a block of them is drawn by the sums of their weights, then a token
of the block. A GPU draws by Gumbel's trick, argmax(logits + noise), which then needs noise for a block and not for the
vocabulary. A CPU draws by inversion, one uniform number a row, and with numpy: there, an exponential takes MLX 12 ns
and numpy less than 1. Both draw from the same distribution; the same key gives different tokens.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from pipelines import backend

BLOCK = 256
"""Neighbouring tokens that are taken together at first."""

Draw = Callable[[mx.array, mx.array | None], tuple[mx.array, mx.array]]
"""(logits float32 `[N, V]`, keys uint32 `[N, 2]`; None: the likeliest) -> (ids int32 `[N]`, logsumexp float32 `[N]`)"""


def draw() -> Draw:
    """The way that suits the device."""
    return on_gpu if backend.on_gpu() else on_cpu


def on_gpu(logits: mx.array, keys: mx.array | None) -> tuple[mx.array, mx.array]:
    """argmax(logits + Gumbel noise) over the blocks, then in one, without waiting for the device."""
    if keys is None:
        return mx.argmax(logits, axis=-1).astype(mx.int32), mx.logsumexp(logits, axis=-1)
    rows, missing = logits.shape[0], -logits.shape[1] % BLOCK
    blocks = mx.pad(logits, [(0, 0), (0, missing)], constant_values=-mx.inf).reshape(rows, -1, BLOCK)
    sums = mx.logsumexp(blocks, axis=-1)  # [N, K]
    noise = _gumbel(sums.shape[1] + BLOCK, keys)
    block = mx.argmax(sums + noise[:, BLOCK:], axis=-1, keepdims=True)
    inside = mx.take_along_axis(blocks, block[..., None], axis=1)[:, 0]  # [N, BLOCK]
    token = mx.argmax(inside + noise[:, :BLOCK], axis=-1)
    return (block[:, 0] * BLOCK + token).astype(mx.int32), mx.logsumexp(sums, axis=-1)


def _gumbel(numbers: int, keys: mx.array) -> mx.array:
    """Noise float32 `[N, numbers]`. A uniform number of 0 would make it -inf, and all tokens of the row alike."""
    return mx.maximum(mx.vmap(lambda key: mx.random.gumbel((numbers,), key=key))(keys), -10.0)


def on_cpu(logits: mx.array, keys: mx.array | None) -> tuple[mx.array, mx.array]:
    """The first token whose cumulated probability exceeds the row's uniform number."""
    rows = np.array(logits, copy=False)
    peaks = rows.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # an infinite logit becomes NaN, which the trainer finds and names
        weights = rows - peaks
    np.exp(weights, out=weights)
    blocks = np.add.reduceat(weights, np.arange(0, rows.shape[1], BLOCK), axis=1, dtype=np.float64)
    totals = blocks.sum(axis=1)
    tokens = rows.argmax(axis=1) if keys is None else inverted(weights, blocks, np.array(_uniforms(keys)))
    return mx.array(tokens.astype(np.int32)), mx.array((peaks[:, 0] + np.log(totals)).astype(np.float32))


# One key a row: a row draws the same token whatever shares its batch.
_uniforms = mx.vmap(lambda key: mx.random.uniform(shape=(2,), key=key))


def inverted(weights: np.ndarray, blocks: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Ids `[N]`: the block in which each number falls, and the token in it; never one of weight 0.

    weights float32 `[N, V]`, blocks their sums `[N, K]`. uniforms `[N, 2]` float32 in [0, 1): the second continues the
    first behind its 24 bits, or no token rarer than that would have its true chance.
    """
    first, second = uniforms.T.astype(np.float64)
    shares = (np.floor(2**24 * first) + second) / 2**24
    block, left = _first_beyond(blocks, shares * blocks.sum(axis=1))
    inside = np.minimum(block[:, None] * BLOCK + np.arange(BLOCK), weights.shape[1] - 1)
    own = np.take_along_axis(weights, inside, axis=1).astype(np.float64)
    token, _ = _first_beyond(own, left)
    return np.minimum(block * BLOCK + token, weights.shape[1] - 1)


def _first_beyond(weights: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first index `[N]` at which the cumulated weight exceeds `wanted`, and what is left of that before it."""
    cumulated = weights.cumsum(axis=1)
    wanted = np.minimum(wanted, np.nextafter(cumulated[:, -1], 0.0))  # rounding must not lead beyond the last
    found = (cumulated <= wanted[:, None]).sum(axis=1)
    before = np.take_along_axis(cumulated, np.maximum(found - 1, 0)[:, None], axis=1)[:, 0]
    return found, wanted - np.where(found > 0, before, 0.0)
