"""Attention in the shapes that are fast on CUDA, for decoding and for rows that continue a prefix.

MLX hands attention to cuDNN there, whose kernels take half the time of its own or less, but not every attention: one
query with a mask goes the long way, over scores in memory, and every new number of keys makes cuDNN plan anew. So the
queries of one key head, which see the same keys, become the positions of one query; and caches hand out a multiple of
TILE keys, with a mask to be added that hides those behind the last.
"""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import base  # noqa: TID253 - this module is imported where mlx-lm is in use
from mlx_lm.models.cache import BatchKVCache  # noqa: TID253

from pipelines.models.calls import Calls
from pipelines.models.tiles import TILE, tiles

OWN_ATTENTION = base.scaled_dot_product_attention
"""mlx-lm's, which another may stand for while this is called."""


class TiledKVCache(BatchKVCache):
    """`BatchKVCache` whose keys and masks come in tiles; tiles of padding alone leave when rows do."""

    def __init__(self, left_padding: list[int], step: int, dtype: mx.Dtype) -> None:
        super().__init__(left_padding)
        self.step = step
        self.dtype = dtype
        """Of the mask: the model's, or a narrower one."""
        self.known_padding = np.array(left_padding)
        """`left_padding`, without a wait for the device."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append `[N, heads, n, D]`; all that there is, zeros behind it."""
        start, self._idx = self._idx, self._idx + keys.shape[2]
        self.offset = self.offset + keys.shape[2]
        self.keys, self.values = self._grown(self.keys, keys), self._grown(self.values, values)
        self.keys[..., start : self._idx, :] = keys
        self.values[..., start : self._idx, :] = values
        shown = tiles(self._idx)
        return self.keys[..., :shown, :], self.values[..., :shown, :]

    def _grown(self, held: mx.array | None, new: mx.array) -> mx.array:
        """With room for what there is now, in steps."""
        rows, heads, _, width = new.shape
        room = 0 if held is None else held.shape[2]
        if held is not None and self._idx <= room:
            return held
        more = mx.zeros((rows, heads, -(-self._idx // self.step) * self.step - room, width), new.dtype)
        return more if held is None else mx.concatenate([held, more], axis=2)

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> mx.array:  # noqa: N803, ARG002 - mlx-lm's
        """`[rows, 1, N, keys]`, 0 for what a position sees and half the smallest number for what it does not.

        The sum of that and a score is finite in float16, too: padding sees nothing, and would become NaN.
        """
        seen = base.create_causal_mask(N, offset=self._idx, left_padding=self.left_padding, **kwargs)
        end = self._idx + N
        seen = mx.pad(seen, [(0, 0)] * (seen.ndim - 1) + [(0, tiles(end) - end)])
        return mx.where(seen, 0.0, mx.finfo(self.dtype).min / 2).astype(self.dtype)

    def filter(self, batch_indices: mx.array) -> None:
        """Keep these rows, without a look at their padding, which would wait for the device."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[batch_indices], self.values[batch_indices]
        self.offset, self.left_padding = self.offset[batch_indices], self.left_padding[batch_indices]
        self.known_padding = self.known_padding[np.array(batch_indices)]
        self._leave()

    def extend(self, other: "TiledKVCache") -> None:
        """Take in the rows of another, aligned at the last position; from then on there is room for a tile at most."""
        self.step = TILE
        end = max(self._idx, other._idx)
        both = self.known_padding + end - self._idx, other.known_padding + end - other._idx
        super().extend(other)
        self.known_padding = np.concatenate(both)

    def _leave(self) -> None:
        """Forget the first tiles that no row sees."""
        unused = int(self.known_padding.min()) // TILE * TILE
        if self.keys is not None and self.values is not None and unused:
            self.keys, self.values = self.keys[..., unused:, :], self.values[..., unused:, :]
            self._idx -= unused
            self.left_padding, self.known_padding = self.left_padding - unused, self.known_padding - unused


def fold(  # noqa: PLR0917 - mlx-lm's
    queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: Any = None
) -> mx.array:
    """mlx-lm's `scaled_dot_product_attention`: queries `[N, heads, n, D]`, keys and values `[N, key heads, keys, D]`.

    One position (n = 1) with several queries a key head goes to it as `[N, key heads, heads / key heads, D]`.
    """
    shared = mask is None or (isinstance(mask, mx.array) and (mask.ndim < 3 or mask.shape[-3] == 1))  # by all heads
    plain = sinks is None and not hasattr(cache, "bits") and shared
    rows, heads, positions, width = queries.shape
    if plain and positions == 1 and heads > keys.shape[1]:
        folded = queries.reshape(rows, keys.shape[1], -1, width)
        found = OWN_ATTENTION(folded, keys, values, cache=cache, scale=scale, mask=mask)
        return found.reshape(rows, heads, 1, -1)
    return OWN_ATTENTION(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)


CALLS: Calls = [(OWN_ATTENTION, fold)]
"""What decoding calls, and what it calls here."""
