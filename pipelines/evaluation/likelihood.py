"""How likely a model finds given tokens: log-probabilities of pieces, many at a time, right-padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.evaluation.completions import Piece, Prompt
from pipelines.evaluation.records import Record

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel
    from pipelines.models.logprobs import SplitModel

ITEMS_AT_ONCE = 64
POSITIONS_AT_ONCE = 2048
"""Positions of a batch, padding counted; a longer piece is a batch of its own."""


def measured(
    loaded: LoadedModel, prompts: Sequence[Prompt], record: Callable[[Prompt, list[np.ndarray]], Record]
) -> Iterator[list[Record]]:
    """What an evaluator's `measure` gives: a record of each prompt and the log-probabilities of its pieces."""
    for start in range(0, len(prompts), ITEMS_AT_ONCE):
        some = prompts[start : start + ITEMS_AT_ONCE]
        found = iter(logprobs(loaded, [piece for prompt in some for piece in prompt.pieces]))
        yield [record(prompt, [next(found) for _ in prompt.pieces]) for prompt in some]


def logprobs(loaded: LoadedModel, pieces: Sequence[Piece]) -> list[np.ndarray]:
    """log p(token | context, tokens before it) of each piece's target, float64 `[C]`, in the order of the pieces.

    Of the model as it is, at temperature 1 and without controls. Pieces of like length are read together; a causal
    model sees nothing of the padding behind them.
    """
    from pipelines.models.logprobs import split_head
    from pipelines.models.modes import evaluating

    found = [np.zeros(0)] * len(pieces)
    with evaluating(loaded.model):
        split = split_head(loaded.model)
        for some in _batches([len(piece.context) + len(piece.target) for piece in pieces]):
            rows = _read(split, [pieces[index] for index in some])
            for index, row in zip(some, rows, strict=True):
                found[index] = row
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices, longest first, so many together that their longest times their number stays within bounds."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        count = max(1, POSITIONS_AT_ONCE // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _read(split: SplitModel, pieces: Sequence[Piece]) -> list[np.ndarray]:
    import mlx.core as mx

    from pipelines.models.logprobs import completion_logprobs

    starts = np.array([len(piece.context) for piece in pieces], np.int32)
    sizes = np.array([len(piece.target) for piece in pieces], np.int32)
    tokens = np.zeros((len(pieces), int((starts + sizes).max())), np.int32)
    targets = np.zeros((len(pieces), int(sizes.max())), np.int32)
    for n, piece in enumerate(pieces):
        tokens[n, : starts[n] + sizes[n]] = np.concatenate([piece.context, piece.target])
        targets[n, : sizes[n]] = piece.target
    asked = np.arange(targets.shape[1]) < sizes[:, None]  # [N, C]
    scored = completion_logprobs(split, mx.array(tokens), mx.array(starts), mx.array(targets), where=asked)
    values = np.array(scored.logprobs, np.float64)
    return [values[n, :size] for n, size in enumerate(sizes)]
