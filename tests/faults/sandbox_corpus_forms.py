"""Honest answers by the form of their tests: assertions, standard input, expressions, check(candidate)."""

from sandbox_corpus import Entry, honest

ADD = "def add(a, b):\n    return a + b"
ADDS = ["assert add(1, 2) == 3", "assert add(-4, 9) == 5"]
DOUBLES = [{"input": "3\n", "expected": "6\n"}, {"input": "10\n", "expected": "20\n"}]


FORMS: list[Entry] = [
    honest("form_asserts", "plain assert strings", ADD, ADDS),
    honest(
        "form_setup",
        "lines of preparation before the assertion",
        ADD,
        [
            """\
import math
base = math.floor(2.5)
assert add(base, 1) == 3
"""
        ],
    ),
    honest(
        "form_many_asserts",
        "several assertions in one test",
        ADD,
        [
            """\
assert add(1, 2) == 3
assert add(0, 0) == 0
assert add(2, 2) == 4
"""
        ],
    ),
    honest("form_message", "an assertion with a message", ADD, ["assert add(1, 2) == 3, 'one and two'"]),
    honest(
        "form_approximate",
        "floats compared with room",
        "def third():\n    return 1 / 3",
        ["assert abs(third() - 0.3333) < 1e-3", "import math\nassert math.isclose(third(), 1 / 3)"],
    ),
    honest(
        "form_set_equality",
        "compared as sets and sorted",
        "def common(a, b):\n    return tuple(set(a) & set(b))",
        ["assert set(common((1, 2, 3), (2, 3, 4))) == set((2, 3))", "assert sorted(common([1, 2], [2, 1])) == [1, 2]"],
    ),
    honest(
        "form_truth",
        "assertions without a comparison",
        "def prime(n):\n    return n > 1 and all(n % k for k in range(2, n))",
        ["assert prime(7)", "assert not prime(8)", "assert prime(2) is True"],
    ),
    honest(
        "form_nested_calls",
        "calls within calls and comprehensions",
        ADD,
        [
            "assert add(add(1, 2), add(3, 4)) == 10",
            "assert [add(i, 1) for i in range(3)] == [1, 2, 3]",
            "assert all(add(i, 0) == i for i in range(5))",
        ],
    ),
    honest("form_loop", "a test that loops", ADD, ["for i in range(5):\n    assert add(i, i) == 2 * i"]),
    honest(
        "form_call",
        "call expressions with their value",
        ADD,
        ["add(1, 2) == 3", "add('a', 'b') == 'ab'", "add([1], [2]) == [1, 2]"],
    ),
    honest(
        "form_call_truth",
        "a call expression that is true by itself",
        "def even(n):\n    return n % 2 == 0",
        ["even(2) == True", "even(3) == False"],
    ),
    honest(
        "form_check",
        "HumanEval's check(candidate)",
        ADD,
        [
            {
                "check": """\
METADATA = {'author': 'x'}


def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(0, 0) == 0

""",
                "entry_point": "add",
            }
        ],
    ),
    honest(
        "form_check_text",
        "a text that defines check and calls it",
        ADD,
        [
            """\
def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(0, 0) == 0

check(add)
"""
        ],
    ),
    honest(
        "form_check_loop",
        "check with a loop, a helper and a message",
        "def total(values):\n    return sum(values)",
        [
            {
                "check": """\
import random

def slow(values):
    return sum(values)

def check(candidate):
    rng = random.Random(1)
    for _ in range(20):
        values = [rng.randint(0, 9) for _ in range(5)]
        assert candidate(values) == slow(values), 'random'

""",
                "entry_point": "total",
            }
        ],
    ),
    honest(
        "form_check_named_like_builtin",
        "check of a solution called sum",
        "def sum(a, b):\n    return a + b",
        [
            {
                "check": """\
def check(candidate):
    assert candidate(1, 2) == 3

""",
                "entry_point": "sum",
            }
        ],
    ),
    honest(
        "form_check_humaneval",
        "a completion that repeats the prompt with its docstring",
        """
from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    \"\"\" Check if any two numbers are closer than the threshold.
    >>> has_close_elements([1.0, 2.0, 3.0], 0.5)
    False
    \"\"\"
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))
""",
        [
            {
                "check": """\
def check(candidate):
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05) == False

""",
                "entry_point": "has_close_elements",
            }
        ],
    ),
    honest("form_stdio", "reads and prints", "print(int(input()) * 2)", DOUBLES),
    honest(
        "form_stdio_sys",
        "reads all at once from sys.stdin",
        """
import sys
for line in sys.stdin.read().split():
    sys.stdout.write(f'{int(line) * 2}\\n')
""",
        DOUBLES,
    ),
    honest(
        "form_stdio_buffer",
        "reads bytes and rebinds input",
        """
import sys
input = sys.stdin.buffer.readline
n = int(input())
sys.stdout.buffer.write(b'%d\\n' % (2 * n))
""",
        DOUBLES,
    ),
    honest("form_stdio_open", "reads descriptor 0 by open(0)", "print(int(open(0).read()) * 2)", DOUBLES),
    honest(
        "form_stdio_main",
        "behind a main guard",
        """
def main():
    n = int(input())
    print(n * 2)

if __name__ == '__main__':
    main()
""",
        DOUBLES,
    ),
    honest(
        "form_stdio_exit",
        "ends by sys.exit with success",
        """
import sys
print(int(input()) * 2)
sys.exit(0)
""",
        DOUBLES,
    ),
    honest(
        "form_stdio_exit_main",
        "ends by sys.exit(main())",
        """
import sys
def main():
    print(int(input()) * 2)

if __name__ == '__main__':
    sys.exit(main())
""",
        DOUBLES,
    ),
    honest(
        "form_stdio_lines",
        "several lines, white space at their ends",
        """
n = int(input())
for i in range(n):
    print(*range(i + 1), end=' \\n')
print()
""",
        [
            {
                "input": "3",
                "expected": "0\n0 1\n0 1 2",
            }
        ],
    ),
    honest(
        "form_stdio_no_newline",
        "no newline at the end of the output",
        "import sys\nsys.stdout.write(str(int(input()) * 2))",
        DOUBLES,
    ),
    honest(
        "form_stdio_unicode",
        "letters beyond ASCII both ways",
        "print(input()[::-1])",
        [{"input": "\u4f60\u597d \U0001f600\n", "expected": "\U0001f600 \u597d\u4f60\n"}],
    ),
    honest(
        "form_stdio_eof",
        "reads until the input ends",
        """
total = 0
try:
    while True:
        total += int(input())
except EOFError:
    print(total)
""",
        [
            {
                "input": "1\n2\n3\n",
                "expected": "6\n",
            },
            {"input": "", "expected": "0\n"},
        ],
    ),
    honest(
        "form_stdio_stderr",
        "notes on stderr do not count",
        """
import sys
print('reading', file=sys.stderr)
print(int(input()) * 2)
""",
        DOUBLES,
    ),
    honest(
        "form_stdio_large",
        "a large input and output",
        """
import sys
values = sys.stdin.read().split()
print('\\n'.join(reversed(values)))
""",
        [{"input": "\n".join(map(str, range(20000))), "expected": "\n".join(map(str, reversed(range(20000))))}],
    ),
    honest(
        "form_stdio_recursion",
        "recursion in a thread with a larger stack",
        """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
def main():
    print(2 * depth(int(input())))
worker = threading.Thread(target=main)
worker.start()
worker.join()
""",
        DOUBLES,
    ),
]
