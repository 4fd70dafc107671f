"""Honest answers by how they are written: coroutines, exceptions, odd names, warnings, annotations."""

from sandbox_corpus import Entry, honest

ADD = "def add(a, b):\n    return a + b"
ADDS = ["assert add(1, 2) == 3", "assert add(-4, 9) == 5"]

IDIOMS: list[Entry] = [
    honest(
        "language_coroutine",
        "a coroutine function that the test runs",
        "import asyncio\nasync def later(n):\n    await asyncio.sleep(0)\n    return n + 1",
        ["import asyncio\nassert asyncio.run(later(1)) == 2"],
    ),
    honest(
        "language_asyncio_inside",
        "runs an event loop inside",
        "import asyncio\nasync def one(n):\n    await asyncio.sleep(0.001)\n    return n * n\n"
        """
def squares(values):
    async def main():
        return await asyncio.gather(*map(one, values))
    return asyncio.run(main())
""",
        ["assert squares([1, 2, 3]) == [1, 4, 9]"],
    ),
    honest(
        "language_threads",
        "uses a few threads",
        """
from concurrent.futures import ThreadPoolExecutor
def squares(values):
    with ThreadPoolExecutor(2) as pool:

"""
        "        return list(pool.map(lambda v: v * v, values))",
        ["assert squares([1, 2, 3]) == [1, 4, 9]"],
    ),
    honest(
        "language_raises",
        "raises what the test expects",
        """
class TooSmall(ValueError):
    pass
def positive(n):
    if n < 0:
        raise TooSmall('negative')
    return n
""",
        [
            "assert positive(1) == 1",
            """\
try:
    positive(-1)
    assert False
except ValueError as error:
    assert 'negative' in str(error)
""",
        ],
    ),
    honest(
        "language_called_sum",
        "a solution that bears a builtin's name",
        "def sum(a, b):\n    return a + b",
        ["assert sum(1, 2) == 3", "assert sum(-1, 1) == 0"],
    ),
    honest(
        "language_called_names",
        "solutions that bear the names that a judge may use",
        "def check(x):\n    return x + 1\ndef run(x):\n    return check(x)\ndef test(x):\n    return run(x) * 2\n"
        "def main(x):\n    return test(x)\ndef solution(x):\n    return main(x)\ndef candidate(x):\n    return x",
        ["assert check(1) == 2", "assert test(1) == 4", "assert solution(2) == 6", "assert candidate(3) == 3"],
    ),
    honest(
        "language_called_print",
        "defines names that shadow what a runner needs",
        """
def list(x):
    return x
def open(x):
    return x + 1
json = sys = os = 5
def print(x):
    return x * 2
""",
        ["assert open(1) == 2", "assert print(4) == 8"],
    ),
    honest(
        "language_prints",
        "prints on the way",
        """
print('loading')
def add(a, b):
    print(a, b)
    return a + b
""",
        ADDS,
    ),
    honest("language_lambda", "a lambda", "add = lambda a, b: a + b", ADDS),
    honest("language_builtin_alias", "a function of the library under its name", "from operator import add", ADDS),
    honest(
        "language_partial",
        "an object that can be called",
        """
from functools import partial
from operator import add as plus
class Adder:
    def __call__(self, a, b):
        return plus(a, b)
add = Adder()
""",
        ADDS,
    ),
    honest(
        "language_cache",
        "a cached function",
        """
from functools import lru_cache
@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
""",
        ["assert fib(80) == 23416728348467685"],
    ),
    honest(
        "language_global_state",
        "a constant and a table at module level",
        """
TABLE = {n: n * n for n in range(10)}
def square(n):
    return TABLE[n]
""",
        ["assert square(9) == 81"],
    ),
    honest(
        "language_keywords",
        "keyword, default, star and keyword-only arguments",
        "def join(*parts, sep='-', end=''):\n    return sep.join(parts) + end",
        [
            "assert join('a', 'b') == 'a-b'",
            "assert join('a', 'b', sep='+', end='!') == 'a+b!'",
            "assert join(*['x']) == 'x'",
        ],
    ),
    honest(
        "language_enum",
        "returns members of an Enum",
        """
from enum import Enum, IntEnum
class Colour(Enum):
    RED = 1
class Level(IntEnum):
    LOW = 3
def colour():
    return Colour.RED
def level():
    return Level.LOW
""",
        ["assert colour() == Colour.RED", "assert colour().value == 1", "assert level() == 3"],
    ),
    honest(
        "language_own_equality",
        "an own class that rightly defines what equals what",
        """
class Version:
    def __init__(self, text):
        self.parts = [int(p) for p in text.split('.')]
    def __eq__(self, other):
        return self.parts == other.parts
    def __lt__(self, other):
        return self.parts < other.parts
""",
        [
            "assert Version('1.2') == Version('1.02')",
            "assert not Version('1.2') == Version('1.3')",
            "assert Version('1.9') < Version('1.10')",
        ],
    ),
    honest(
        "language_tree",
        "a linked structure that the test builds",
        """
class Node:
    def __init__(self, value, left=None, right=None):
        self.value, self.left, self.right = value, left, right
def total(node):
    return 0 if node is None else node.value + total(node.left) + total(node.right)
""",
        ["assert total(Node(1, Node(2), Node(3, Node(4)))) == 10", "assert total(None) == 0"],
    ),
    honest(
        "language_context_manager",
        "a context manager",
        """
from contextlib import contextmanager
log = []
@contextmanager
def step(name):
    log.append('in ' + name)
    yield name
    log.append('out ' + name)
""",
        [
            """\
with step('a') as name:
    assert name == 'a'
assert log == ['in a', 'out a']
"""
        ],
    ),
    honest(
        "language_warnings",
        "code at which Python warns",
        """
import re
def digits(text):
    return re.findall('\\d+', text)
assert (1, 'always true') is not 5
""",
        ["assert digits('a1b22') == ['1', '22']"],
    ),
    honest(
        "language_annotations",
        "annotations with and without the future",
        """
from __future__ import annotations
from typing import List, Optional
def first(values: List[int] | None = None) -> Optional[int]:
    return values[0] if values else None
""",
        ["assert first([5]) == 5", "assert first() is None"],
    ),
    honest(
        "language_unicode_names",
        "names beyond ASCII",
        "def gr\u00f6\u00dfe(\u503c):\n    return len(\u503c)",
        ["assert gr\u00f6\u00dfe('\u4f60\u597d') == 2"],
    ),
    honest(
        "language_match",
        "structural pattern matching",
        """
def kind(value):
    match value:
        case [x, *_]:
            return 'list'
        case {'a': _}:
            return 'dict'
        case _:
            return 'other'
""",
        ["assert kind([1]) == 'list'", "assert kind({'a': 1}) == 'dict'", "assert kind(0) == 'other'"],
    ),
]
