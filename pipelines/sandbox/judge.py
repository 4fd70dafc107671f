"""The process that runs the tests against stand-ins for the solution's names, and holds the verdicts.

Values come over the wire as plain data and are compared here, with this process's own `==`. A name of the solution
that shadows a builtin is believed only if it is what the tests are about, and modules are this process's own.
"""

import ast
import asyncio
import builtins
import importlib
import io
import json
import math
import queue
import random
import re
import sys
import threading
import types
import unittest
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from unittest import mock

from pipelines.sandbox import handles, suites, wire
from pipelines.sandbox.handles import ClassHandle
from pipelines.sandbox.objects import Objects
from pipelines.sandbox.peer import Caught, Gone, Peer

MODULES = frozenset({
    "abc", "asyncio", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "random", "re",
    "statistics", "string", "sys", "textwrap", "time", "types", "typing", "unicodedata", "collections.abc",
})  # fmt: skip
"""Modules that a test may use because the solution imports them; each is the judge's own."""

FOREIGN = frozenset({"np", "numpy", "pd", "pandas", "torch", "scipy", "sympy", "pytest", "unittest"})
"""Names that tests know as packages: whatever the solution calls so, it is not what compares its results."""

STANDARD = {
    name: module
    for module, names in {
        "collections": "Counter OrderedDict defaultdict deque namedtuple",
        "math": "ceil floor isclose isnan sqrt",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "copy": "deepcopy",
        "typing": "Any Callable Dict Iterable List Optional Sequence Set Tuple Union",
    }.items()
    for name in names.split()
}
"""Names that tests use because solutions import them, and where the judge has its own."""

OPEN = frozenset({
    io.StringIO, io.BytesIO, queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue, random.Random,
    re.Match, re.Pattern,
})  # fmt: skip
"""Classes of the library whose objects, given by a test, have no attribute that leads further; none can be set."""

SAID_OF_FUNCTIONS = frozenset({"__name__", "__qualname__", "__doc__"})
"""What a decorator copies from a function of the test."""

RECURSION = 4000
LONGEST_REASON = 300


class JudgeSide(Objects):
    """What the solution may have done with a test's objects: call them, iterate, and use public attributes."""

    strict = True

    def __init__(self, trusted: frozenset[str]) -> None:
        super().__init__()
        self.trusted = trusted
        self.quit = ""
        self.tree = ast.Module([], [])
        self._input, self._stdin = builtins.input, sys.stdin

    def hear(self, text: str) -> None:
        """Print it here too, for a test that reads what is printed."""
        output = sys.stdout
        output.write(text)

    def needs(self, error: BaseException) -> bool:
        frame = sys._getframe()
        while frame and frame.f_code.co_filename != suites.FILE:
            frame = frame.f_back
        return suites.kept_from_assert(self.tree, error, frame.f_lineno if frame else 0)

    def encode_error(self, error: BaseException, encoder: wire.Encoder) -> Any:
        """A failed assert goes without its text, which may hold what was expected."""
        return super().encode_error(AssertionError() if isinstance(error, AssertionError) else error, encoder)

    def quits(self, text: str) -> BaseException:
        self.quit = text or "ended itself"
        return super().quits(text)

    def module(self, name: Any) -> Any:
        if name in MODULES:
            return importlib.import_module(name)
        raise TypeError(f"the solution's module {str(name)[:50]!r} is not given to tests")

    def _line(self) -> str:
        """A line of input for the solution, if the test has put something in the place of `input` or standard input."""
        if builtins.input is not self._input:
            return f"{builtins.input()}\n"
        return "" if sys.stdin is self._stdin else sys.stdin.readline()

    def perform(self, action: str, arguments: list[Any]) -> Any:
        if action == "line":
            return self._line()
        target, *more = arguments
        if action == "call" and callable(target):
            return target(*more[0], **more[1])
        if action == "special" and more[0] in handles.SPECIAL:
            return getattr(type(target), more[0])(target, *more[1:])
        if action == "send" and isinstance(target, Iterator):
            return next(target) if more[0] is None else target.send(more[0])  # pyright: ignore[reportAttributeAccessIssue]
        if action in ("await", "await special"):
            return _finish(target if action == "await" else getattr(type(target), more[0])(target, *more[1:]))
        if action in ("get", "set", "del") and _may_touch(target, more[0], action):
            return {"get": getattr, "set": setattr, "del": delattr}[action](target, *more)
        if action == "get":
            raise AttributeError(f"{type(target).__name__!r} object has no attribute {str(more[0])[:50]!r}")
        if action == "isinstance":
            return isinstance(target, more[0])
        raise TypeError(f"{action!r} is not done to an object of the test")


