"""Tests in the manner of pytest and unittest: what a text defines and does not call is run all the same.

Without this, a text such as `def test_add(): assert add(1, 2) == 3` would pass whatever `add` does. Of pytest's own
names tests have the few below; the package itself is not in reach of the sandbox.
"""

import ast
import asyncio
import contextlib
import functools
import inspect
import math
import re
import traceback
import types
import unittest
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

from pipelines.sandbox.handles import Handle

FILE = "<test>"
"""What frames of a test say they are from."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.With, ast.AsyncWith)
ASSERTS = ("assert", "raises")
RELATIVE, ABSOLUTE = 1e-6, 1e-12


def later(*_: Any, **__: Any) -> None:
    """In the place of `unittest.main`, which would end the process: cases are run when the text has come to its end."""


def run_uncalled(tree: ast.Module, names: Mapping[str, Any]) -> None:
    """Run the tests that a text defines and mentions nowhere; raises what the first that fails raises.

    A text of which nothing runs, though it holds an assert, would pass whatever the solution does: it fails.
    """
    body = [node for node in tree.body if not _is_guard(node)]
    nodes = [node for statement in body for node in ast.walk(statement)]
    mentioned = {name for statement in body for name in _mentions(statement)}
    tests = {node.name for node in nodes if isinstance(node, FUNCTIONS) and node.name.startswith("test")}
    ran = 0
    for name, value in list(names.items()):
        if isinstance(value, Handle):
            if name in tests:
                raise AssertionError(f"the solution decorates {name!r}, and may run it or not")
        elif getattr(value, "__module__", None) == "__test__":
            ran += _run(name, value, called=name in mentioned)
    if not ran and not any(map(_acts, body)) and any(map(is_assert, ast.walk(tree))):
        raise AssertionError("the test defines things and runs none of them")


def is_assert(node: ast.AST) -> bool:
    """`assert`, `self.assertEqual` and their like, `pytest.raises`."""
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr.startswith(ASSERTS))


def _mentions(statement: ast.stmt) -> set[str]:
    """Names that it reads, other than the one it defines."""
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)} - {getattr(statement, "name", "")}


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _acts(node: ast.AST) -> bool:
    """Whether something is called or asserted, less what functions would do."""
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        return False
    return isinstance(node, ast.Call | ast.Assert) or any(map(_acts, ast.iter_child_nodes(node)))


def _run(name: str, value: Any, *, called: bool) -> int:
    """Run it if it is a test or holds tests, and the text does not call it; how many there were."""
    if isinstance(value, type) and issubclass(value, unittest.TestCase):
        return _run_case(value)
    tests: list[Callable[[], Any]] = []
    if isinstance(value, type) and not called:
        words = [word for word in dir(value) if word.startswith("test") and callable(getattr(value, word))]
        tests = [lambda word=word: getattr(value(), word)() for word in words]
    elif name.startswith("test") and callable(value) and not called:
        tests = [value]
    for test in tests:
        _call(test)
    return len(tests)


def _call(test: Callable[[], Any]) -> None:
    result = test()
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if result is False or inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise AssertionError(f"the test gave {result!r}")


def _run_case(case: type[unittest.TestCase]) -> int:
    result = unittest.TestResult()
    words = unittest.defaultTestLoader.getTestCaseNames(case)
    late = [word for word in words if inspect.iscoroutinefunction(getattr(case, word))]
    if late and not issubclass(case, unittest.IsolatedAsyncioTestCase):
        raise AssertionError(f"a TestCase does not await {late[0]!r}")
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    for _, trace in (*result.failures, *result.errors):
        raise AssertionError(trace.strip().rpartition("\n")[2])
    return result.testsRun


def kept_from_assert(tree: ast.Module, error: BaseException, left: int) -> bool:
    """Whether an error that leaves the `with` block of line `left` is why the test skips an assert.

    The assert is behind the line that raised, in that block or in a function that the block called.
    """
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
    for place, line in enumerate(lines):
        for node in ast.walk(tree):
            around = isinstance(node, (*FUNCTIONS, *BLOCKS)) if place else _begins(node, left)
            if around and _asserts(node, line):
                return True
    return isinstance(error, AssertionError)


def _begins(node: ast.AST, line: int) -> bool:
    """Whether it is a `with` block whose head stands in this line."""
    if not isinstance(node, BLOCKS):
        return False
    return node.lineno <= line <= (node.items[-1].context_expr.end_lineno or 0)


def _asserts(node: ast.AST, line: int) -> bool:
    """Whether the line is inside, and an assert in it or behind."""
    inner = [getattr(child, "lineno", 0) for child in ast.walk(node) if is_assert(child)]
    return cast("ast.stmt", node).lineno <= line <= max(inner, default=0)


class Raises(contextlib.AbstractContextManager["Raises"]):
    """`pytest.raises`: the block must raise an exception of these kinds, whose text `match` is found in."""

    def __init__(self, kinds: Any, *call: Any, match: str | None = None) -> None:
        self.kinds, self.match = kinds, match
        self.value: BaseException | None = None
        if call:
            with self:
                call[0](*call[1:])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if kind is None:
            raise AssertionError(f"did not raise {self.kinds}")
        if not issubclass(kind, self.kinds):
            return False
        self.value = error
        if self.match is not None and not re.search(self.match, str(error)):
            raise AssertionError(f"{str(error)!r} does not match {self.match!r}")
        return True


class Approx:
    """`pytest.approx`: equal to numbers within 1e-6 of it, and to lists and mappings of such."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:  # noqa: A002 - its name
        self.expected, self.rel, self.abs = expected, rel, abs

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def __eq__(self, actual: object) -> bool:
        return self._near(actual, self.expected)

    def _near(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, Mapping) and isinstance(actual, Mapping):
            wanted, got = cast("Mapping[Any, Any]", expected), cast("Mapping[Any, Any]", actual)
            return wanted.keys() == got.keys() and all(self._near(got[key], wanted[key]) for key in wanted)
        if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
            pair = cast("list[Any]", actual), cast("list[Any]", expected)
            return len(pair[0]) == len(pair[1]) and all(map(self._near, *pair))
        if not all(isinstance(item, int | float | complex | Decimal | Fraction) for item in (actual, expected)):
            return bool(actual == expected)
        return actual == expected or abs(actual - expected) <= self._room(float(abs(cast("float", expected))))

    def _room(self, size: float) -> float:
        if math.isinf(size):
            return 0.0
        relative = RELATIVE if self.rel is None and self.abs is None else self.rel or 0.0
        return max(relative * size, ABSOLUTE if self.abs is None else self.abs)


class Mark:
    """`pytest.mark`: `parametrize` runs a test once a row; other marks, and fixtures, change nothing."""

    def parametrize(self, names: str | Sequence[str], rows: Sequence[Any], **_: Any) -> Any:
        words = [word.strip() for word in names.split(",") if word.strip()] if isinstance(names, str) else list(names)
        given_rows = [[row] if isinstance(names, str) and len(words) == 1 else row for row in rows]
        if not given_rows:
            raise ValueError("parametrize without a row")

        def decorate(test: Callable[..., Any]) -> Callable[..., None]:
            if isinstance(test, type):
                raise TypeError("parametrize is for functions")

            @functools.wraps(test)
            def each(*given: Any, **more: Any) -> None:
                for row in given_rows:
                    _call(lambda row=row: test(*given, **more, **dict(zip(words, row, strict=True))))

            return each

        return decorate

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **_: given[0] if given and callable(given[0]) else lambda test: test


def pytest_names() -> types.ModuleType:
    """What `import pytest` gives."""
    module = types.ModuleType("pytest")
    vars(module).update(raises=Raises, approx=Approx, mark=Mark(), fixture=Mark().fixture)
    return module
