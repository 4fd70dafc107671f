"""Idioms of answers and of their tests that need both sides of the sandbox to play along."""

import pytest

from pipelines.rewards.code import score_code

GENERATOR = """
log = []
def f():
    try:
        yield 1
    except KeyError:
        yield 2
    finally:
        log.append(0)
"""
MANAGER = """
import contextlib
@contextlib.contextmanager
def f():
    try:
        yield 1
    except KeyError:
        pass
"""
WRAPPER = """
import functools
def f(call):
    @functools.wraps(call)
    def inner(*arguments):
        return call(*arguments)
    return inner
"""
WRAPPED = """
@f
def g(x):
    'Doc.'
    return x
assert (g(3), g.__name__, g.__doc__) == (3, 'g', 'Doc.')
"""
GENERIC = """
from typing import Generic, TypeVar
T = TypeVar('T')
class Box(Generic[T]):
    'Holds.'
"""
CHAINED = """
def f():
    try:
        int('x')
    except ValueError as error:
        raise KeyError from error
"""
CAUSE = """
try:
    f()
    assert False
except KeyError as error:
    assert type(error.__cause__) is ValueError
"""
SHUFFLE = """
import random
def f(values, rng=random):
    rng.shuffle(values)
    return values
"""
SEEDED = """
import random
random.seed(5)
one = f(list(range(9)))
random.seed(5)
assert f(list(range(9))) == one
two = list(range(9))
random.Random(5).shuffle(two)
assert f(list(range(9)), random.Random(5)) == two
"""
TYPED = """
from unittest import mock
with mock.patch('builtins.input', return_value='b'):
    assert f() == 'B'
import io, sys
sys.stdin = io.StringIO('a\\n')
assert f() == 'A'
"""
POSTED = """
from unittest import mock
post = mock.Mock()
f(post)
post.send.assert_called_once_with(1, to='a')
"""
TOGETHER = """
import threading
def f(count):
    together = threading.Barrier(count)
    threads = [threading.Thread(target=together.wait) for _ in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return together.n_waiting
"""
NODE = """
class Node:
    def __init__(self, value):
        self.value, self.near, self.by = value, [], {}
    def __getitem__(self, key):
        return self.by.setdefault(key, [])
    def grow(self, value):
        self.near.append(Node(value))
def values(node):
    return [node.value, *(value for one in node.near for value in values(one))]
def grow(node):
    node.near.append(type(node)(5) if isinstance(node, Node) else node)
"""
LENT = """
root = Node(1)
root.near.append(Node(2))
root.near.append(Node(3))
root.near[0].near.append(Node(4))
assert values(root) == [1, 2, 4, 3]
root.grow(6)
root['a'].append(7)
root.by['b'] = {}
root.by['b'].update(c=8)
assert (root.by, values(root)) == ({'a': [7], 'b': {'c': 8}}, [1, 2, 4, 3, 6])
class Own:
    near = []
own = Own()
grow(own)
assert own.near == [own]
"""
FIELDS = """
from dataclasses import dataclass, field
@dataclass
class Item:
    name: str
    tags: list = field(default_factory=list)
"""
AS_DICT = """
import dataclasses
item = Item('a')
item.tags.append('b')
assert dataclasses.asdict(item) == {'name': 'a', 'tags': ['b']} and dataclasses.astuple(item) == ('a', ['b'])
assert [field.name for field in dataclasses.fields(Item)] == ['name', 'tags'] and dataclasses.is_dataclass(item)
"""


@pytest.mark.parametrize(
    ("code", "test"),
    [
        (FIELDS, AS_DICT),
        (NODE, LENT),
        (GENERATOR, "g = f()\nnext(g)\nassert g.throw(KeyError) == 2\ng.close()\nassert log == [0]"),
        (MANAGER, "with f() as one:\n    raise KeyError(one)"),
        (WRAPPER, WRAPPED),
        (GENERIC, "assert isinstance(Box[int](), Box) and Box.__doc__ == 'Holds.'"),
        (CHAINED, CAUSE),
        (SHUFFLE, SEEDED),
        ("def f(): return input('? ').upper()", TYPED),
        ("def f(post): post.send(1, to='a')", POSTED),
        (TOGETHER, "assert f(60) == 0"),
    ],
    ids=["fields", "lent", "throw", "manager", "wraps", "generic", "cause", "seed", "input", "mock", "threads"],
)
def test_an_idiom_works_across_the_wire(code, test):
    assert score_code(f"```python\n{code}\n```", [test]) == 1.0


def test_a_lent_list_that_both_sides_changed_stays_as_its_owner_has_it():
    test = "root = Node(1)\nnear = root.near\nroot.grow(2)\nnear.append(Node(3))\nassert values(root) == [1, 2]"
    assert score_code(f"```python\n{NODE}\n```", [test]) == 1.0


UNCALLED = (
    "from unittest import mock\nm = mock.Mock()\ntry:\n    f(m)\nexcept AttributeError:\n    pass\nm.assert_called()"
)


@pytest.mark.parametrize(
    "body",
    ["m.assert_called = print", "m.configure_mock(**{'assert_called.side_effect': None})", "m.call_count"],
)
def test_what_a_mock_asserts_stays_with_the_test(body):
    assert score_code(f"def f(m):\n    {body}\n", [UNCALLED]) == 0.0


def test_the_methods_of_what_a_test_hands_over_stay_its_own():
    given = "import queue\nq = queue.Queue()\nq.put(1)\ntry:\n    f(q)\nexcept AttributeError:\n    pass\n"
    assert score_code("def f(q):\n    q.put(q.get() + 1)\n", [f"{given}assert q.get() == 2"]) == 1.0
    assert score_code("def f(q):\n    q.empty = lambda: True\n", [f"{given}assert q.empty()"]) == 0.0


HELPED = """
def solve(n):
    return helper(n)
def helper(n):
    return 2 * n
"""
WATCHED = """
def solve(n):
    return 2 * n
def main():
    print(solve(3))
def test_solve():
    assert solve(1) == 2
"""
METHODS = """
class Solution:
    def solve(self, n):
        return self.helper(n)
    def helper(self, n):
        return 2 * n
def main():
    print(Solution().solve(3))
"""


@pytest.mark.parametrize(
    "code",
    [HELPED, WATCHED, METHODS, "def main(n):\n    return 2 * n"],
    ids=["helper", "tests", "methods", "main"],
)
def test_the_function_that_is_meant_without_a_name(code):
    assert score_code(f"```python\n{code}\n```", [{"input": [3], "expected": 6}]) == 1.0


@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("class Solution:\n    def f(self, xs: List[int]) -> Optional[ListNode]:\n        return xs", 1.0),
        ("def f(xs: List[int]):\n    return List(xs)", 0.0),
        ("VALUES: int = missing\ndef f(xs):\n    return xs", 0.0),
    ],
    ids=["annotation", "elsewhere", "value"],
)
def test_a_name_that_only_annotations_mention_may_be_missing(code, score):
    assert score_code(f"```python\n{code}\n```", [{"input": [[1]], "expected": [1]}]) == score


LATE = """
import atexit, io, sys
sys.stdout = io.StringIO()
atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))
print(6)
"""


@pytest.mark.parametrize(
    "code",
    ["print(6)\nexit()", LATE, "out = open(1, 'w')\nout.write('6')", "print(6, end=__file__[:0])"],
    ids=["exit", "atexit", "open", "file"],
)
def test_a_program_ends_as_python_ends_it(code):
    assert score_code(f"```python\n{code}\n```", [{"input": "", "expected": "6\n"}]) == 1.0