def _may_touch(target: Any, name: Any, action: str) -> bool:
    """Public attributes of what the test defined and of `OPEN` objects; no road to frames, globals or modules.

    A mock gives the attributes that it makes up, and keeps its own: what it was called with, and what it asserts.
    """
    if isinstance(target, types.FunctionType) and name in SAID_OF_FUNCTIONS:
        return action == "get"
    if not isinstance(name, str) or name.startswith("_") or isinstance(target, types.ModuleType):
        return False
    if isinstance(target, mock.NonCallableMock):
        return action == "get" and name not in dir(mock.Mock) and not name.startswith("assert")
    kind = target if isinstance(target, type) else type(target)
    return kind.__module__ == "__test__" or kind is types.SimpleNamespace or (kind in OPEN and action == "get")


def _finish(awaitable: Any) -> Any:
    """Run something awaitable of the test to its end, in a loop of its own: another may be running here."""
    results: list[Any] = []

    async def wait() -> Any:
        return await awaitable

    def run() -> None:
        with Caught() as caught:
            results.append(asyncio.run(wait()))
        if caught.error:
            results.append(caught.error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[-1], BaseException):
        raise results[-1]
    return results[-1]


class Judge:
    """One solution over there, and tests to be run against it."""

    def __init__(self, descriptor: int, limit: int, tests: Sequence[dict[str, Any]]) -> None:
        self.tests = tests
        used = [names_in(test.get("code", "")) for test in tests]
        self.side = JudgeSide(frozenset(name for names in used for name in names if name[:1].isupper()))
        self.peer = self.side.peer = Peer(descriptor, self.side, limit)
        self.public: dict[str, tuple[bool, bool]] = {}
        self._entry: str | None = None
        self._seed, random.seed = random.seed, self._seed_both

    def load(self, source: str) -> str:
        """Have the solution run its module; empty, or why it did not come to its end."""
        sys.stdout = io.StringIO()
        with Caught() as caught, _Ended():
            found = self.peer.ask("load", source)
            self.public = {str(name): (bool(here), bool(can)) for name, here, can in found}
            module = types.ModuleType("solution")
            module.__dict__.update({"__getattr__": self._attribute, "__all__": []})  # tests see its names anyway
            sys.modules["solution"] = module
        return self._trouble(caught.error) if caught.error or self.peer.gone or self.side.quit else ""

    def run(self, test: dict[str, Any]) -> str:
        """One test; empty if it passed."""
        self.side.quit, self.side.tree = "", ast.parse(test.get("code", ""))
        sys.stdout = io.StringIO()
        with Caught() as caught, _Ended():
            getattr(self, f"_run_{test['kind']}")(test)
        if caught.error or self.peer.gone or self.side.quit:
            return self._trouble(caught.error, test.get("code", ""))
        return ""

    def _run_assert(self, test: dict[str, Any]) -> None:
        space = self._namespace(test["code"])
        exec(_compiled(test["code"]), space)  # noqa: S102 - tests are code
        suites.run_uncalled(self.side.tree, space)

    def _run_check(self, test: dict[str, Any]) -> None:
        space = self._namespace(test["code"])
        exec(_compiled(test["code"]), space)  # noqa: S102
        space["check"](self._function(test.get("entry_point")))

    def _run_call(self, test: dict[str, Any]) -> None:
        function = self._function(test.get("function"))
        got = function(*test["arguments"], **test["keywords"])
        if not same(got, test["expected"]):
            raise AssertionError(f"returned {repr(got)[:120]}, expected {test['expected']!r}"[:250])

    def _function(self, name: str | None) -> Any:
        """A function by name, also as a method of a class `Solution`; the last one defined without a name."""
        name = name or self._last()
        if not name:
            raise NameError("the solution defines no function")
        if name not in self.public and "Solution" in self.public:
            return getattr(self._fetch("Solution")(), name.removeprefix("Solution()."))
        return self._fetch(name)

    def _last(self) -> str:
        """The function that is meant where no name is given."""
        if self._entry is None:
            self._entry = str(self.peer.ask("entry"))
        return self._entry

    def _seed_both(self, *arguments: Any, **keywords: Any) -> None:
        """`random.seed` of a test: what the solution draws is to repeat as well."""
        self._seed(*arguments, **keywords)
        self.peer.ask("seed", *arguments, *keywords.values())

    def _fetch(self, name: str) -> Any:
        if name not in self.public:
            raise NameError(f"the solution does not define {name!r}")
        value = self.peer.ask("global", name)
        if isinstance(value, ClassHandle):
            value._link_.asked += 1
            value._link_.makes = name in self.side.trusted
        return value

    def _attribute(self, name: str) -> Any:
        """For `from solution import name` in a test."""
        if name not in self.public:
            raise AttributeError(f"the solution does not define {name!r}")
        return self._fetch(name)

    def _namespace(self, code: str) -> "Space":
        """What a test sees: builtins, the solution's names that it uses, and modules of our own."""
        used = names_in(code)
        space = Space(self._fetch, {name for name in used if self._believed(name, used)})
        space.update({"__name__": "__test__", "__builtins__": builtins})
        for name in used:
            if name in MODULES and (name not in self.public or only_attributes(code, name)):
                space[name] = importlib.import_module(name)
            elif name in STANDARD and not self._believed(name, used):
                space[name] = getattr(importlib.import_module(STANDARD[name]), name)
        for name in space.names & read_by_classes(code):  # Python looks for these in a plain dict
            space[name] = self._fetch(name)
        return space

    def _believed(self, name: str, used: Sequence[str]) -> bool:
        """Whether the solution's value is used: not for a given name, unless the tests are about just that."""
        if name not in self.public or name in FOREIGN or not is_given(name):
            return name in self.public and name not in FOREIGN
        others = [test for test in self.tests if test["kind"] != "assert"]
        named = {test.get("entry_point") or test.get("function") for test in others}
        if named - {None} or any(test["kind"] == "check" for test in others):
            return name in named
        texts = [test["code"] for test in self.tests if test["kind"] == "assert"]
        everywhere = [names_in(text) for text in texts]
        missing = {one for names in everywhere for one in names if not is_given(one) and one not in MODULES}
        mine = [one for one in used if one in self.public and is_given(one)]
        shared = [one for one in mine if all(one in names for names in everywhere)] or mine
        return not missing and name == shared[0 if any("def check(" in text for text in texts) else -1]

    def _trouble(self, error: BaseException | None, code: str = "") -> str:
        """Why a test failed, in one short line."""
        if self.side.quit:
            return f"the solution ended the process: {self.side.quit}"[:LONGEST_REASON]
        if isinstance(error, Gone) or self.peer.gone:
            return "the solution's process died, or broke off"
        place = _place(error, code)
        with Caught():
            return f"{place}{type(error).__name__}: {error}".rstrip(": ")[:LONGEST_REASON]
        return f"{place}{type(error).__name__}"


