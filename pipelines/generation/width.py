"""How many completions decode side by side: a matter of memory and speed, never of the result."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines.backend import memory_bytes
from pipelines.config import GenerationConfig
from pipelines.models.batching import batch_cache, cache_step

MOST_ROWS = 1024
"""The most that auto decodes at once: the width up to which speed was measured to grow on a GPU."""
PART_OF_MEMORY = 4
"""A quarter of the memory is for rollouts; weights, optimizer and gradients have the rest."""
LOGIT_ARRAYS = 4
"""Float32 arrays `[rows, V]` that exist together while a token is drawn."""


def rows_at_once(
    model: nn.Module, prompts: list[np.ndarray], group_size: int, max_tokens: int, config: GenerationConfig
) -> int:
    """Completions of these prompts to decode together, `generation.rollout_batch_size` or as many as fit.

    Whole groups where a group fits, since its prompt is computed once.
    """
    rows = config.rollout_batch_size
    if rows == "auto":
        longest = max((len(prompt) for prompt in prompts), default=0)
        rows = rows_that_fit(model, longest + max_tokens, memory_bytes() // PART_OF_MEMORY)
    return rows - rows % group_size if rows > group_size else rows


def rows_that_fit(model: nn.Module, positions: int, budget_bytes: int) -> int:
    """Rows of `positions` tokens whose caches and logits take at most the budget; at least 1, at most MOST_ROWS.

    The model's own cache after one token says what a position takes. Only shapes are read: nothing is computed.
    """
    cache = batch_cache(model, [0])
    logits = model(mx.array([[0]]), cache=cache)  # [1, 1, V]
    row_bytes = LOGIT_ARRAYS * 4 * logits.shape[-1] + sum(_row_bytes(layer, positions) for layer in cache)
    return max(1, min(MOST_ROWS, budget_bytes // row_bytes))


def _row_bytes(layer: Any, positions: int) -> int:
    """Of a layer's cache that holds one position now."""
    if not hasattr(layer, "keys_and_values"):
        return layer.nbytes  # a state, whose size stays
    step = cache_step(positions)
    allocated = -(-positions // step) * step
    return min(allocated, getattr(layer, "max_size", allocated)) * sum(part.nbytes for part in layer.keys_and_values())
