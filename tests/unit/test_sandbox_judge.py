"""What the judge believes of a solution: results as plain data, and names only where the tests are about them."""

import pytest

from pipelines.rewards.code import score_code

EVIL = """
class Evil:
    def __sub__(self, other): return other - other
    __rsub__ = __radd__ = __sub__
    def __abs__(self): return 0.0
    def __lt__(self, other): return True
    def __contains__(self, item): return True
    def __iter__(self): return iter(())
    def __getattr__(self, name): return lambda *a: True
def f(x): return Evil()
"""
OWN = """
class Solution:
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __lt__(self, other): return True
    def __getitem__(self, key): return self
    def startswith(self, text): return True
    def f(self, x): return self
    value = property(f)
KEPT = Solution()
Solution.__new__ = lambda kind: KEPT
def f(x): return KEPT
"""
KIND = """
class Meta(type):
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __contains__(self, item): return True
class Solution(metaclass=Meta):
    def f(self, x): return Solution
    @staticmethod
    def startswith(text): return True
"""
CONTEXT = """
class Context:
    seen = ''
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        self.seen += str(error)
        return True
    async def __aenter__(self): return self
    async def __aexit__(self, kind, error, trace): return True
    def f(self, x):
        if x: raise ValueError(x)
"""
HELPER = """
def look(c):
    assert c.f(1) == 5
with Context() as c:
    look(c)
"""
NESTED = """
import contextlib
@contextlib.contextmanager
def own():
    with Context() as c:
        yield c
with own() as c:
    assert c.f(1) == 5
"""
LATER = """
import asyncio
async def main():
    async with Context() as c:
        assert c.f(0) == 5
asyncio.run(main())
"""
LEARNT = """
c = Context()
try:
    with c:
        assert c.f(0) == 5, 'expected 5'
except AssertionError:
    pass
assert '5' in c.seen
"""
IGNORED = """
with Context() as outer:
    with Context() as c:
        c.f(1)
    assert 'x' not in c.seen
    with Context() as c:
        assert c.f(0) is None
        1 / 0
assert outer.seen == 'None'
"""
ADDED = """
class V:
    def __init__(self, x): self.x = x
    def __gt__(self, y): return self.x > y
    def __iadd__(self, y):
        self.x += y
        return self
"""
REDIRECTED = """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out: f()
assert out.getvalue() == 'hi\\n'
"""


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): raise StopIteration", "assert all(map(lambda x: f(x) == 5, [1, 2]))"),
        ("def abs(x): return 0\ndef f(x): return 1.0", "assert abs(f(1) - 3.5) < 1e-6"),
        ("def set(x): return 1\ndef f(x): return 1", "assert set(f(1)) == set([3])"),
        ("def Counter(x): return 0\ndef f(x): return 1", "assert Counter(f(1)) == Counter([3])"),
        ("class math:\n    isclose = lambda *a: True\ndef f(x): return 1.0", "assert math.isclose(f(1), 3.5)"),
        ("class np:\n    allclose = lambda *a: True\ndef f(x): return 1.0", "assert np.allclose(f(1), 3.5)"),
        (
            "def abs(x): return 0\ndef f(x): return 1",
            {"check": "def check(c):\n    assert abs(c(1) - 3.5) < 1e-6", "entry_point": "f"},
        ),
        ("from unittest.mock import ANY\ndef f(x): return ANY", "assert f(1) == 5"),
        ("class I(int):\n    def __eq__(self, other): return True\ndef f(x): return I(2)", "assert f(1) == 5"),
        ("class L(list):\n    def __eq__(self, other): return True\ndef f(x): return L()", "assert f(1) == [5]"),
        (EVIL, "assert abs(f(1) - 3.5) < 1e-6"),
        (EVIL, "assert f(1) < 5"),
        (EVIL, "assert 3 in f(1)"),
        (EVIL, "assert f(1).startswith('a')"),
        (OWN, "assert abs(Solution().f(1) - 3.5) < 1e-6"),
        (OWN, "assert abs(Solution().value - 3.5) < 1e-6"),
        (OWN, "assert Solution()[1] < 5"),
        (OWN, "assert Solution().f(1).startswith('a')"),
        (OWN, "own = f(1)\nSolution()\nassert abs(own - 3.5) < 1e-6"),
        (KIND, "assert abs(Solution().f(1) - 3.5) < 1e-6"),
        (KIND, "assert 5 in Solution().f(1)"),
        (KIND, "own = Solution().f(1)\nSolution()\nassert own.startswith('a')"),
        ("def abs(x): return 0", "def check(c):\n    assert abs(c(1) - 3.5) < 1e-6"),
        ("def abs(x): return 0\ndef f(x): return 1", "from solution import *\nassert abs(f(1) - 3.5) < 1e-6"),
        ("def g(x): return 0\ndef f(x): return 0", "def g(x): return 5\nfrom solution import *\nassert f(1) == g(1)"),
        (CONTEXT, "with Context() as c:\n    assert c.f(0) == 5"),
        (CONTEXT, "with Context() as c:\n    assert c.f(1) == 5"),
        (CONTEXT, "with Context() as c:\n    assert c.f(0) + 1 == 5"),
        (CONTEXT, HELPER),
        (CONTEXT, NESTED),
        (CONTEXT, LATER),
        (CONTEXT, LEARNT),
        ("def f(g): return g.__globals__['EXPECTED']", "EXPECTED = 5\nassert f(lambda: 0) == 5"),
        ("import gc\ndef f(x): return [o for o in gc.get_objects() if o == 82763][0]", "assert f(1) == 82763"),
    ],
)
def test_tricks_earn_nothing(code, test):
    assert score_code(f"```python\n{code}\n```", [test]) == 0.0


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("def sum(values): return 99", ["assert sum([1]) == 99", "assert sum([]) == 99"]),
        ("def gcd(a, b): return a if not b else gcd(b, a % b)", ["assert gcd(12, 8) == 4"]),
        ("def max(values): return 99", [{"input": [[1]], "expected": 99}, "assert max([1]) == 99"]),
        ("from collections import Counter\ndef f(x): return x", ["assert Counter(f('ab')) == Counter('ba')"]),
        ("log = []\ndef f(x): log.append(x)", ["f(1)\nassert log == [1]\nf(2)\nassert log == [1, 2]"]),
        ("def f(rows): rows[0][0] = 9", ["rows = [[1]]\none = rows[0]\nf(rows)\nassert one == [9] and rows[0] is one"]),
        ("class E(ValueError):\n    code = 0\ndef f():\n    error = E('no')\n    error.code = 7\n    raise error",
         ["try:\n    f()\n    assert False\nexcept E as error:\n    assert error.code == 7 and str(error) == 'no'"]),
        ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", ["assert f(900) == 900"]),
        ("async def f(call): return await call(3)",
         ["import asyncio\nasync def call(x): return 2 * x\nassert asyncio.run(f(call)) == 6"]),
        ("def f(n):\n    sent = yield n\n    yield sent", ["g = f(1)\nassert next(g) == 1 and g.send(5) == 5"]),
        ("def f(): print('hi')",
         [REDIRECTED]),
        (CONTEXT, [IGNORED]),
        (ADDED, ["v = V(1)\nv += 3\nassert v > 3"]),
        ("import os\ndef f(x): return x + 1", ["from solution import *\nclass A:\n    two = f(1)\nassert A.two == 2"]),
        ("def f(x): return x + 1", ["from solution import f\nassert f(1) == 2"]),
    ],
)  # fmt: skip
def test_honest_answers_pass(code, tests):
    assert score_code(f"```python\n{code}\n```", tests) == 1.0