class Space(dict[str, Any]):
    """Globals of a test. The solution's names are fetched when they are read, since they may change meanwhile."""

    def __init__(self, fetch: Callable[[str], Any], names: set[str]) -> None:
        super().__init__()
        self._fetch, self.names = fetch, names

    def __missing__(self, name: str) -> Any:
        if name in self.names:
            return self._fetch(name)
        raise KeyError(name)


class _Ended:
    """Lets `Gone` be caught: around a test it is a result like any other."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Gone):
            raise RuntimeError("gone") from None


def judge(descriptor: int, orders: Any, verdicts: Any) -> None:
    """Read the order, load, run each test, and say what came of it, line by line."""
    order = json.loads(orders.readline())
    sys.setrecursionlimit(RECURSION)
    warnings.filterwarnings("error", message="assertion is always true", category=SyntaxWarning)
    unittest.main = suites.later  # pyright: ignore[reportAttributeAccessIssue]
    one = Judge(descriptor, order["limit"], order["tests"])
    trouble = one.load(order["source"])
    _say(verdicts, {"loaded": not trouble, "reason": trouble, "gone": one.peer.gone})
    for number, test in enumerate(order["tests"] if not trouble else ()):
        reason = one.run(test)
        _say(verdicts, {"test": number, "passed": not reason, "reason": reason, "gone": one.peer.gone})
        if one.peer.gone:
            return


def _say(verdicts: Any, message: dict[str, Any]) -> None:
    verdicts.write(json.dumps(message).encode() + b"\n")


def _compiled(code: str) -> types.CodeType:
    return compile(code, suites.FILE, "exec", dont_inherit=True, optimize=0)


def is_given(name: str) -> bool:
    """Whether a test has a meaning for this name without the solution."""
    return hasattr(builtins, name) or name in STANDARD


def names_in(code: str) -> list[str]:
    """Names that a piece of test code reads and does not define itself, in the order in which calls would need them."""
    tree = ast.parse(code)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
    return list(dict.fromkeys(node.id for node in nodes if node.id not in defined))


def read_by_classes(code: str) -> set[str]:
    """Names that the bodies of classes read, less what their methods do."""
    classes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ClassDef)]
    rest = [node for kind in classes for node in kind.body if not isinstance(node, suites.FUNCTIONS)]
    return {node.id for one in rest for node in ast.walk(one) if isinstance(node, ast.Name)}


def only_attributes(code: str, name: str) -> bool:
    """Whether a name appears only as `name.something`: then it is a module, not a function of that name."""
    tree = ast.parse(code)
    dotted = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return all(id(node) in dotted for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)


def same(got: Any, expected: Any) -> bool:
    """Equal, with lists for tuples and 1e-9 for floats, as the expected value comes from JSON."""
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[key], expected[key]) for key in expected)
    if {type(got), type(expected)} in ({float}, {int, float}):
        one, other = cast("float", got), cast("float", expected)
        return one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(got == expected)


def _place(error: BaseException | None, code: str) -> str:
    """The line of the test at which it failed."""
    trace = error.__traceback__ if error else None
    line = 0
    while trace:
        if trace.tb_frame.f_code.co_filename == suites.FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    lines = code.splitlines()
    return f"{lines[line - 1].strip()[:150]}: " if 0 < line <= len(lines) else ""
