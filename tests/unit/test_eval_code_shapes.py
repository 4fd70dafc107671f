"""human_eval: one problem for each unusual shape that the original ones have, with texts of our own."""

import pytest

from pipelines.evaluation.human_eval import HumanEval
from pipelines.rewards import RewardContext

BODY, TEST = "# ---- body\n", "# ---- test\n"
SHAPES = {
    "a helper above that the test uses, and a module that only the prompt imports": (
        "root",
        r'''
import math


def value(xs: list, x: float):
    """
    Of the polynomial at x.
    """
    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])


def root(xs: list):
    """ Of a polynomial.
    >>> round(root([1, 2]), 2) # 1 + 2x
    -0.5
    """
# ---- body
    low, high = -1., 1.
    while value(xs, low) * value(xs, high) > 0:
        low *= 2.0
        high *= 2.0
    while high - low > 1e-10:
        middle = (low + high) / 2.0
        if value(xs, middle) * value(xs, low) > 0:
            low = middle
        else:
            high = middle
    return low
# ---- test
METADATA = {}


def check(candidate):
    import random
    draw = random.Random(42)
    import copy
    for _ in range(50):
        xs = []
        for _ in range(2 * draw.randint(1, 4)):
            x = draw.randint(-10, 10)
            if x == 0:
                x = 1
            xs.append(x)
        found = candidate(copy.deepcopy(xs))
        assert math.fabs(value(xs, found)) < 1e-4
''',
    ),
    "a helper with the inverse, random texts in a local called str": (
        "undo",
        r'''
def turn(s: str):
    """
    Turns groups of three.
    """
    # groups, each of length 3
    groups = [s[(3 * i):min((3 * i + 3), len(s))] for i in range((len(s) + 2) // 3)]
    groups = [(group[1:] + group[0]) if len(group) == 3 else group for group in groups]
    return "".join(groups)


def undo(s: str):
    """
    What turn made s of.
    """
# ---- body
    return turn(turn(s))
# ---- test
METADATA = {
    'author': 'us',
    'dataset': 'test'
}


def check(candidate):
    from random import randint, choice
    import string

    letters = string.ascii_lowercase
    for _ in range(50):
        str = ''.join(choice(letters) for i in range(randint(10, 20)))
        turned = turn(str)
        assert candidate(turned) == str

''',
    ),
    "the function by its own name in the test": (
        "thirds",
        r'''


def thirds(l: list):
    """Sort every third."""
# ---- body
    l = list(l)
    l[::3] = sorted(l[::3])
    return l
# ---- test
METADATA = {
    'author': 'us',
    'dataset': 'test'
}


def check(candidate):
    assert tuple(candidate([1, 2, 3])) == tuple(thirds([1, 2, 3]))
    assert tuple(candidate([5, 6, 3, 4, 8, 9, 2])) == tuple([2, 6, 3, 4, 8, 9, 5])
''',
    ),
    "hashlib inside the body, None expected": (
        "digest",
        r'''

def digest(text):
    """
    >>> digest('a') == '0cc175b9c0f1b6a831c399e269772661'
    """
# ---- body
    import hashlib
    return hashlib.md5(text.encode('ascii')).hexdigest() if text else None
# ---- test
def check(candidate):

    # Simple
    assert candidate('a') == '0cc175b9c0f1b6a831c399e269772661'
    assert candidate('') == None

    # Edges
    assert True
''',
    ),
    "a text above the function, asserts with messages": (
        "vowels",
        r'''

FIX = """
More tests.
"""

def vowels(s):
    """Count them."""
# ---- body
    vowels = "aeiouAEIOU"
    return sum(c in vowels for c in s) + (s[-1] in "yY")
# ---- test
def check(candidate):
    assert candidate("abcde") == 2, "Test 1"
    assert candidate("key") == 2, "Test 2"
    assert True, "This prints"
''',
    ),
    "an import above the docstring": (
        "trips",
        r'''
def trips(grid, capacity):
    import math
    """
    To the well.
    """
# ---- body
    return sum([math.ceil(sum(row)/capacity) for row in grid])
# ---- test
def check(candidate):
    assert candidate([[0,0,1,0], [0,1,0,0], [1,1,1,1]], 1) == 6
''',
    ),
    "a helper inside, long loops over large numbers": (
        "prime_fibonacci",
        r'''


def prime_fibonacci(n: int):
    """
    >>> prime_fibonacci(1)
    2
    """
# ---- body
    import math

    def is_prime(p):
        if p < 2:
            return False
        for k in range(2, min(int(math.sqrt(p)) + 1, p - 1)):
            if p % k == 0:
                return False
        return True
    f = [0, 1]
    while True:
        f.append(f[-1] + f[-2])
        if is_prime(f[-1]):
            n -= 1
        if n == 0:
            return f[-1]
# ---- test
METADATA = {
    'author': 'us',
    'dataset': 'test'
}


def check(candidate):
    assert candidate(1) == 2
    assert candidate(11) == 2971215073
''',
    ),
    "recursion": (
        "fibonacci",
        r'''
def fibonacci(n: int):
    """The n-th."""
# ---- body
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)
# ---- test
def check(candidate):
    assert candidate(22) == 17711
''',
    ),
    "tuples, sets, None, dicts and large numbers come back as they are": (
        "same",
        r'''
from typing import Any, List, Optional, Tuple


def same(value: Any) -> Any:
    """It."""
# ---- body
    return value
# ---- test
def check(candidate):
    for value in ((0, 1), (None, 1), [(1, 2), (3, 4)], {1, 2}, {'a': [1], 2: 'b'}, [4, {}, [], 23.2, 'x'],
                  (), 2 ** 200, b'x', 1 + 2j, float('inf'), 'a\nb', range(3)):
        assert candidate(value) == value and type(candidate(value)) is type(value)
    assert candidate((0, 1)) != [0, 1]
    assert candidate(None) is None and candidate(True) is True
    assert abs(candidate(4.0 / 3) - 1.3333333) < 1e-6
''',
    ),
    "eval of an expression": (
        "computed",
        r'''
def computed(signs, numbers):
    """The value."""
# ---- body
    text = str(numbers[0])
    for sign, number in zip(signs, numbers[1:]):
        text += sign + str(number)
    return eval(text)
# ---- test
def check(candidate):
    assert candidate(['**', '*', '+'], [2, 3, 4, 5]) == 37
    assert candidate(['//', '*'], [7, 3, 4]) == 8
''',
    ),
    "an argument that is sorted in place, a bare except": (
        "middle",
        r'''
def middle(numbers):
    """The median."""
# ---- body
    try:
        numbers.sort()
        return numbers[len(numbers) // 2]
    except:
        return None
# ---- test
def check(candidate):
    numbers = [3, 1, 2]
    assert candidate(numbers) == 2
    assert candidate([]) == None
''',
    ),
    "imports, values and functions of the test beside check": (
        "floor",
        r'''
def floor(x):
    """Of x."""
# ---- body
    from math import floor, ceil
    return floor(x) if x >= 0 else -ceil(-x)
# ---- test
import math
from typing import List

VALUES: List[float] = [1.5, -2.5]


def down(x):
    return math.floor(x)


def check(candidate):
    odd = [x for x in VALUES if candidate(x) != down(x)]
    assert odd == []
    assert sum([candidate(x) for x in range(-99, 100, 2)]) == -0
''',
    ),
    "tabs, and no line ending at the end": (
        "first",
        '''



def first(items):
\t"""
\tOf some items.
\t"""
# ---- body
\tfor item in items:
\t\treturn item
# ---- test
def check(candidate):
    assert candidate([7]) == 7
''',
    ),
    "a comment at the margin of the body": (
        "sign",
        r'''
def sign(x):
    """Of x."""
# ---- body
    if x < 0:
# negative
        return -1
    return int(x > 0)
# ---- test
def check(candidate):
    assert [candidate(x) for x in (-2, 0, 2)] == [-1, 0, 1]
''',
    ),
    "a fenced example in the docstring": (
        "twice",
        r'''
def twice(x):
    """Such as

    ```
    twice(1) == 2
    ```
    """
# ---- body
    return 2 * x
# ---- test
def check(candidate):
    assert candidate(1) == 2
''',
    ),
}


def problem(shape):
    """A row: what stands above the body, the body, and the test, which the original ones begin with empty lines."""
    entry_point, text = SHAPES[shape]
    above, _, rest = text.partition(BODY)
    body, _, test = rest.partition(TEST)
    return {"entry_point": entry_point, "prompt": above, "canonical_solution": body, "test": f"\n\n{test}"}


def judged(evaluator, record, body):
    """The verdict on the prompt with this body."""
    asked = evaluator.asked(record | {"canonical_solution": body})
    return evaluator.verdict(RewardContext(generated_text=asked.solution, test_cases=asked.test_cases, meta=asked.meta))


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_solution_passes_and_an_empty_body_does_not(shape, chat):
    evaluator, record = HumanEval({"chat": chat}), problem(shape)
    found = judged(evaluator, record, record["canonical_solution"].rstrip())
    assert (found.correct, found.reason) == (True, "")
    assert not judged(evaluator, record, "\tpass\n" if "\t" in record["prompt"] else "    pass\n").correct
