"""Several prompts in one batch: padded at the left, with mlx-lm's batch caches, if the model reads those rightly."""

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.errors import ModelError
from pipelines.models.batching import batch_cache, left_padded

Batching = Literal["all", "equal", "one"]
"""Rows of any prompts, rows of prompts of one length, or one row at a time."""

UNEQUAL = [np.resize(np.array([0, 1, 2, 3], np.int32), length) for length in (12, 1, 2)]
EQUAL = [np.array([0, 1, 2], np.int32), np.array([1, 3, 0], np.int32), np.array([2, 0, 1], np.int32)]
"""Prompts that are tried."""
PROBE = 3
"""The token that follows them."""
ENOUGH_TOKENS = 2048
"""A part of the prompts has no fewer, unless it is the last: a CPU then multiplies matrices at its full speed."""
MOST_PADDED = 1.15
"""Positions a token that a part of the prompts may have before it is closed."""
TOLERANCE = {4: 1e-3, 2: 0.05}
"""How far logits may be from those of one by one, as a part of the largest, by the bytes of a number."""

log = logging.getLogger(__name__)


def prefill(model: nn.Module, prompts: list[np.ndarray], more_tokens: int) -> tuple[mx.array, list[Any]]:
    """The logits `[B, V]` that follow each prompt, and the cache that holds the prompts and will hold more tokens.

    Prompts in order of length go through the model a part at a time, each part padded to its own longest.
    """
    logits: list[mx.array] = []
    cache: list[Any] = []
    positions = max(map(len, prompts)) + more_tokens
    parts = list(_parts_of_like_length(prompts))
    for part in parts if len(parts) == 1 or may_join(model) else [prompts]:
        found, own = _prefill_at_once(model, part, positions)
        backend.launch(found, [layer.state for layer in own])
        logits.append(found)
        for layer, other in zip(cache, own, strict=False):
            layer.extend(other)
        cache = cache or own
    return mx.concatenate(logits), cache


def _parts_of_like_length(prompts: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Neighbours together, until there are ENOUGH_TOKENS and one more would bring too much padding.

    The prompts come in order of length, so that each is the longest so far.
    """
    part: list[np.ndarray] = []
    tokens = 0
    for prompt in prompts:
        padded = (len(part) + 1) * len(prompt)
        if tokens >= ENOUGH_TOKENS and padded > MOST_PADDED * (tokens + len(prompt)):
            yield part
            part, tokens = [], 0
        part.append(prompt)
        tokens += len(prompt)
    yield part


def _prefill_at_once(model: nn.Module, prompts: list[np.ndarray], positions: int) -> tuple[mx.array, list[Any]]:
    """The last token goes by itself: of what comes before it only the cache is computed, never logits `[B, P, V]`."""
    padded, padding = left_padded(prompts)
    tokens, cache = mx.array(padded), batch_cache(model, padding, positions)
    if tokens.shape[1] > 1:
        model(tokens[:, :-1], cache=cache)
    return model(tokens[:, -1:], cache=cache)[:, -1], cache


def batching(model: nn.Module) -> Batching:
    """Which rows may share a batch: those for which a short input gives the logits that it gives one by one.

    Tried once per model, and told if not all may: some architectures of mlx-lm apply the mask of a row to a head, which
    fails for most numbers of rows and is silently wrong for the others; some with a state have no mask for padding.
    """
    return _known(model, _batching)


def may_join(model: nn.Module) -> bool:
    """Whether rows may enter a batch that has gone on for a while, in a model in which all may share one.

    Tried once per model, and told if not.
    """
    return _known(model, _may_join)


def _batching(model: nn.Module) -> Batching:
    found: Batching = "one"
    if _reads(model, EQUAL[:2]) and _reads(model, EQUAL):  # one of these may be as many as a model has key heads
        found = "all" if _reads(model, UNEQUAL) else "equal"
    if found != "all":
        which = "unequal prompts" if found == "equal" else "several rows"
        log.warning("mlx-lm's %s cannot decode %s in one batch: rollouts are slower, and the same", _kind(model), which)
    return found


def _may_join(model: nn.Module) -> bool:
    long, short = UNEQUAL[:1], UNEQUAL[1:]
    found = _reads(model, short, after=long) and _reads(model, long, after=short)
    if not found:
        log.warning("mlx-lm's %s takes no rows into a running batch: rollouts are slower, and the same", _kind(model))
    return found


def _kind(model: nn.Module) -> str:
    return type(model).__module__.rsplit(".", 1)[-1]


_Found = TypeVar("_Found")
_KNOWN: dict[tuple[int, Callable[..., Any]], tuple["weakref.ref[nn.Module]", Any]] = {}


def _known(model: nn.Module, find: Callable[[nn.Module], _Found]) -> _Found:
    """What was found of this model before, or is found now."""
    known = _KNOWN.get((id(model), find))
    if known is None or known[0]() is not model:
        known = _KNOWN[id(model), find] = weakref.ref(model), find(model)
    return known[1]


def _reads(model: nn.Module, prompts: list[np.ndarray], *, after: Sequence[np.ndarray] = ()) -> bool:
    """Whether the model reads these prompts in one batch as one by one; where some come `after` others, both."""
    begun = [np.append(prompt, PROBE) for prompt in after]
    alone = mx.concatenate([_after_probe(model, [prompt]) for prompt in [*begun, *prompts]])
    try:
        together = _after_probe(model, prompts, list(after))
    except (ModelError, ValueError):  # no batch form of its caches; shapes that do not fit
        return False
    tolerance = TOLERANCE[together.dtype.size]
    return bool(mx.abs(together - alone).max() <= tolerance * mx.abs(alone).max())


def _after_probe(model: nn.Module, prompts: list[np.ndarray], others: list[np.ndarray] | None = None) -> mx.array:
    """Logits one token after the prompts; first those of others, if any, which had read that token before too."""
    _, cache = prefill(model, prompts, 1)
    if others:
        joining, (_, cache) = cache, prefill(model, others, 2)
        model(mx.full((len(others), 1), PROBE), cache=cache)
        for layer, other in zip(cache, joining, strict=True):
            layer.extend(other)
    return model(mx.full((len(others or []) + len(prompts), 1), PROBE), cache=cache)[:, -1]
