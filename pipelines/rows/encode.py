"""Tokenise a stream of rows in batches: here for few rows, over processes for many; the order stays.

A batch crosses to a worker and its tokens come back; at most a few batches exist at a time, so memory does not grow.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from pipelines.rows.chat import ChatEncoder, EncodedRow
from pipelines.rows.sources import SplitRow

BATCH_ROWS = 1_000
PARALLEL_ROWS = 20_000
"""Below so many rows, starting processes takes longer than the work."""

Batch = list[SplitRow]


@dataclass(frozen=True)
class EncoderSpec:
    """What a worker needs to build the same `ChatEncoder`."""

    model_path: str
    system_prompt: str | None
    tags: tuple[str, str]


def encode_stream(
    rows: Iterable[SplitRow], encoder: ChatEncoder, spec: EncoderSpec, *, processes: int | None = None
) -> Iterator[tuple[SplitRow, EncodedRow]]:
    """Every row with its tokens; `processes` (default: one a core) work once there are `PARALLEL_ROWS`."""
    stream = iter(rows)
    first = list(islice(stream, PARALLEL_ROWS))
    workers = (os.cpu_count() or 1) if processes is None else processes
    batches = _batches(chain(first, stream))
    if len(first) < PARALLEL_ROWS or workers < 2:
        for batch in batches:
            yield from zip(batch, encoder.encode([item.row for item in batch]), strict=True)
        return
    for batch, encoded in _in_processes(batches, spec, workers):
        yield from zip(batch, encoded, strict=True)


def _batches(rows: Iterator[SplitRow]) -> Iterator[Batch]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def _in_processes(batches: Iterator[Batch], spec: EncoderSpec, workers: int) -> Iterator[tuple[Batch, Any]]:
    from joblib import Parallel, delayed

    # The batch comes back with its tokens: joblib reads ahead, so this side would have to remember it anyway.
    pool = Parallel(n_jobs=workers, return_as="generator", pre_dispatch=2 * workers, batch_size=1)
    yield from pool(delayed(_work)(spec, batch) for batch in batches)


def _work(spec: EncoderSpec, batch: Batch) -> tuple[Batch, list[EncodedRow]]:
    return batch, _encoder(spec).encode([item.row for item in batch])


@lru_cache(maxsize=1)
def _encoder(spec: EncoderSpec) -> ChatEncoder:
    """One a process, loaded at its first batch. One thread each: the processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from pipelines.models.load import load_tokenizer

    return ChatEncoder(load_tokenizer(spec.model_path), spec.system_prompt, spec.tags)
