"""Rewards in worker processes: at work while the device generates, and held to a time limit by the clock.

A worker that hangs or dies is replaced; the one item it was at is recorded as a failure, all others keep their scores.
What a batch scores does not depend on how many workers there are, nor on which of them scored what.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from pipelines.config import RewardConfig
from pipelines.errors import RewardError
from pipelines.plugins import SOURCES
from pipelines.rewards.composer import Failure, Item, RewardComposer, Scores, score_block
from pipelines.rewards.context import RewardContext
from pipelines.rewards.worker import Task, Worker
from pipelines.rewards.worker_process import Chunk, Order, Reply, class_name

MOST_WORKERS = 4
CHUNK_ROWS = 64
"""At most so many completions go to a worker at once: a chunk whose worker dies is scored again."""
CHUNKS_A_WORKER = 4
"""At least so many chunks a worker where there are rows enough, so that nobody waits long for one slow chunk."""
SMALL_ITEMS = 256
"""Up to so many items (completions x rewards) of quick rewards are scored here. Sending them costs about half a
millisecond and a tenth of the work; one worker and an idle core beside it gain nothing below some hundred items, which
take 20 ms."""
POLL_SECONDS = 0.05
MOST_STARTS = 3
"""How often in a row a worker may end outside of any reward before that is an error."""


def default_workers() -> int:
    """One core is left to the trainer; more than four workers outrun any device that generates."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores - 1))


class ParallelComposer:
    """A `RewardComposer` whose rewards run in worker processes.

    `workers` 0 scores in this process, without a time limit. Plugins are files that this process has loaded already;
    the workers load what they held then. A reward that comes from no file that a worker can load runs in this process.
    Workers start with the first batch that needs them; `close` ends them. A thread scores one batch after the other.
    """

    def __init__(
        self,
        configs: Sequence[RewardConfig],
        plugins: Sequence[str | Path] = (),
        *,
        workers: int | None = None,
        max_failure_fraction: float = 0.01,
    ) -> None:
        self.composer = RewardComposer(configs, max_failure_fraction=max_failure_fraction)
        files = tuple(str(Path(path).expanduser().resolve()) for path in plugins)
        order = Order(files, tuple(configs), {path: SOURCES[path] for path in files if path in SOURCES})
        self.pool = Pool(order, self.composer, default_workers() if workers is None else workers)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
        self._end = weakref.finalize(self, _close, self.pool, self._thread)

    @property
    def names(self) -> tuple[str, ...]:
        return self.composer.names

    def submit(self, contexts: Sequence[RewardContext], *, part: bool = False) -> Future[Scores]:
        """Score in the background; `.result()` waits for the Scores, or raises RewardError as `score` does.

        The failures of a `part` of a batch are not judged: give those of all parts to `tolerate`.
        """
        return self._thread.submit(self.pool.score, contexts, part=part)

    def tolerate(self, failures: Sequence[Failure], samples: int) -> None:
        """RewardError when more than the allowed share of rows failed."""
        self.composer.tolerate(failures, samples)

    def score(self, contexts: Sequence[RewardContext]) -> Scores:
        """Every reward on every completion. Raises RewardError when more than the allowed share of rows failed."""
        return self.submit(contexts).result()

    def close(self) -> None:
        """End the workers, at once even in the middle of a batch."""
        self._end()


def _close(pool: Pool, thread: ThreadPoolExecutor) -> None:
    pool.closing.set()
    thread.shutdown(wait=pool.owner != threading.get_ident(), cancel_futures=True)
    pool.end()


@dataclass
class Batch:
    """One call being scored: what is still to do, and what is found."""

    rows: int
    waiting: deque[Task] = field(default_factory=deque[Task])
    items: list[Item] = field(default_factory=list[Item])
    seconds: dict[int, float] = field(default_factory=dict[int, float])
    killed: set[int] = field(default_factory=set[int])
    """Rows at which a worker ended."""

    def add(self, items: Sequence[Item], seconds: dict[int, float], start: int = 0) -> None:
        """Items whose rows count from `start`."""
        self.items += [item._replace(row=item.row + start) for item in items]
        for column, spent in seconds.items():
            self.seconds[column] = self.seconds.get(column, 0.0) + spent


