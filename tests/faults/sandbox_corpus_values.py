"""Honest answers by what they return: every type of the language and the common ones of the library."""

from sandbox_corpus import Entry, honest

VALUES: list[Entry] = [
    honest(
        "language_namedtuple",
        "returns namedtuples",
        """
from collections import namedtuple
Pair = namedtuple('Pair', 'left right')
def split(text):
    return Pair(text[:1], text[1:])
""",
        ["assert split('abc') == ('a', 'bc')", "assert split('abc').right == 'bc'", "assert split('ab')[0] == 'a'"],
    ),
    honest(
        "language_typing_namedtuple",
        "the typed form of namedtuple",
        """
from typing import NamedTuple
class Size(NamedTuple):
    w: int
    h: int = 1
def size(w):
    return Size(w)
""",
        ["assert size(3) == (3, 1)", "assert size(3).w == 3"],
    ),
    honest(
        "language_counter",
        "returns a Counter",
        "from collections import Counter\ndef letters(text):\n    return Counter(text)",
        [
            "assert letters('aab') == {'a': 2, 'b': 1}",
            "assert letters('aab')['a'] == 2",
            "assert letters('aab')['z'] == 0",
        ],
    ),
    honest(
        "language_collections",
        "returns deque, OrderedDict and defaultdict",
        "from collections import OrderedDict, defaultdict, deque\ndef queue(v):\n    return deque(v)\n"
        """
def ordered(v):
    return OrderedDict(v)
def groups(v):
    d = defaultdict(list)
    [d[len(w)].append(w) for w in v]
    return d
""",
        [
            "from collections import deque\nassert queue([1, 2]) == deque([1, 2])",
            "assert ordered([('a', 1)]) == {'a': 1}",
            "assert groups(['a', 'bb', 'c']) == {1: ['a', 'c'], 2: ['bb']}",
        ],
    ),
    honest(
        "language_fraction",
        "returns Fractions",
        "from fractions import Fraction\ndef half(n):\n    return Fraction(n, 2)",
        [
            "from fractions import Fraction\nassert half(3) == Fraction(3, 2)",
            "assert half(4) == 2",
            "assert half(1) == 0.5",
        ],
    ),
    honest(
        "language_decimal",
        "returns Decimals",
        "from decimal import Decimal\ndef price(text):\n    return Decimal(text) * 2",
        ["from decimal import Decimal\nassert price('1.10') == Decimal('2.20')", "assert price('2') == 4"],
    ),
    honest(
        "language_dates",
        "returns dates and spans",
        "from datetime import date, timedelta\ndef later(y, m, d, n):\n    return date(y, m, d) + timedelta(days=n)",
        [
            "from datetime import date\nassert later(2024, 2, 28, 2) == date(2024, 3, 1)",
            "assert later(2024, 1, 1, 1).day == 2",
        ],
    ),
    honest(
        "language_plain_types",
        "every plain type comes back as it is",
        "def same(value):\n    return value",
        [
            "assert same(None) is None and same(True) is True and same(False) is False",
            "assert same(10**50) == 10**50 and same(-0.1) == -0.1 and same(2 + 3j) == 2 + 3j",
            "assert same('h\\u00e9\\u4f60\\U0001f600\\n\\0') == 'h\\u00e9\\u4f60\\U0001f600\\n\\0'",
            "assert same(b'\\x00\\xff') == b'\\x00\\xff'",
            "assert same((1, [2], {3})) == (1, [2], {3}) and isinstance(same((1,)), tuple)",
            "assert same({(1, 2): 'a', None: 'b', 1.5: 'c'}) == {(1, 2): 'a', None: 'b', 1.5: 'c'}",
            "assert same(frozenset([1])) == frozenset([1]) and same(range(3)) == range(3)",
            "assert same(bytearray(b'x')) == bytearray(b'x')",
            "assert same(float('inf')) == float('inf') and same(float('nan')) != same(float('nan'))",
        ],
    ),
    honest(
        "language_types_differ",
        "types the test tells apart",
        "def kinds():\n    return [1, 1.0, True, '1', (1,), [1]]",
        ["assert [type(k).__name__ for k in kinds()] == ['int', 'float', 'bool', 'str', 'tuple', 'list']"],
    ),
]
