"""The trainer's end of a server: start it, ask it for workers, hand it back, or be rid of it.

Each thread that runs answers at the same time has a server of its own. A fork of the trainer starts its own too: what
the parent started is not the child's to use.
"""

import array
import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.errors import SandboxError
from pipelines.sandbox.confine import Bounds, Layers

START_SECONDS, ANSWER_SECONDS = 30.0, 20.0
ROOT = str(Path(__file__).resolve().parents[2])
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from pipelines.sandbox.server import main; sys.path.pop(0); main(int(sys.argv[2]))"
)
FLAGS = ("-s", "-S", "-B", "-X", "utf8")
SCRATCH = "/tmp"  # noqa: S108 - what a view of the files has under this name is private
ENVIRONMENT = {
    "HOME": SCRATCH, "TMPDIR": SCRATCH, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "2",
}  # fmt: skip
"""All of it: nothing of the trainer's environment goes along. The fixed seed makes the order of sets repeat, and with
few arenas threads take little of the address space."""
MACOS_PROFILE = """(version 1)(allow default)(deny network*)(deny file-write*)
(allow file-write* (regex #"/grpo-sandbox-") (literal "/dev/null"))(deny signal (target others))"""


class Client:
    """A running server."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair()
        command = [sys.executable, *FLAGS, "-c", PROGRAM, ROOT, str(theirs.fileno())]
        if sys.platform == "darwin":
            command = ["/usr/bin/sandbox-exec", "-p", MACOS_PROFILE, *command]
        try:
            with theirs:
                self.process = subprocess.Popen(
                    command,
                    env=ENVIRONMENT,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            self.control.close()
            raise SandboxError(
                f"the sandbox could not be started: {error}", hint=f"it runs {sys.executable}"
            ) from error
        self._read(START_SECONDS)

    def request(self, order: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Have something done. SandboxError if the server cannot, or is gone."""
        data = json.dumps(order).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self.control.sendmsg([data], rights)
        except OSError as error:
            raise SandboxError(f"the sandbox is gone: {error}", hint="memory may have run out") from error
        self._read(ANSWER_SECONDS)

    def make(self, kind: str, layers: Layers, bounds: Bounds, descriptors: Sequence[int], **more: Any) -> None:
        limits = asdict(bounds)
        limits.pop("others")
        self.request(
            {"do": kind, "layers": asdict(layers), "bounds": limits, "limit": 0, "output": 0} | more, descriptors
        )

    def end(self) -> None:
        """Kill and reap all workers; when this returns nothing of the answer is left."""
        self.request({"do": "end"})

    def close(self) -> None:
        """Be rid of the server; it ends its workers when the line goes dead."""
        self.control.close()
        if self.owner == os.getpid():
            try:
                self.process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self.control], [], [], seconds)
        try:
            data = self.control.recv(1 << 16) if ready else b""
        except OSError:
            data = b""
        if not data:
            state = "did not answer" if not ready else "ended"
            raise SandboxError(f"the sandbox's server {state}", hint="it was killed from outside, or memory ran out")
        error = json.loads(data)["error"]
        if error:
            raise SandboxError(
                f"the sandbox could not make a process: {error}", hint="see `ulimit -a`, and free memory"
            )


_idle: list[Client] = []
_lock = threading.Lock()


@contextlib.contextmanager
def borrowed() -> Iterator[Client]:
    """A server for one answer. It goes back clean; where anything went wrong it is not used again."""
    with _lock:
        while _idle and _idle[-1].owner != os.getpid():
            _idle.pop().control.close()
        client = _idle.pop() if _idle else None
    client = client or Client()
    clean = False
    try:
        yield client
        client.end()
        clean = True
    finally:
        if clean:
            with _lock:
                _idle.append(client)
        else:
            client.close()


def close_all() -> None:
    """End all idle servers; at exit, and for tests."""
    with _lock:
        while _idle:
            _idle.pop().close()


atexit.register(close_all)


class Lines:
    """Lines from a descriptor, read until a point in time."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""
        self.ended = False

    def next(self, until: float) -> str | None:
        """The next line; None at the end, or when the time is up (`ended` tells which)."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            try:
                part = os.read(self.descriptor, 1 << 16)
            except OSError:
                part = b""
            if not part:
                self.ended = True
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace")
