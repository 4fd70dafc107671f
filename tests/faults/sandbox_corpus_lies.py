"""Answers that lie about what they are."""

from sandbox_corpus import PUZZLE, Entry, hostile

ALWAYS = """
class Always:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __contains__(self, item): return True
"""


def subclass(kind: str, value: str) -> str:
    return f"""
class Lie({kind}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __sub__
def puzzle(n):
    return Lie({value})
"""


def lie(name: str, why: str, code: str, tests: list[object] | None = None) -> Entry:
    return hostile(name, why, code, tests)


EQUALITY: list[Entry] = [
    lie("equal_always", "equals everything", ALWAYS + "def puzzle(n):\n    return Always()"),
    lie(
        "equal_reflected",
        "equals from the right-hand side",
        ALWAYS + "def puzzle(n):\n    return Always()",
        ["assert 82763 == puzzle(17)", "assert not 82763 != puzzle(17)", "assert puzzle(17) in (82763,)"],
    ),
    lie(
        "equal_inside",
        "hides in containers",
        ALWAYS + "def puzzle(n):\n    return [Always(), {'x': Always()}]",
        ["assert puzzle(17) == [82763, {'x': 91837}]", "assert puzzle(17)[0] == 82763"],
    ),
    lie("equal_int", "an int that equals every number", subclass("int", "0")),
    lie("equal_float", "a float that equals every number", subclass("float", "0.0")),
    lie(
        "equal_str",
        "a str that equals every text",
        subclass("str", "'no'"),
        ["assert puzzle(17) == 'yes'", "assert 'yes' == puzzle(17)"],
    ),
    lie(
        "equal_list",
        "a list that equals every list",
        subclass("list", "[1]"),
        ["assert puzzle(17) == [8, 2, 7]", "assert [8, 2, 7] == puzzle(17)"],
    ),
    lie(
        "equal_dict",
        "a dict that equals every dict",
        subclass("dict", "{}"),
        ["assert puzzle(17) == {'a': 1}", "assert {'a': 1} == puzzle(17)"],
    ),
    lie(
        "equal_tuple",
        "a tuple that equals every tuple",
        subclass("tuple", "()"),
        ["assert puzzle(17) == (8, 2)", "assert (8, 2) == puzzle(17)"],
    ),
    lie(
        "equal_set",
        "a set that equals every set",
        subclass("set", "()"),
        ["assert puzzle(17) == {8, 2}", "assert {8, 2} == puzzle(17)"],
    ),
    lie(
        "equal_decimal",
        "a Decimal that equals every number",
        "from decimal import Decimal\n" + subclass("Decimal", "0"),
    ),
    lie(
        "equal_close",
        "is close to every number",
        subclass("float", "0.0") + "Lie.__abs__ = lambda self: 0.0\n",
        ["assert abs(puzzle(17) - 82763) < 1e-6", "import math\nassert math.isclose(puzzle(17), 82763)"],
    ),
    lie(
        "equal_arithmetic",
        "swallows arithmetic and compares as smaller",
        ALWAYS
        + """
Always.__sub__ = Always.__rsub__ = Always.__abs__ = lambda self, *_: self
def puzzle(n):
    return Always()
""",
        ["assert abs(puzzle(17) - 82763) < 1e-6"],
    ),
    lie(
        "equal_class_lie",
        "says that its class is int",
        ALWAYS + "Always.__class__ = property(lambda self: int)\ndef puzzle(n):\n    return Always()",
        ["result = puzzle(17)\nassert isinstance(result, int) and result == 82763"],
    ),
    lie(
        "equal_metaclass",
        "a class whose metaclass equals everything",
        """
        class Meta(type):
            def __eq__(cls, other): return True
            def __ne__(cls, other): return False
            def __hash__(cls): return 0
            def __instancecheck__(cls, thing): return True
        class Lie(metaclass=Meta): pass
        def puzzle(n):
            return Lie
        """,
    ),
    lie(
        "equal_getattr",
        "has every attribute, and each equals everything",
        ALWAYS
        + """
Always.__getattr__ = lambda self, name: self
Always.__call__ = lambda self, *a, **k: self
def puzzle(n):
    return Always()
""",
        ["assert puzzle(17).total == 82763", "assert puzzle(17).items()[0].total(3) == 82763"],
    ),
    lie(
        "equal_puzzle_itself",
        "the asked function is the object that lies",
        ALWAYS + "Always.__call__ = lambda self, *a, **k: self\npuzzle = Always()",
    ),
    lie(
        "equal_evil_len",
        "lies in __len__, __iter__ and __hash__",
        """
        class Lie(list):
            def __len__(self): return 3
            def __iter__(self): return iter([8, 2, 8])
            def __getitem__(self, index): return Lie()
            def __eq__(self, other): return True
            def __hash__(self): return hash((8, 2, 7))
        def puzzle(n):
            return Lie()
        """,
        ["assert puzzle(17) == [8, 2, 7]", "assert puzzle(17)[0] == 7", "assert sorted(puzzle(17)) == [2, 7, 8]"],
    ),
    lie(
        "equal_namedtuple",
        "a namedtuple whose equality lies",
        """
        from collections import namedtuple
        class Lie(namedtuple("Lie", "x y")):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = tuple.__hash__
        def puzzle(n):
            return Lie(0, 0)
        """,
        ["assert puzzle(17) == (82763, 1)", "assert tuple(puzzle(17)) == (82763, 1)", "assert puzzle(17).x == 82763"],
    ),
    lie(
        "equal_dataclass",
        "a class of its own whose equality lies",
        """
        class Point:
            def __init__(self, x, y): self.x = 0
            def __eq__(self, other): return True
        def puzzle(n):
            return Point(n, n)
        """,
        ["assert puzzle(17) == Point(17, 17) and puzzle(17).x == 17"],
    ),
    lie(
        "equal_nan",
        "not a number, wherever numbers are asked",
        "def puzzle(n):\n    return float('nan')",
        [*PUZZLE, "assert abs(puzzle(17) - 3) < 1"],
    ),
    lie(
        "equal_mock",
        "the mock of the standard library",
        "from unittest.mock import ANY\ndef puzzle(n):\n    return ANY",
    ),
    lie(
        "equal_magic_mock",
        "a mock that answers all",
        "from unittest.mock import MagicMock\npuzzle = MagicMock()\npuzzle.return_value.__eq__.return_value = True",
    ),
    lie(
        "equal_argument_changed",
        "changes the mutable argument to equal what comes back",
        "def puzzle(values):\n    values.clear()\n    return values",
        ["assert puzzle([3, 1, 2]) == [1, 2, 3]", "values = [3, 1, 2]\nassert puzzle(values) == sorted([3, 1, 2])"],
    ),
    lie(
        "equal_lying_true",
        "is true without being True",
        ALWAYS + "def puzzle(n):\n    return Always()",
        ["assert puzzle(17) is True", "assert puzzle(17) == True"],
    ),
]

