"""What the trainer's side knows of one worker: whether it is ready, and how it ended."""

import math
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from pipelines.errors import SandboxError
from pipelines.sandbox.base import Limits
from pipelines.sandbox.client import Client, Lines
from pipelines.sandbox.confine import Bounds
from pipelines.sandbox.isolation import Isolation

READY_SECONDS = 20.0
SIGSYS = 31


@dataclass(frozen=True)
class Answer:
    """One solution on its way through its tests."""

    client: Client
    solution: str
    limits: Limits
    isolation: Isolation
    until: float
    """When all its time is up, on the monotonic clock."""

    def make(self, kind: str, descriptors: list[int]) -> None:
        """Have workers made for it."""
        limits = self.limits
        bounds = Bounds(limits.memory_mb, math.ceil(limits.total_seconds) + 1, limits.file_mb)
        sizes = {"limit": limits.message_kb << 10, "output": limits.output_kb << 10}
        self.client.make(kind, self.isolation.plan, bounds, descriptors, **sizes)

    def accuse(self, ended: "Ended", who: str) -> None:
        """Raise SandboxError if a worker was killed by nobody here and not by its limits.

        Without a filter of calls it could have done that itself, and must not get out of its score that way.
        """
        if self.isolation.plan.seccomp and ended.killed_from_outside(self.limits):
            raise SandboxError(f"{who} was killed from outside", hint="memory may have run out")


def await_ready(status: Lines) -> None:
    """Wait until a worker is confined. SandboxError if it could not be."""
    line = status.next(time.monotonic() + READY_SECONDS)
    if line != "ready":
        raise SandboxError(f"a process could not be confined: {line or 'no answer'}", hint="see `grpo doctor`")


@dataclass(frozen=True)
class Ended:
    """How a worker ended: the signal that killed it, else its exit status; seconds of processor time."""

    signal: int = 0
    status: int = 0
    cpu_seconds: float = 0.0
    lost: bool = False

    def killed_from_outside(self, limits: Limits) -> bool:
        """SIGKILL that is not the processor's limit; nothing inside can send it where calls are filtered."""
        return self.lost or (self.signal == signal.SIGKILL and self.cpu_seconds < limits.total_seconds)

    def words(self) -> str:
        if self.signal == SIGSYS:
            return " (it made a system call that is not allowed)"
        return f" (signal {self.signal})" if self.signal else ""


def how_it_ended(status: Lines, seconds: float) -> Ended:
    """What is said of a worker's end within so many seconds; nothing, with `lost`, if its keeper is gone."""
    line = status.next(time.monotonic() + seconds)
    if line is None or not line.startswith("ended "):
        return Ended(lost=status.ended)
    _, killer, code, cpu = line.split()
    return Ended(int(killer), int(code), float(cpu))


def anonymous_file(data: bytes) -> Any:
    """A file without a name that holds these bytes."""
    stream = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the caller
    stream.write(data)
    stream.seek(0)
    return stream
