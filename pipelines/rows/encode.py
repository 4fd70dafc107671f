"""From chunks of records to blocks of arrays: in this process for few, in many for many; the order stays.

All that a row costs (parsing, checking, rendering, tokenising, writing it as JSON) happens where its chunk is encoded;
the process that reads and writes files only cuts and appends. Processes, because the threads of a fast tokenizer would
wait for the rest, which is Python. At most a few chunks exist at a time, so memory does not grow.
"""

import gc
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from pipelines.config import DataConfig
from pipelines.errors import GrpoError, StageError
from pipelines.rows.blocks import Block, Marks, block_of, token_dtype
from pipelines.rows.chat import ChatEncoder, EncodedRow
from pipelines.rows.given import GivenRow, given_row
from pipelines.rows.loaders.base import Chunk, TokenRow
from pipelines.rows.loaders.registry import loader_for
from pipelines.rows.records import Row
from pipelines.rows.sources import ReadReport, split_of, told, usable

PARALLEL_CHUNKS = 16
"""With fewer, starting processes takes longer than the work."""

MOST_PROCESSES = 8
CHUNKS_AHEAD = 3
"""Chunks read ahead for each process."""

Task = tuple[str, Chunk]
"""A chunk, and the source it was cut from: train or val."""


@dataclass(frozen=True)
class EncoderSpec:
    """What a worker needs to make the same rows."""

    model_path: str
    data: DataConfig
    tags: tuple[str, str]
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodedChunk:
    """What a chunk came to; `error` is the first reason why its rows cannot be used."""

    origin: str
    position: float | None
    report: ReadReport
    vocabulary: int = 0
    """How many ids the tokenizer has; their dtype follows from it."""
    blocks: dict[str, Block] = field(default_factory=dict[str, Block])
    error: GrpoError | None = None


class RowEncoder:
    """A loader and a tokenizer, ready for chunks."""

    def __init__(self, spec: EncoderSpec) -> None:
        from pipelines.models.load import load_tokenizer

        self.data = spec.data
        self.loader = loader_for(spec.data, spec.plugins)
        self.chat = ChatEncoder(load_tokenizer(spec.model_path), spec.data.system_prompt, spec.tags)
        self.dtype = token_dtype(self.chat.vocabulary_size)

    def encode(self, origin: str, chunk: Chunk) -> EncodedChunk:
        """Blocks of the chunk's rows, by split."""
        report = ReadReport()
        try:
            splits: dict[str, list[tuple[Row, EncodedRow]]] = {}
            for row, tokens in self.tokenised(list(self.usable_rows(chunk, report))):
                splits.setdefault(split_of(row, origin, self.data), []).append((row, tokens))
            marks = Marks(self.chat.eos_id, self.chat.unknown_id)
            blocks = {split: block_of(part, origin, self.data, self.dtype, marks) for split, part in splits.items()}
        except GrpoError as error:
            return EncodedChunk(origin, chunk.position, report, error=error)
        return EncodedChunk(origin, chunk.position, report, self.chat.vocabulary_size, blocks)

    def usable_rows(self, chunk: Chunk, report: ReadReport) -> Iterator[Row | GivenRow]:
        """The chunk's rows, one after the other."""
        items = told(self.loader.rows(chunk), self.loader)
        known = (given_row(item, self.chat, self.data) if isinstance(item, TokenRow) else item for item in items)
        return usable(known, self.data, report)

    def tokenised(self, rows: Sequence[Row | GivenRow]) -> list[tuple[Row, EncodedRow]]:
        """Each row with its tokens; those that came without are encoded in one batch."""
        rows = [self.chat.without_end(row) if isinstance(row, Row) else row for row in rows]
        encoded = iter(self.chat.encode([row for row in rows if isinstance(row, Row)]))
        return [(row, next(encoded)) if isinstance(row, Row) else (row.row, row.tokens) for row in rows]


def encode_stream(tasks: Iterable[Task], spec: EncoderSpec, *, processes: int | None = None) -> Generator[EncodedChunk]:
    """Every chunk encoded, in order; `processes` (default: one a core) work once there are `PARALLEL_CHUNKS`."""
    stream = iter(tasks)
    first = list(islice(stream, PARALLEL_CHUNKS))
    tasks = chain(first, stream)
    workers = 1 if len(first) < PARALLEL_CHUNKS else _cores() if processes is None else processes
    return _in_processes(tasks, spec, workers) if workers > 1 else _here(tasks, spec)


def _cores() -> int:
    """Cores this process may use, containers considered; more than a few would wait for the one that writes."""
    from joblib import cpu_count

    return min(cpu_count(), MOST_PROCESSES)


def _here(tasks: Iterable[Task], spec: EncoderSpec) -> Generator[EncodedChunk]:
    encoder = RowEncoder(spec)
    yield from (encoder.encode(*task) for task in tasks)


def _in_processes(tasks: Iterable[Task], spec: EncoderSpec, workers: int) -> Generator[EncodedChunk]:
    """Sources are read in this thread, a few chunks ahead of what was asked for. No tokenizer is loaded here."""
    from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

    pool: Any = ProcessPoolExecutor(workers, initializer=_start, initargs=(spec,))
    waiting: deque[Any] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_work, *task))
            if len(waiting) == CHUNKS_AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise StageError(
            "a process that was tokenising rows ended before its work was done",
            hint="something killed it, most often a lack of memory; run the command again",
        ) from error
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown()  # the chunks that are being worked on are soon done


_spec: EncoderSpec
"""What a worker process was started with."""


def _start(spec: EncoderSpec) -> None:
    global _spec  # noqa: PLW0603 - given once, to the process as a whole
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _spec = spec


def _work(origin: str, chunk: Chunk) -> EncodedChunk:
    try:
        return _encoder().encode(origin, chunk)
    except GrpoError as error:  # of a tokenizer or plugin
        return EncodedChunk(origin, None, ReadReport(), error=error)


@lru_cache(maxsize=1)
def _encoder() -> RowEncoder:
    """Made at a worker's first chunk."""
    encoder = RowEncoder(_spec)
    gc.freeze()  # what is loaded stays: collections need not look through it again and again
    return encoder
