"""The trainer's end of one reward worker: started, given chunks, watched by the clock, killed with all it started."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from time import monotonic
from typing import cast

from pipelines.rewards.worker_process import POSITION, STARTING, Chunk, Order, Reply, item_at

START_SECONDS = 60.0
"""How long a worker may take between items: to import itself and the plugins, or to read a chunk."""
GRACE_SECONDS = 1.0

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipelines.rewards.worker_process import main; main()"
)
"""No `-m` and no multiprocessing: neither the trainer's main module nor its current directory is imported anew."""

ALONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Workers are one core each; threads beneath them would fight over the same cores."""


@dataclass
class Task:
    """A chunk of a batch, whose first row is `start`."""

    start: int
    chunk: Chunk


class Worker:
    """One process. Raises EOFError or ConnectionError from `hear` and `give` when it has died."""

    def __init__(self, order: Order) -> None:
        self.task: Task | None = None
        self.ready = False
        self.connection, theirs = Pipe()
        with tempfile.TemporaryFile() as shared:
            shared.truncate(POSITION.size)
            self._position = mmap.mmap(shared.fileno(), POSITION.size)
            POSITION.pack_into(self._position, 0, STARTING)
            descriptors = (theirs.fileno(), shared.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(sys.path), *map(str, descriptors), str(os.getpid())],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout is for data; what a reward prints is not
                start_new_session=True,  # Ctrl-C is the trainer's business
                env={**os.environ, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"), **ALONE},
            )
        theirs.close()
        self._seen = (STARTING, monotonic())
        self.connection.send(order)

    def give(self, task: Task) -> None:
        """One chunk to score; `hear` has the reply."""
        self.task = task
        self._seen = (self.position, monotonic())
        self.connection.send(task.chunk)

    def hear(self) -> Reply | list[tuple[str, str] | None]:
        """The reply to a chunk; the first time the names of the rewards' classes, column by column."""
        message = self.connection.recv()
        self.ready, self.task = True, None
        return cast("Reply | list[tuple[str, str] | None]", message)

    @property
    def position(self) -> int:
        return POSITION.unpack_from(self._position, 0)[0]

    @property
    def item(self) -> tuple[int, int] | None:
        """The (row, column) of its chunk that it is at, or was at when it ended; None between items."""
        position = self.position
        return item_at(position, self.task.chunk) if self.task and position > 0 else None

    def overdue(self, limits: list[float]) -> bool:
        """Whether it has been at one item for longer than the limit of its column; to be asked again and again."""
        position, now = self.position, monotonic()
        if position != self._seen[0]:
            self._seen = (position, now)
        item = self.item
        return now - self._seen[1] > (START_SECONDS if item is None else limits[item[1]])

    def end(self) -> int:
        """Kill it with its whole session, and wait: its exit status, or minus the signal that ended it."""
        self.connection.close()
        self._kill()
        status = self._process.wait()
        self._position.close()
        return status

    def died(self) -> str:
        """Why it ended by itself, in words; what it started is killed."""
        with suppress(subprocess.TimeoutExpired):  # alive without its socket: of no use either
            self._process.wait(GRACE_SECONDS)
        status = self.end()
        return f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group that is all zombies
            self._process.kill()
