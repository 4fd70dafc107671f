"""Tokenise a stream of rows in batches: here for few rows, over processes for many; the order stays.

A batch crosses to a worker and its tokens come back; at most a few batches exist at a time, so memory does not grow.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import cast

from pipelines.rows.chat import ChatEncoder, EncodedRow
from pipelines.rows.records import Row
from pipelines.rows.sources import SplitRow

BATCH_ROWS = 1_000
PARALLEL_ROWS = 20_000
"""Below so many rows, starting processes takes longer than the work."""

MOST_PROCESSES = 8
BATCHES_AHEAD = 8
"""Batches read ahead for each process."""

Batch = list[SplitRow]
EncodedBatch = list[EncodedRow]


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
    many = len(first) == PARALLEL_ROWS
    batches = _batches(chain(first, stream))
    workers = 1 if not many else _cores() if processes is None else processes
    encoded = _in_processes(batches, spec, workers) if workers > 1 else _here(batches, encoder)
    for batch, tokens in encoded:
        yield from zip(batch, tokens, strict=True)


def _cores() -> int:
    """Cores this process may use, containers considered; more than a few would wait for the one that writes."""
    from joblib import cpu_count

    return min(cpu_count(), MOST_PROCESSES)


def _here(batches: Iterator[Batch], encoder: ChatEncoder) -> Iterator[tuple[Batch, EncodedBatch]]:
    for batch in batches:
        yield batch, encoder.encode([item.row for item in batch])


def _batches(rows: Iterator[SplitRow]) -> Iterator[Batch]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def _in_processes(batches: Iterator[Batch], spec: EncoderSpec, workers: int) -> Iterator[tuple[Batch, EncodedBatch]]:
    from joblib import Parallel, delayed

    # Rows are read in this thread, some batches at a time: joblib would read them in a thread of its own, where an
    # error in a row is lost.
    with Parallel(n_jobs=workers, return_as="generator", pre_dispatch="all", batch_size=1) as pool:  # pyright: ignore[reportArgumentType]
        while ahead := list(islice(batches, BATCHES_AHEAD * workers)):
            results = pool(delayed(_work)(spec, [item.row for item in batch]) for batch in ahead)
            yield from zip(ahead, cast("Iterator[EncodedBatch]", results), strict=True)


def _work(spec: EncoderSpec, rows: list[Row]) -> EncodedBatch:
    return _encoder(spec).encode(rows)


@lru_cache(maxsize=1)
def _encoder(spec: EncoderSpec) -> ChatEncoder:
    """One a process, loaded at its first batch. One thread each: the processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from pipelines.models.load import load_tokenizer

    return ChatEncoder(load_tokenizer(spec.model_path), spec.system_prompt, spec.tags)