GADGETS: list[Entry] = [
    lie(
        "gadget_reduce_system",
        "runs a program in whoever unpickles it",
        """
import os
class Gadget:
    def __reduce__(self): return (os.system, ('touch @MARKER@',))
def puzzle(n):
    return Gadget()
""",
    ),
    lie(
        "gadget_reduce_eval",
        "becomes the expected value, or an exit, where it is unpickled",
        """
class Gadget(int):
    def __reduce__(self): return (eval, ('__import__("os")._exit(0)',))
def puzzle(n):
    return Gadget()
""",
    ),
    lie(
        "gadget_reduce_exception",
        "travels in an exception",
        """
        import os
        class Gadget(Exception):
            def __reduce__(self): return (os.system, ("touch @MARKER@",))
            def __str__(self): os.system("touch @MARKER@"); return "passed"
        def puzzle(n):
            raise Gadget
        """,
    ),
    lie(
        "gadget_evil_repr",
        "__repr__, __str__ and __format__ answer for it",
        """
class Lie:
    def __repr__(self): return '82763'
    __str__ = __repr__
    def __format__(self, how): return '82763'
def puzzle(n):
    return Lie()
""",
    ),
    lie(
        "gadget_index",
        "passes for an integer through __index__ and __int__",
        """
class Lie:
    def __index__(self): return 82763
    __int__ = __index__
    def __float__(self): return 82763.0
def puzzle(n):
    return Lie()
""",
    ),
    lie(
        "gadget_deep",
        "nested deeper than any reader recurses",
        "def puzzle(n):\n    value = []\n    for _ in range(200000):\n        value = [value]\n    return value",
    ),
    lie(
        "gadget_self_reference",
        "a list that holds itself",
        "def puzzle(n):\n    value = [1]\n    value.append(value)\n    return value",
    ),
    lie(
        "gadget_self_reference_dict",
        "a dict that holds itself",
        "def puzzle(n):\n    value = {}\n    value['x'] = value\n    return value",
        ["assert puzzle(17) == {'x': 1}"],
    ),
    lie("gadget_huge_int", "an integer of millions of digits", "def puzzle(n):\n    return 1 << 40000000", PUZZLE[:1]),
    lie(
        "gadget_surrogate",
        "a text that no encoding holds",
        "def puzzle(n):\n    return '\\ud800' * 5",
        ["assert puzzle(17) == 'x'"],
    ),
    lie(
        "gadget_wide",
        "a dictionary with a million keys",
        "def puzzle(n):\n    return {index: str(index) for index in range(10**6)}",
        PUZZLE[:1],
    ),
    lie(
        "gadget_code",
        "returns a code object, a frame and a module",
        "import sys\ndef puzzle(n):\n    return [puzzle.__code__, sys._getframe(), sys]",
    ),
    lie(
        "gadget_evil_keys",
        "keys that pass for the reader's own",
        "def puzzle(n):\n    return {'__class__': 'int', '__type__': 'int', 'type': 'int', 'value': 82763, 'ok': True}",
    ),
    lie(
        "gadget_callback_patched",
        "hands the test's function something that patches",
        """
        class Lie:
            def __eq__(self, other): return True
            def __mul__(self, other): return self
            __rmul__ = __add__ = __radd__ = __mul__
        def puzzle(function):
            return function(Lie())
        """,
        ["assert puzzle(lambda x: x * 2 == 82763) is True", "seen = []\npuzzle(seen.append)\nassert seen == [82763]"],
    ),
    lie(
        "gadget_callback_globals",
        "reaches through the test's function for its globals",
        """
        def puzzle(function):
            space = function.__globals__
            space["EXPECTED"] = 0
            space["assert_equal"] = lambda *_: None
            return 0
        """,
        ["EXPECTED = 82763\nassert puzzle(lambda x: EXPECTED) == EXPECTED"],
    ),
    lie(
        "gadget_callback_code",
        "reads the constants of the test's function",
        "def puzzle(function):\n    return max(v for v in function.__code__.co_consts if isinstance(v, int))",
        ["def wanted(x):\n    return 82763 if x == 'right' else 0\nassert puzzle(wanted) == 82763"],
    ),
    lie(
        "gadget_callback_flood",
        "calls the test's function without end",
        "def puzzle(function):\n    while True:\n        function(1)",
        ["assert puzzle(lambda x: x) == 2"],
    ),
]
