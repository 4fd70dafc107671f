"""Several prompts in one batch, padded at the left: mlx-lm's batch caches give each row its own positions and mask."""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.errors import ModelError
from pipelines.models.calls import calling
from pipelines.models.leaves import leaves
from pipelines.models.lora import adapters_merged
from pipelines.models.modes import evaluating
from pipelines.models.tiles import tiles

CACHE_STEP_TOKENS = 256
"""The most positions by which a cache grows at once: mlx-lm's own number."""

MORE_THAN_HEADS = 1009
"""Rows; a prime number, so that they are in no shape of a model by chance."""

_HINT = "use a model with standard, sliding-window or recurrent caches"


def left_padded(prompts: list[np.ndarray], width: int = 0) -> tuple[np.ndarray, list[int]]:
    """Token ids int32 `[B, P]` aligned at the right, and the padding of each row; P at least `width`."""
    width = max(width, *map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padding[row] :] = prompt
    return tokens, padding


def cache_step(positions: int) -> int:
    """By how many positions a cache grows that will hold so many: parts of one size, as little unused as can be."""
    step = -(-positions // -(-positions // CACHE_STEP_TOKENS))
    return tiles(step) if backend.on_cuda() else step


def batch_cache(model: nn.Module, padding: list[int], positions: int = CACHE_STEP_TOKENS) -> list[Any]:
    """mlx-lm's batch form of the model's own caches, which will hold so many positions, padding among them.

    For one row without padding any cache will do. ModelError for several where a cache has no batch form.
    """
    from mlx_lm.models.cache import (
        ArraysCache,
        BatchRotatingKVCache,
        KVCache,
        RotatingKVCache,
        make_prompt_cache,
    )

    batched: list[Any] = []
    for layer in make_prompt_cache(model):
        if type(layer) is KVCache:
            batched.append(_growing(model, padding, cache_step(positions)))
        elif type(layer) is RotatingKVCache and layer.keep == 0:
            batched.append(BatchRotatingKVCache(layer.max_size, padding))
        elif type(layer) is ArraysCache:  # the state of a recurrent layer
            layer.left_padding = mx.array(padding)
            batched.append(layer)
        elif padding == [0]:
            batched.append(layer)
        else:
            raise ModelError(f"several rows cannot share this model's {type(layer).__name__}", hint=_HINT)
    return batched


def rows_fit(model: nn.Module) -> bool:
    """Whether several rows can share a batch by the shapes of their caches and masks; nothing is computed.

    Some architectures of mlx-lm apply the mask of a row to a head: shapes fit then for as many rows as key heads.
    """
    try:
        model(mx.zeros((MORE_THAN_HEADS, 2), mx.int32), cache=batch_cache(model, [0] * MORE_THAN_HEADS))
    except (ModelError, TypeError, ValueError):
        return False
    return True


def _growing(model: nn.Module, padding: list[int], step: int) -> Any:
    """The batch form of a cache that only grows."""
    from mlx_lm.models.cache import BatchKVCache

    if _known_to_add(model):
        from pipelines.models.cuda import TiledKVCache

        kinds = {leaf.dtype for leaf in leaves(model.parameters()).values() if mx.issubdtype(leaf.dtype, mx.floating)}
        return TiledKVCache(padding, step, min(kinds, key=lambda kind: kind.size))
    cache = BatchKVCache(padding)
    cache.step = step
    return cache


def grow_to_at_most(cache: list[Any], positions: int) -> None:
    """Let mlx-lm's caches grow to so many positions, after rows left or came: they would take a whole step more."""
    from mlx_lm.models.cache import BatchKVCache

    for layer in cache:
        if type(layer) is BatchKVCache and layer.keys is not None:
            layer.step = max(1, min(CACHE_STEP_TOKENS, positions - layer.keys.shape[2]))


_ADDS_MASKS: dict[int, tuple["weakref.ref[nn.Module]", bool]] = {}
ADDED_TOLERANCE = {4: 1e-3, 2: 0.05}
"""How far logits may be from those of a pass without a cache, as a part of the largest, by the bytes of a number."""


def _known_to_add(model: nn.Module) -> bool:
    known = _ADDS_MASKS.get(id(model))
    return known is not None and known[0]() is model and known[1] and backend.on_cuda()


def try_added_masks(model: nn.Module) -> None:
    """Find out, once per model on CUDA, whether it may be given masks that are added: some only select by theirs."""
    known = _ADDS_MASKS.get(id(model))
    if not backend.on_cuda() or (known is not None and known[0]() is model):
        return
    probe = mx.array([[0, 1, 2, 3]])
    with evaluating(model):
        whole = model(probe)[0, -1]
        _ADDS_MASKS[id(model)] = weakref.ref(model), True
        try:
            cache = batch_cache(model, [0])
            model(probe[:, :3], cache=cache)
            gap = mx.abs(model(probe[:, 3:], cache=cache)[0, -1] - whole).max()
            right = bool(gap <= ADDED_TOLERANCE[whole.dtype.size] * mx.abs(whole).max())
        except (TypeError, ValueError):
            right = False
    _ADDS_MASKS[id(model)] = weakref.ref(model), right


@contextmanager
def decoding(model: nn.Module) -> Iterator[None]:
    """Inside the block the model reads one token a row in the way that is fast on the device.

    Adapters are merged on a GPU, where each of their products costs a launch.
    """
    with ExitStack() as ways:
        if backend.on_gpu():
            ways.enter_context(adapters_merged(model))
        if backend.on_cuda():
            from pipelines.models import cuda

            try_added_masks(model)
            ways.enter_context(calling(model, cuda.CALLS))
        elif not backend.on_gpu():
            from pipelines.models import cpu

            ways.enter_context(calling(model, cpu.CALLS))
        yield
