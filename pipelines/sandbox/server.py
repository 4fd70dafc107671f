"""The process from which every candidate and judge is forked: a fresh interpreter that has imported what answers use.

It never sees a solution or a test: those travel on descriptors that it hands to the worker and closes. It lives as long
as the process that started it, ends everything below it when asked, and when that process is gone.
"""

import contextlib
import gc
import json
import os
import select
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pipelines.sandbox import candidate, confine, judge, kernel, probe, suites, view
from pipelines.sandbox.confine import Bounds, Layers, Order

MOST_DESCRIPTORS = 8
THREAD_STACK_BYTES = 4 << 20
"""Of a thread that asks for no other: else each would take as much address space as the main thread may."""
PARENT_CHECK_SECONDS = 1.0
PRELOADED = (
    "array", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "glob", "hashlib", "heapq", "inspect",
    "io", "itertools", "json", "logging", "math", "numbers", "operator", "pathlib", "pprint", "queue", "random",
    "re", "secrets", "shlex", "statistics", "string", "struct", "textwrap", "threading", "time", "traceback",
    "typing", "unicodedata", "uuid", "warnings", "weakref", "asyncio", "concurrent.futures", "sys", "types", "abc",
    "signal", "unittest.mock", "dis", "pickle", "site",
)  # fmt: skip


class Server:
    """Requests, one at a time: make workers, end them."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.parent = os.getppid()
        self.keepers: list[int] = []
        self.directories: list[str] = []
        self.sources = view.readable()
        self.others = 0 if os.geteuid() == 0 else processes_of(os.geteuid())

    def serve(self) -> None:
        """Until the other end is closed, or whoever started this is gone."""
        while True:
            ready, _, _ = select.select([self.control], [], [], PARENT_CHECK_SECONDS)
            if os.getppid() != self.parent:
                break
            if ready:
                data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, MOST_DESCRIPTORS)
                if not data:
                    break
                self._answer(json.loads(data), descriptors)
        self.end()

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> None:
        reply = {"error": ""}
        try:
            if request["do"] == "end":
                self.end()
            else:
                self._make(request, descriptors)
        except (OSError, KeyError, TypeError, ValueError) as error:
            reply["error"] = f"{type(error).__name__}: {error}"
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self.control.sendall(json.dumps(reply).encode())

    def _make(self, request: dict[str, Any], descriptors: list[int]) -> None:
        layers, bounds = Layers(**request["layers"]), Bounds(**request["bounds"], others=self.others)
        limit, output = request["limit"], request["output"]
        if request["do"] == "pair":
            judge_status, verdicts, candidate_status = descriptors
            mine, yours = socket.socketpair()
            with mine, yours:
                work = lambda: answer(mine.fileno(), limit, output)  # noqa: E731 - reads as its twin below
                self._fork(layers, bounds, candidate_status, (mine.fileno(),), work)
                work = lambda: decide(yours.fileno(), verdicts)  # noqa: E731
                self._fork(layers, bounds, judge_status, (yours.fileno(), verdicts), work)
        elif request["do"] == "program":
            status, source, *streams = descriptors
            self._fork(layers, bounds, status, (source, *streams), lambda: run(source, streams))
        else:
            status = descriptors[0]
            self._fork(layers, bounds, status, (), lambda: probe.check(request["checks"]))

    def _fork(
        self, layers: Layers, bounds: Bounds, status: int, keep: tuple[int, ...], work: Callable[[], int]
    ) -> None:
        directory = ""
        if not layers.view:
            directory = tempfile.mkdtemp(prefix="grpo-sandbox-")
            self.directories.append(directory)
        order = Order(layers, bounds, status, keep, work, directory, self.sources)
        server = os.getpid()
        keeper = os.fork()
        if keeper == 0:
            confine.keep(order, server)
        self.keepers.append(keeper)

    def end(self) -> None:
        """Kill and reap every worker and all it left, and remove its directory."""
        confine.kill_all(self.keepers)
        self.keepers.clear()
        for directory in self.directories:
            remove(Path(directory))
        self.directories.clear()


def answer(descriptor: int, limit: int, output: int) -> int:
    candidate.answer(descriptor, limit, output)
    return 0


def decide(descriptor: int, verdicts: int) -> int:
    with open(verdicts, "r+b", buffering=0, closefd=False) as raw, contextlib.ExitStack() as stack:
        judge.judge(descriptor, stack.enter_context(open(verdicts, "rb", closefd=False)), raw)
    return 0


def run(source: int, streams: list[int]) -> int:
    text = candidate.read_source(source)
    for place, descriptor in enumerate(streams):
        os.dup2(descriptor, place)
    confine.close_others([])
    return candidate.run(text)


def remove(directory: Path) -> None:
    """Remove a tree, whatever permissions its owner gave it."""

    def open_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(Path(path).parent, 0o700)  # noqa: PTH101
            os.chmod(path, 0o700)  # noqa: PTH101
            function(path)

    shutil.rmtree(directory, onerror=open_and_retry)
    shutil.rmtree(directory, ignore_errors=True)


def processes_of(user: int) -> int:
    """How many processes and threads a user has, for a limit that counts them all."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/task"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == user:
                count += len(list(entry.iterdir()))
    return count


def main(descriptor: int) -> NoReturn:
    """Prepare once what every worker inherits, then serve."""
    sys.path[:] = [path for path in sys.path if (path and "python" in Path(path).name) or path.endswith("lib-dynload")]
    sys.path_importer_cache.clear()
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    sys.modules["pytest"] = suites.pytest_names()
    for place in (1, 2):
        os.dup2(0, place)
    os.umask(0o077)
    threading.stack_size(THREAD_STACK_BYTES)
    if confine.LINUX:
        confine.ADDRESS_SPACE = confine._measure()
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    control = socket.socket(fileno=descriptor)
    gc.collect()
    gc.freeze()
    control.sendall(b'{"error": ""}')
    Server(control).serve()
    os._exit(0)
