"""Several prompts in one batch: padded at the left, with mlx-lm's batch caches, if the model reads those rightly."""

import weakref
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines.errors import ModelError

PROBE = [np.array([0, 1, 2, 3], np.int32), np.array([1], np.int32), np.array([2, 0], np.int32)]
"""Prompts of unequal length for `check_batching`."""
TOLERANCE = 0.1
"""How far their logits may be from those of one by one, as a part of the largest: 16-bit models round that coarsely."""

_HINT = "use a model with standard or sliding-window attention caches"


def left_padded(prompts: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Token ids int32 `[B, P]` aligned at the right, and the padding of each row."""
    width = max(len(prompt) for prompt in prompts)
    padding = [width - len(prompt) for prompt in prompts]
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padding[row] :] = prompt
    return tokens, padding


def batch_cache(model: nn.Module, padding: list[int]) -> list[Any]:
    """mlx-lm's batch form of the model's own caches; ModelError for architectures that cannot be batched."""
    from mlx_lm.models.cache import (
        BatchKVCache,
        BatchRotatingKVCache,
        KVCache,
        RotatingKVCache,
        make_prompt_cache,
    )

    batched: list[Any] = []
    for layer in make_prompt_cache(model):
        if type(layer) is KVCache:
            batched.append(BatchKVCache(padding))
        elif type(layer) is RotatingKVCache and layer.keep == 0:
            batched.append(BatchRotatingKVCache(layer.max_size, padding))
        else:
            raise ModelError(f"rollouts cannot batch this model's {type(layer).__name__}", hint=_HINT)
    return batched


def prefill(model: nn.Module, prompts: list[np.ndarray]) -> tuple[mx.array, list[Any]]:
    """The logits `[B, V]` that follow each prompt, and the cache that holds the prompts.

    The last token goes by itself: of what comes before it only the cache is computed, never logits `[B, P, V]`.
    """
    padded, padding = left_padded(prompts)
    tokens, cache = mx.array(padded), batch_cache(model, padding)
    if tokens.shape[1] > 1:
        model(tokens[:, :-1], cache=cache)
    return model(tokens[:, -1:], cache=cache)[:, -1], cache


def check_batching(model: nn.Module) -> None:
    """ModelError unless prompts of unequal length get the same logits in one batch as one by one.

    Tried once per model: some architectures of mlx-lm apply the mask of a row to a head, which fails for most
    numbers of rows and is silently wrong for the others.
    """
    checked = _CHECKED.get(id(model))
    if checked is not None and checked() is model:
        return
    alone = mx.concatenate([_after_probe(model, [prompt]) for prompt in PROBE])
    try:
        together = _after_probe(model, PROBE)
    except ValueError as error:  # shapes that do not fit
        raise ModelError(_cannot(model), hint=_ONE_BY_ONE) from error
    if mx.abs(together - alone).max() > TOLERANCE * mx.abs(alone).max():
        raise ModelError(_cannot(model), hint=_ONE_BY_ONE)
    _CHECKED[id(model)] = weakref.ref(model)


_CHECKED: dict[int, "weakref.ref[nn.Module]"] = {}
_ONE_BY_ONE = "set generation.rollout_batch_size to 1: completions are then decoded one by one, which is slow"


def _cannot(model: nn.Module) -> str:
    kind = type(model).__module__.rsplit(".", 1)[-1]
    return f"mlx-lm's {kind} cannot decode prompts of unequal length in one batch"


def _after_probe(model: nn.Module, prompts: list[np.ndarray]) -> mx.array:
    """Logits one token after the prompts."""
    _, cache = prefill(model, prompts)
    return model(mx.full((len(prompts), 1), 3), cache=cache)[:, -1].astype(mx.float32)