class Pool:
    """The workers and the loop that keeps them busy. Used by one thread, with which Linux ends them."""

    def __init__(self, order: Order, composer: RewardComposer, size: int) -> None:
        self.order = order
        self.composer = composer
        self.size = size
        self.workers: list[Worker] = []
        self.portable: tuple[int, ...] | None = None
        """Columns whose rewards the workers know; None until the first of them has said so."""
        self.lost_between = 0
        self.owner = 0
        self.closing = threading.Event()

    def score(self, contexts: Sequence[RewardContext], *, part: bool = False) -> Scores:
        """Here if the batch is small and its rewards are quick, or if there are no workers; else in workers."""
        self.owner, rewards = threading.get_ident(), self.composer.rewards
        small = len(contexts) * len(rewards) <= SMALL_ITEMS and all(type(reward).quick for reward in rewards)
        if small or not self.size:
            return self.composer.gathered(*score_block(dict(enumerate(rewards)), contexts), len(contexts), part=part)
        batch = Batch(len(contexts))
        allowed = float(batch.rows) if part else self.composer.max_failure_fraction * batch.rows
        try:
            self._run(batch, contexts, allowed)
        finally:
            for worker in [worker for worker in self.workers if worker.task]:
                self._remove(worker)
                worker.end()
        return self.composer.gathered(batch.items, batch.seconds, batch.rows, part=part)

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers = []

    def _run(self, batch: Batch, contexts: Sequence[RewardContext], allowed: float) -> None:
        """Until all is done, or more rows than `allowed` have cost a worker."""
        while self.portable is None:
            self._step(batch)
        rewards = self.composer.rewards
        if self.portable:
            rows = min(CHUNK_ROWS, max(1, batch.rows // (self.size * CHUNKS_A_WORKER)))
            for start in range(0, batch.rows, rows):
                batch.waiting.append(Task(start, Chunk(contexts[start : start + rows], self.portable)))
            self._dispatch(batch)
        here = {column: reward for column, reward in enumerate(rewards) if column not in self.portable}
        batch.add(*score_block(here, contexts))
        while (batch.waiting or any(worker.task for worker in self.workers)) and len(batch.killed) <= allowed:
            self._step(batch)

    def _step(self, batch: Batch) -> None:
        """Hear who has something to say, replace who is lost, give work to who has none."""
        if self.closing.is_set() or not threading.main_thread().is_alive():
            raise RewardError("the rewards were closed while a batch was being scored", hint="wait for its result")
        while len(self.workers) < self.size:
            self.workers.append(Worker(self.order))
        self._dispatch(batch)
        expected = [worker for worker in self.workers if worker.task or not worker.ready]
        answered = wait([worker.connection for worker in expected], POLL_SECONDS)
        limits = [reward.time_limit_seconds for reward in self.composer.rewards]
        for worker in expected:
            if worker.connection in answered:
                self._hear(worker, batch)
            elif worker.overdue(limits):
                self._lose(worker, batch, limits)

    def _dispatch(self, batch: Batch) -> None:
        for worker in [worker for worker in self.workers if worker.ready and not worker.task]:
            if batch.waiting:
                try:
                    worker.give(batch.waiting.popleft())
                except ConnectionError:
                    self._lose(worker, batch)

    def _hear(self, worker: Worker, batch: Batch) -> None:
        task = worker.task
        try:
            message = worker.hear()
        except (EOFError, ConnectionError):
            self._lose(worker, batch)
            return
        self.lost_between = 0
        if isinstance(message, Reply) and task:
            batch.add(*message, task.start)
        elif isinstance(message, list):
            ours = [class_name(reward) for reward in self.composer.rewards]
            self.portable = tuple(column for column, name in enumerate(message) if name == ours[column])

    def _lose(self, worker: Worker, batch: Batch, limits: Sequence[float] = ()) -> None:
        """Record the item at which a worker died, or was too long (with `limits`); do its chunk again without it."""
        item, task = worker.item, worker.task
        self._remove(worker)
        if limits:
            worker.end()
        reason = "it took too long" if limits else worker.died()
        if item is None or task is None:
            self.lost_between += 1
            if self.lost_between >= MOST_STARTS:
                raise RewardError(f"reward workers end outside of any reward: {reason}", hint="their words are above")
            if task:
                batch.waiting.appendleft(task)
            return
        row, column = item
        late = f"TimeoutError: no result after {limits[column]:g} seconds" if limits else f"its process ended: {reason}"
        batch.add([Item(row, column, math.nan, {}, late)], {column: limits[column]} if limits else {}, task.start)
        batch.killed.add(task.start + row)
        chunk = task.chunk._replace(skipped=task.chunk.skipped | {item})
        batch.waiting.appendleft(Task(task.start, chunk))

    def _remove(self, worker: Worker) -> None:
        self.workers = [other for other in self.workers if other is not worker]
