"""Tests that only define tests: they are run, in the manner of pytest and of unittest."""

import pytest

from pipelines.rewards.code import score_code

RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"

FUNCTIONS = """
from solution import add

def test_zero():
    assert add(0, 0) == 0

def test_add():
    assert add(1, 2) == 3

if __name__ == '__main__':
    test_add()
"""
CASE = """
import unittest

class TestAdd(unittest.TestCase):
    def setUp(self):
        self.three = 3

    def test_add(self):
        self.assertEqual(add(1, 2), self.three)

unittest.main()
"""
METHODS = """
class TestAdd:
    def test_add(self):
        assert add(1, 2) == 3
"""
LATER = """
async def test_add():
    assert add(1, 2) == 3
"""
ROWS = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize('a, b, c', [(0, 0, 0), (1, 2, 3)])
def test_add(a, b, c):
    assert add(a, b) == pytest.approx(c)
"""
RAISES = """
import pytest

def test_add():
    with pytest.raises(TypeError, match='unsupported') as caught:
        add(1, None)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(AssertionError):
        with pytest.raises(TypeError):
            add(1, 2)
    pytest.raises(TypeError, add, 1, None)
    assert {'a': [add(0.1, 0.2)]} == {'a': [pytest.approx(0.3)]} and add(1, 2) == 3
"""


@pytest.mark.parametrize(
    "test",
    [FUNCTIONS, CASE, METHODS, LATER, ROWS, RAISES],
    ids=["functions", "case", "methods", "coroutine", "rows", "raises"],
)
def test_a_test_that_nobody_calls_is_run(test):
    assert (score_code(RIGHT, [test]), score_code(WRONG, [test])) == (1.0, 0.0)


LIAR = """
class Any:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __abs__(self): return 0
class Near(float):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
def add(a, b):
    return Any() if a else Near(9)
"""


def test_what_is_equal_to_everything_is_not_approximately_equal():
    near = "import pytest\ndef test():\n    assert add({a}, 2) == pytest.approx(3)"
    assert score_code(LIAR, [near.format(a=0), near.format(a=1)]) == 0.0
    assert score_code("def add(a, b):\n    raise SystemExit", [RAISES, CASE]) == 0.0


BODY = "def test_add():\n    assert add(1, 2) == 3\n"
CASE_BODY = "    def test_add(self):\n        assert add(1, 2) == 3\n"


@pytest.mark.parametrize(
    "test",
    [
        f"'Tests.'\n{BODY}print('done')",
        f"try:\n    from solution import add\nexcept ImportError:\n    pass\n{BODY}",
        f"if True:\n    {BODY.replace(chr(10), chr(10) + '    ')}",
        f"import functools\n{BODY.replace('def', '@functools.lru_cache' + chr(10) + 'def')}",
        f"class AddTests:\n    words = ['test']\n{CASE_BODY}",
        f"class Base:\n{CASE_BODY}class TestAdd(Base):\n    pass",
        "def test_add():\n    return add(1, 2) == 3",
        f"import unittest\nclass A(unittest.TestCase):\n{CASE_BODY}unittest.TextTestRunner().run(A('test_add'))",
        f"from unittest import TestCase, main\nclass A(TestCase):\n{CASE_BODY}main()",
        "def test_one(c):\n    assert add(1, 2) == c\ndef test_all():\n    test_one(3)",
        "import pytest\n@pytest.mark.parametrize(('c',), ((c,) for c in [3]))\n" + BODY.replace("()", "(c)"),
        "class A:\n    assert add(1, 2) == 3",
        "def check(candidate):\n    assert candidate(1, 2) == 3\nprint('check')",
    ],
    ids=[
        "text", "try", "if", "decorated", "class", "inherited", "returned", "runner", "main", "helper", "rows", "body",
        "check",
    ],
)  # fmt: skip
def test_however_a_text_defines_its_tests_they_are_run(test):
    assert (score_code(RIGHT, [test]), score_code(WRONG, [test])) == (1.0, 0.0)


@pytest.mark.parametrize(
    "test",
    [
        "def verify():\n    assert add(1, 2) == 3",
        "if __name__ == '__main__':\n    assert add(1, 2) == 3",
        f"{BODY}TESTS = [test_add]",
        "def test_add():\n    yield\n    assert add(1, 2) == 3",
        f"import unittest\nclass A(unittest.TestCase):\n{CASE_BODY.replace('def', 'async def')}",
        "import pytest\n@pytest.mark.parametrize('c', [])\n" + BODY.replace("()", "(c)"),
        "import pytest\n@pytest.mark.parametrize('c', [3])\nclass TestAdd:\n" + CASE_BODY.replace("self", "self, c"),
        "assert (add(1, 2) == 3, 'a message')",
        "add(1, 2) == 3, 'a message'",
        f"@add\n{BODY}",
    ],
    ids=["name", "guard", "listed", "yield", "async", "no rows", "class rows", "tuple", "value", "solution"],
)
def test_a_test_that_could_not_fail_passes_nothing(test):
    assert score_code("def add(a, *b):\n    return a", [test]) == 0.0


def test_nothing_finite_is_approximately_infinite():
    test = "import pytest\nassert add([0], [float('inf')]) == pytest.approx([float('inf')])"
    assert score_code("def add(a, b):\n    return b", [test]) == 1.0
    assert score_code("def add(a, b):\n    return a", [test]) == 0.0
