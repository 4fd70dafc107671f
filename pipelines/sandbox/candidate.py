"""The process that runs the solution, and nothing else: no test and no verdict ever comes here.

It loads the solution as a module called `solution`, or runs it as `__main__`, and then does what the judge asks over
one descriptor. Code that breaks out of this file finds what it had anyway: its own process.
"""

import __future__

import ast
import asyncio
import atexit
import builtins
import copy
import io
import json
import os
import random
import site
import sys
import threading
import types
from typing import Any

from pipelines.sandbox.entry import entry
from pipelines.sandbox.objects import CHANGEABLE, Objects
from pipelines.sandbox.peer import Caught, Peer

NAME = "solution"
MOST_PRINTED = 1 << 18
RECURSION = 1060
"""Python's default and the frames of ours below the solution."""


class Printed(io.RawIOBase):
    """Standard output while the judge asks: counted, kept up to a limit, handed over with each answer."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.count += len(data)
        if len(self.kept) < MOST_PRINTED:
            self.kept += bytes(data)[:MOST_PRINTED]
        return len(data)

    def take(self) -> str:
        text = self.kept.decode("utf-8", "replace")
        self.kept.clear()
        self.count = 0
        return text


class Asked(io.TextIOBase):
    """Standard input while the judge asks: what the test has put in the place of its own, else nothing."""

    def __init__(self, side: "CandidateSide") -> None:
        self._side = side

    def readable(self) -> bool:
        return True

    def readline(self, _: int = -1, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self._side.peer.ask("line"))

    def read(self, _: int | None = -1, /) -> str:
        return "".join(self)

    @property
    def buffer(self) -> io.BytesIO:
        return io.BytesIO(self.read().encode())


class CandidateSide(Objects):
    """What the judge may have done: everything, to the solution's own objects. `output`: bytes that one may print."""

    def __init__(self, output: int) -> None:
        super().__init__()
        self.most = output
        self.output = Printed()
        self.stream = io.TextIOWrapper(io.BufferedWriter(self.output), encoding="utf-8", errors="replace")
        self.names: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._actions = {
            "load": self._load, "global": lambda name: self.names[name], "get": getattr, "set": setattr,
            "del": delattr, "call": lambda target, arguments, keywords: target(*arguments, **keywords),
            "special": lambda target, word, *more: getattr(type(target), word)(target, *more),
            "await": self._await, "await special": self._await_special, "isinstance": isinstance,
            "subclass": issubclass, "copy": copy.copy, "deepcopy": copy.deepcopy, "plain": _plain,
            "send": lambda target, value: next(target) if value is None else target.send(value),
            "throw": lambda target, error: target.throw(error), "close": lambda target: target.close(),
            "entry": lambda: entry(self.names, NAME), "seed": random.seed,
        }  # fmt: skip

    def perform(self, action: str, arguments: list[Any]) -> Any:
        result = self._actions[action](*arguments)
        self._flush()
        if self.output.count > self.most:
            raise OSError(f"printed more than {self.most >> 10} KiB")
        return result

    def printed(self) -> str:
        self._flush()
        return self.output.take()

    def _flush(self) -> None:
        with Caught():
            self.stream.flush()

    def hear(self, text: str) -> None:
        """Print it here too, for a test that reads what is printed."""
        output = sys.stdout
        output.write(text)

    def _load(self, source: str) -> list[list[Any]]:
        """Run the solution's module; `[name, defined here, callable]` of each public name, in order."""
        sys.stdin, sys.stdout = Asked(self), self.stream
        self.names = execute(source, NAME, f"<{NAME}>")
        public = [(name, value) for name, value in list(self.names.items()) if not name.startswith("__")]
        return [[name, getattr(value, "__module__", None) == NAME, callable(value)] for name, value in public]

    def _await(self, target: Any) -> Any:
        async def finish() -> Any:
            return await target

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(finish())

    def _await_special(self, target: Any, word: str, *arguments: Any) -> Any:
        return self._await(getattr(type(target), word)(target, *arguments))


def answer(descriptor: int, limit: int, output: int) -> None:
    """Be the candidate of a judge until it hangs up. `limit`: bytes of a value; `output`: of what is printed."""
    sys.setrecursionlimit(RECURSION)
    side = CandidateSide(output)
    side.peer = Peer(descriptor, side, limit)
    with Caught():
        side.peer.serve()


def run(source: str) -> int:
    """Be a program: the solution as `__main__` on standard input and output; the exit status."""
    sys.setrecursionlimit(RECURSION)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - ends with the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = ["solution.py"]
    status = 0
    stdout = sys.stdout
    with Caught() as caught:
        execute(source, "__main__", "solution.py")
    if caught.error is not None:
        status = _status(caught.error)
    with Caught() as late:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        vars(sys.modules["__main__"]).clear()  # files that it left open are written to their ends
        if not stdout.closed:
            stdout.flush()
    return status or int(late.error is not None)


def execute(source: str, name: str, file: str) -> dict[str, Any]:
    """Run the text as a module of this name; the names it defines.

    A name that is missing and that only annotations mention, as `List` in an answer that was written for a site which
    brings it along, is no error: then annotations are not evaluated.
    """
    site.setquit()
    try:
        return _execute(source, name, file, 0)
    except NameError as error:
        if not only_annotates(source, error.name):
            raise
    return _execute(source, name, file, __future__.annotations.compiler_flag)


def _execute(source: str, name: str, file: str, flags: int) -> dict[str, Any]:
    module = sys.modules[name] = types.ModuleType(name)
    names = vars(module)
    names |= {"__builtins__": builtins, "__file__": file}
    exec(compile(source, file, "exec", flags, dont_inherit=True, optimize=0), names)  # noqa: S102 - its purpose
    return names


def only_annotates(source: str, name: str | None) -> bool:
    """Whether a name appears in annotations, and nowhere else."""
    nodes = list(ast.walk(ast.parse(source)))
    notes = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
    inside = {id(node) for note in notes if note for node in ast.walk(note)}
    places = [id(node) in inside for node in nodes if isinstance(node, ast.Name) and node.id == name]
    return bool(places) and all(places)


def _plain(target: Any) -> Any:
    """The content of a list, dict, set or bytearray of a derived class."""
    for base in CHANGEABLE:
        if isinstance(target, base):
            return (
                {key: dict.__getitem__(target, key) for key in dict.__iter__(target)}
                if base is dict
                else base(base.__iter__(target))
            )
    raise TypeError("no container")


def _status(error: BaseException) -> int:
    """What the interpreter would exit with, and what it would say on standard error."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or isinstance(code, int):
            return (code or 0) & 255
        os.write(2, str(code).encode("utf-8", "replace")[:500])
        return 1
    os.write(2, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:500])
    return 1


def read_source(descriptor: int) -> str:
    """The solution, from the start of a file that nobody else will read."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, encoding="utf-8", closefd=True) as stream:
        return str(json.load(stream))
