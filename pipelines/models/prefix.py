"""What several rows of a batch begin with, computed once: the prompt of a group, in a pass that learns.

The rows go on from copies of its keys and values, in mlx-lm's batch caches, through which gradients flow. So
hidden states and gradients are those of whole rows, up to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.models.batching import batch_cache, left_padded
from pipelines.models.tiles import ROUND_PREFIXES, ROUND_ROWS, learning_rows, prefix_length

TOLERANCE = {4: 1e-3, 2: 0.05}
"""How far hidden states may be from those of whole rows for the prompts to be shared: as a part of the largest, by the
bytes of a number."""


class Prefix(NamedTuple):
    """b beginnings, and which of them each of n rows continues."""

    tokens: mx.array  # [b, P] int32, padded at the left
    padding: tuple[int, ...]  # [b]
    members: mx.array  # [n] int32


def make_prefix(beginnings: list[np.ndarray], members: np.ndarray) -> Prefix:
    """From ragged token ids, none of them empty."""
    tokens, padding = left_padded(beginnings, prefix_length(max(map(len, beginnings))))
    return Prefix(mx.array(tokens), tuple(padding), mx.array(members.astype(np.int32)))


def rounded(tokens: mx.array, prefix: Prefix | None) -> tuple[mx.array, Prefix | None]:
    """Rows `[n, T]` and their prefixes in round numbers on a GPU: the last of each is there several times."""
    rows = mx.array(_repeated(tokens.shape[0], ROUND_ROWS))
    if prefix is None:
        return tokens[rows], None
    beginnings = _repeated(len(prefix.padding), ROUND_PREFIXES)
    padding = tuple(prefix.padding[number] for number in beginnings)
    return tokens[rows], Prefix(prefix.tokens[mx.array(beginnings)], padding, prefix.members[rows])


def _repeated(count: int, round_number: int) -> list[int]:
    return [min(number, count - 1) for number in range(learning_rows(count, round_number))]


Body = Callable[..., mx.array]
"""(tokens, cache=...) -> hidden states"""


BEGINNINGS = [np.array([2, 0, 1], np.int32), np.array([1], np.int32)]
REST = [[3, 0], [1, 2], [2, 1]]
MEMBERS = np.array([0, 1, 0])
"""Rows of unequal length, for trials."""


def trial() -> tuple[mx.array, Prefix]:
    """What REST and its BEGINNINGS are for a model."""
    return mx.array(REST), make_prefix(BEGINNINGS, MEMBERS)


def can_share(model: nn.Module, body: Body) -> bool:
    """Whether rows that continue a prefix have the hidden states of whole rows. Tried."""
    if not grows_by_key_and_value(model):
        return False
    rest, prefix = trial()
    cache = batch_cache(model, list(prefix.padding))
    try:
        body(prefix.tokens, cache=cache)
        continued = body(rest, cache=copied(cache, prefix.members))
    except (TypeError, ValueError):  # a body without a cache, or masks that do not fit
        return False
    for row, member in enumerate(MEMBERS):
        whole = body(mx.array([[*BEGINNINGS[member].tolist(), *REST[row]]]))[0, -len(REST[row]) :]
        most = TOLERANCE[whole.dtype.size] * mx.abs(whole).max()
        if not mx.abs(continued[row] - whole).max() <= most:  # NaN, which padding may bring in, is no match
            return False
    return True


def grows_by_key_and_value(model: nn.Module) -> bool:
    """Whether all layers have caches that only grow, of which a copy can be continued."""
    from mlx_lm.models.cache import BatchKVCache

    return all(isinstance(layer, BatchKVCache) for layer in batch_cache(model, [0]))


def copied(cache: list[Any], members: mx.array) -> list[Any]:
    """The caches of the beginnings, as those of the rows; by hand, since `filter` waits for the device."""
    for layer in {id(layer): layer for layer in cache}.values():
        layer.keys, layer.values = _handed_out(layer.keys, members), _handed_out(layer.values, members)
        layer.offset, layer.left_padding = layer.offset[members], layer.left_padding[members]
    return cache


def _handed_out(values: mx.array, members: mx.array) -> mx.array:
    """`values[members]`; on a GPU as a product, whose gradient is one too and not a sum in place, which is slow.

    Not in float32, which products there round.
    """
    if values.dtype == mx.float32 or not backend.on_gpu():
        return values[members]
    belongs = members[:, None] == mx.arange(values.shape[0])[None]  # [n, b]
    found = belongs.astype(values.dtype) @ values.reshape(values.shape[0], -1)
    return found.reshape(len(members), *values.shape[1:])
