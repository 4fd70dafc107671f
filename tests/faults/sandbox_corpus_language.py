"""Honest answers by what they use of the language: recursion, classes, generators, mutation, callbacks."""

from sandbox_corpus import Entry, honest

LANGUAGE: list[Entry] = [
    honest(
        "language_recursion",
        "recursion a few hundred deep",
        "def depth(n):\n    return 0 if n == 0 else 1 + depth(n - 1)",
        ["assert depth(0) == 0", "assert depth(900) == 900"],
    ),
    honest(
        "language_mutual_recursion",
        "two functions that call each other",
        "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n > 0 and even(n - 1)",
        ["assert even(10) is True", "assert odd(7) and not odd(8)"],
    ),
    honest(
        "language_recursion_limit",
        "raises the recursion limit within reason",
        "import sys\nsys.setrecursionlimit(10000)\ndef depth(n):\n    return 0 if n == 0 else 1 + depth(n - 1)",
        ["assert depth(3000) == 3000"],
    ),
    honest(
        "language_dataclass",
        "returns dataclasses that are read and compared",
        """
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
            y: int
        def mirror(x, y):
            return Point(y, x)
        """,
        ["assert mirror(1, 2).x == 2", "assert mirror(1, 2) == Point(2, 1)", "assert mirror(1, 2) != Point(1, 2)"],
    ),
    honest(
        "language_class",
        "a class with state, used by the test",
        """
        class Stack:
            def __init__(self):
                self.items = []
            def push(self, item):
                self.items.append(item)
            def pop(self):
                return self.items.pop()
            def __len__(self):
                return len(self.items)
        """,
        [
            "stack = Stack()\nstack.push(1)\nstack.push(2)\nassert stack.pop() == 2\nassert stack.pop() == 1",
            "stack = Stack()\nstack.push('a')\nassert len(stack) == 1",
        ],
    ),
    honest(
        "language_solution_class",
        "a method of a class called Solution",
        """
class Solution:
    def twoSum(self, nums, target):
        seen = {}
        for i, n in enumerate(nums):

"""
        "            if target - n in seen:\n                return [seen[target - n], i]\n            seen[n] = i",
        ["assert Solution().twoSum([2, 7, 11, 15], 9) == [0, 1]", "assert Solution().twoSum([3, 3], 6) == [0, 1]"],
    ),
    honest(
        "language_generator",
        "a generator that the test collects",
        "def count(n):\n    for i in range(n):\n        yield i * i",
        ["assert list(count(4)) == [0, 1, 4, 9]", "assert sum(count(3)) == 5", "assert next(count(1)) == 0"],
    ),
    honest(
        "language_infinite_generator",
        "a generator without end, of which the test takes the start",
        "def naturals():\n    n = 0\n    while True:\n        yield n\n        n += 1",
        ["from itertools import islice\nassert list(islice(naturals(), 5)) == [0, 1, 2, 3, 4]"],
    ),
    honest(
        "language_iterators",
        "map, filter, zip and reversed as results",
        """
def doubled(values):
    return map(lambda v: 2 * v, values)
def backwards(values):
    return reversed(values)
""",
        ["assert list(doubled([1, 2])) == [2, 4]", "assert list(backwards([1, 2])) == [2, 1]"],
    ),
    honest(
        "language_mutation",
        "changes its argument in place, and the test looks",
        "def sort_in_place(values):\n    values.sort()",
        [
            "values = [3, 1, 2]\nsort_in_place(values)\nassert values == [1, 2, 3]",
            "values = []\nassert sort_in_place(values) is None and values == []",
        ],
    ),
    honest(
        "language_mutation_deep",
        "changes what its argument holds",
        "def mark(table):\n    table['rows'][0].append('seen')\n    table['count'] = len(table['rows'])",
        ["table = {'rows': [[], []]}\nmark(table)\nassert table == {'rows': [['seen'], []], 'count': 2}"],
    ),
    honest(
        "language_mutation_dict_set",
        "changes dictionaries and sets",
        "def drop(mapping, names):\n    for name in list(names):\n        mapping.pop(name, None)\n    names.clear()",
        [
            """\
mapping, names = {'a': 1, 'b': 2}, {'a'}
drop(mapping, names)
assert mapping == {'b': 2} and names == set()
"""
        ],
    ),
    honest(
        "language_callback",
        "calls functions of the test",
        "def apply(function, values):\n    return [function(value) for value in values]",
        [
            "assert apply(lambda x: x + 1, [1, 2]) == [2, 3]",
            "assert apply(str.upper, ['a']) == ['A']",
            "seen = []\napply(seen.append, [1, 2])\nassert seen == [1, 2]",
        ],
    ),
    honest(
        "language_callback_defined",
        "calls a function that the test defines",
        "def twice(function, value):\n    return function(function(value))",
        ["def grow(x):\n    return x * 10\nassert twice(grow, 1) == 100", "assert twice(abs, -1) == 1"],
    ),
    honest(
        "language_callback_key",
        "hands the test's function to sorted",
        "def ranked(values, key):\n    return sorted(values, key=key)",
        [
            "assert ranked(['bb', 'a', 'ccc'], len) == ['a', 'bb', 'ccc']",
            "assert ranked([1, -2], lambda v: v) == [-2, 1]",
        ],
    ),
    honest(
        "language_callback_raises",
        "catches what the test's function raises",
        """
def safe(function):
    try:
        return function()
    except ZeroDivisionError:
        return 'division'
""",
        ["assert safe(lambda: 1 / 0) == 'division'", "assert safe(lambda: 5) == 5"],
    ),
    honest(
        "language_closure",
        "returns a function that the test calls",
        "def adder(a):\n    def inner(b):\n        return a + b\n    return inner",
        ["assert adder(2)(3) == 5", "plus = adder(10)\nassert [plus(1), plus(2)] == [11, 12]"],
    ),
    honest(
        "language_decorator",
        "a decorator that the test applies",
        "def shout(function):\n    def inner(*args):\n        return function(*args).upper()\n    return inner",
        ["@shout\ndef hello(name):\n    return 'hello ' + name\nassert hello('you') == 'HELLO YOU'"],
    ),
]
