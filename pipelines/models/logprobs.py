"""Log-probabilities of completions under a model: one causal pass, logits only where they are asked for.

Sequences are right-padded, so a causal mask is enough and positions start at 0 in every row. Of the N x C completion
positions only those asked for go through the head, packed as M rows: padding and the other region cost nothing there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.models.modes import evaluating
from pipelines.models.parts import in_parts, is_random

PART_BYTES = {"cpu": 2**27, "gpu": 2**29}
"""Float32 logits `[m, V]` that exist at a time; more rows than that go through the head in parts."""

Adjust = Callable[[mx.array, mx.array], mx.array]
"""Float32 logits `[M, V]` and their indices `[M]` into the N x C completion positions -> logits, before temperature."""


class Scored(NamedTuple):
    """Per completion token, float32 `[N, C]`; 0 where nothing was asked for."""

    logprobs: mx.array
    entropies: mx.array


@dataclass(frozen=True)
class SplitModel:
    """A model as hidden states and head: `head(body(tokens))` are its logits."""

    body: Callable[..., mx.array]
    head: Callable[[mx.array], mx.array]
    apart: bool = True
    """False where no head could be taken off: the body is the whole model then, and gives logits."""
    head_module: Callable[[], nn.Module] | None = None
    """The module that the head is, with all its leaves; looked up when called, since adapters exchange modules."""
    vocabulary: int = 0
    """Logits that the head gives."""

    def rows_at_once(self) -> int | None:
        """Rows whose float32 logits fit PART_BYTES; None where the head is not apart, or cannot be asked twice."""
        if not self.apart or self.head_module is None or is_random(self.head_module()):
            return None
        return max(1, PART_BYTES["gpu" if backend.on_gpu() else "cpu"] // (4 * self.vocabulary))


def split_head(model: nn.Module) -> SplitModel:
    """Take the LM head apart from the rest, so that logits are computed only where they are needed.

    The split is tried on a short input and used only if it reproduces the model's own logits;
    an architecture with scaling or capping after the head is evaluated whole instead.
    One that decodes otherwise than it reads a whole row, because layers find keys of others in the cache, is given a
    cache in every pass.
    """
    from mlx_lm.models.cache import make_prompt_cache

    with_caches = _needs_caches(model)

    def body(part: nn.Module) -> Callable[..., mx.array]:
        if not with_caches:
            return part
        return lambda tokens, cache=None: part(tokens, cache=make_prompt_cache(model) if cache is None else cache)

    whole = SplitModel(body=body(model), head=lambda logits: logits, apart=False)
    probe = mx.array([[0, 1, 2]])
    with evaluating(model):
        logits = whole.body(probe)
        for split in _splits(model, body):
            try:
                same = mx.array_equal(split.head(split.body(probe)), logits).item()
            except (TypeError, ValueError):  # a body that wants more than tokens
                continue
            if same:
                return replace(split, vocabulary=logits.shape[-1])
    return whole


BODIES = ("model", "backbone", "transformer")
"""What architectures call all that comes before the head."""


def _splits(model: nn.Module, body: Callable[[nn.Module], Callable[..., mx.array]]) -> Iterator[SplitModel]:
    """Ways to take a head off: of the model, or of the text part of one that also sees."""
    for owner in filter(None, (model, getattr(model, "language_model", None))):
        for inner in filter(None, (getattr(owner, name, None) for name in BODIES)):
            if "lm_head" in owner:
                yield _with_head(body(inner), owner, "lm_head")
            else:
                embeddings = [name for name, child in inner.children().items() if hasattr(child, "as_linear")]
                yield from (_with_embedding(body(inner), inner, name) for name in embeddings)


def _with_head(body: Callable[..., mx.array], owner: nn.Module, name: str) -> SplitModel:
    return SplitModel(body, lambda hidden: owner[name](hidden), head_module=lambda: owner[name])  # noqa: PLW0108 - looked up when called


def _with_embedding(body: Callable[..., mx.array], inner: nn.Module, name: str) -> SplitModel:
    return SplitModel(body, lambda hidden: inner[name].as_linear(hidden), head_module=lambda: inner[name])  # noqa: PLW0108


CACHE_TOLERANCE = {4: 1e-3, 2: 0.05}
"""How far logits may be from those of a pass with a cache, as a part of the largest, by the bytes of a number."""


def _needs_caches(model: nn.Module) -> bool:
    """Whether a pass without a cache is another one than decoding makes. Tried on a short input."""
    from mlx_lm.models.cache import make_prompt_cache

    probe = mx.array([[0, 1, 2]])
    with evaluating(model):
        try:
            cached = model(probe, cache=make_prompt_cache(model))
        except (AttributeError, TypeError, ValueError):  # a model without caches
            return False
        gap = mx.abs(model(probe) - cached).max()
        return bool(gap > CACHE_TOLERANCE[cached.dtype.size] * mx.abs(cached).max())


@dataclass(frozen=True)
class Spots:
    """The M completion tokens of a batch that are asked for, in reading order."""

    states: mx.array  # [M] int32, the hidden states before them, as indices into N x T
    targets: mx.array  # [M] int32, their ids
    cells: mx.array  # [M] int32, where they stand, as indices into N x C
    places: mx.array  # [N, C] int32, which of the M each position is; M for none

    def spread(self, values: mx.array) -> mx.array:
        """`[M]` back to `[N, C]`, 0 where nothing was asked for."""
        return mx.concatenate([values, mx.zeros(1, values.dtype)])[self.places]


def spots(tokens: mx.array, starts: mx.array, completions: mx.array, where: mx.array | np.ndarray | None) -> Spots:
    """Find the tokens at `where` `[N, C]` (None: everywhere); arrays as in `completion_logprobs`. Read on the host."""
    length, (rows, width) = tokens.shape[1], completions.shape
    asked = np.ones((rows, width), bool) if where is None else np.array(where)
    cells = np.flatnonzero(asked)
    row, column = np.divmod(cells, width)
    # The logits that predict completion token t of row i stand at position starts[i] - 1 + t.
    position = np.minimum(np.array(starts)[row] - 1 + column, length - 1)
    places = np.full(rows * width, cells.size, np.int32)
    places[cells] = np.arange(cells.size)
    return Spots(
        states=mx.array((row * length + position).astype(np.int32)),
        targets=completions.reshape(-1)[mx.array(cells.astype(np.int32))],
        cells=mx.array(cells.astype(np.int32)),
        places=mx.array(places.reshape(rows, width)),
    )


def score(
    split: SplitModel,
    hidden: mx.array,
    at: Spots,
    temperature: float = 1.0,
    *,
    adjust: Adjust | None = None,
    entropy_gradient: bool = False,
) -> Scored:
    """log softmax(adjust(logits) / temperature) of the tokens `at`, in float32 whatever the model's dtype.

    hidden `[N, T, H]` comes from `split.body`. Entropies are those of the same distribution; they carry a gradient
    only if asked, since few losses want it and it costs two passes over the logits.
    """

    def score_part(states: mx.array, part: slice) -> tuple[mx.array, mx.array]:
        logits = split.head(states).astype(mx.float32)  # [m, V]
        if adjust is not None:
            logits = adjust(logits, at.cells[part])
        if temperature != 1.0:
            logits = logits / temperature
        logits = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))
        weights = mx.exp(logits)  # once, for both values and for the gradient: the dearest pass over [m, V] on a CPU
        totals = weights.sum(axis=-1)
        chosen = mx.take_along_axis(logits, at.targets[part][:, None], axis=-1)[:, 0]
        entropies = mx.log(totals) - (weights * logits).sum(axis=-1) / totals
        return chosen - mx.log(totals), entropies if entropy_gradient else mx.stop_gradient(entropies)

    states, rows = hidden.reshape(-1, hidden.shape[-1])[at.states], split.rows_at_once()  # [M, H]
    if rows is None or split.head_module is None or states.shape[0] <= rows:
        logprobs, entropies = score_part(states, slice(None))
    else:
        logprobs, entropies = in_parts(score_part, states, rows, split.head_module())
    return Scored(at.spread(logprobs), at.spread(entropies))


def completion_logprobs(
    split: SplitModel,
    tokens: mx.array,
    starts: mx.array,
    completions: mx.array,
    temperature: float = 1.0,
    *,
    where: mx.array | np.ndarray | None = None,
    adjust: Adjust | None = None,
) -> Scored:
    """`score` of whole sequences.

    tokens `[N, T]` prompt and completion, right-padded; starts `[N]` prompt lengths; completions `[N, C]`;
    where `[N, C]` bool, the tokens asked for (None: all, padding too, which then holds numbers without meaning).
    """
    return score(split, split.body(tokens), spots(tokens, starts, completions, where), temperature, adjust=adjust)
