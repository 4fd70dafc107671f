"""countdown: which texts are an expression of the given numbers that makes the target, and which are not."""

import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.expressions import DEEPEST, LONGEST, NotArithmeticError, evaluate

NUMBERS = [8, 3, 8, 3]


def result(text, **meta):
    context = RewardContext(generated_text=text, meta={"numbers": NUMBERS, "target": 24} | meta)
    return RewardRegistry.create("countdown").compute(context)


def score(text, **meta):
    return result(text, **meta)["reward"]


SOLVES = [
    "8/(3-8/3)",
    " 8 / (3 - 8 / 3) ",
    "((8)/((3-(8/3))))",
    "8/(3-8/3) = 24",
    "24 = 8/(3-8/3)",
    "8/(3-8/3)=24.",
    "`8/(3-8/3)`",
    "**8/(3-8/3)**",
    "$8/(3-8/3)$",
    r"\(8/(3-8/3)\)",
    r"\boxed{8/(3-8/3)}",
    r"\boxed{\frac{8}{3-8/3}}",
    r"\frac{8}{3-\frac{8}{3}}",
    "so\n\\[\n8/(3-8/3) = 24\n\\]",
    r"$8 \div \left(3 - 8 \div 3\right)$",
    "8 \u00f7 (3 \u2212 8 \u00f7 3)",
    "The answer is 8/(3-8/3).",
    "Answer: 8/(3-8/3) = 24",
    "#### 8/(3-8/3)",
    "First I tried 8*3, but no.\n8/(3-8/3)",
    "8+8 = 16\n8/(3-8/3)\n\n",
    "```\n8/(3-8/3)\n```",
    "<think>8*3=24, and then?</think>8/(3-8/3)",
    "-8/(8/3-3)",
    "008/(3-8/3)",
]


@pytest.mark.parametrize("text", SOLVES)
def test_it_solves(text):
    assert score(text) == 1.0


FAILS = [
    ("", "it ends too early"),
    (" \n", "it ends too early"),
    ("24", "24 is used more often"),
    ("= 24", "it ends too early"),
    ("24 = 24", "24 is used more often"),
    ("8+8+3+3", "it makes 22"),
    ("8/(3-8/3)+1-1", "1 is used more often"),
    ("8*3", "8 is not used"),
    ("8+8+8", "8 is used more often"),
    ("8*3*8/8", "8 is used more often"),
    ("83-8-3", "83 is used more often"),
    ("8/(3-3)*8", "division by zero"),
    ("8/(8-8)", "division by zero"),
    ("8/0", "division by zero"),
    ("8**3", "'*' is out of place"),
    ("8//3", "'/' is out of place"),
    ("9**9**9**9", "'*' is out of place"),
    ("8^3", "more than numbers"),
    ("8e3", "more than numbers"),
    ("8.0/(3-8/3)", "more than numbers"),
    ("8(3)8(3)", "'(' is out of place"),
    ("8 3 8 3", "'3' is out of place"),
    ("(8/(3-8/3)", "a parenthesis is not closed"),
    ("8/(3-8/3))", "')' is out of place"),
    ("()", "')' is out of place"),
    ("+8/(3-8/3)", "'+' is out of place"),
    ("8/(3-8/3) = 23", "more than numbers"),
    ("8/(3-8/3) = 24 = 24", "more than numbers"),
    ("8/(3-8/3) or 8*3", "more than numbers"),
    ("8/(3-8/3), 8/(3-8/3)", "more than numbers"),
    ("8/(3-8/3) 8/(3-8/3)", "'8' is out of place"),
    ("8/(3-8/3)\nis one way, I think", "more than numbers"),
    ("8/(3-8/3)\n8+3", "8 is not used"),
    ("\u0668/(\u0663-\u0668/\u0663)", "more than numbers"),
    ("8/(3-8/\u00b3)", "more than numbers"),
    ("\uff18/(3-8/3)", "more than numbers"),
    ("__import__('os').getcwd()", "more than numbers"),
    ("8/(3-8/3)\x00", "more than numbers"),
    ("<think>8/(3-8/3)", "it ends too early"),
    ("9" * 5000, "longer than"),
    ("24=" + "9" * 5000, "longer than"),
    ("8/(3-8/3) = " + "0" * 5000 + "24", "longer than"),
    ("8/(3-8/3)" + " " * 5000 + "= 24", "longer than"),
]


@pytest.mark.parametrize(("text", "reason"), FAILS, ids=[f"{row}-{reason}" for row, (_, reason) in enumerate(FAILS)])
def test_it_does_not(text, reason):
    found = result(text)
    assert found["reward"] == 0.0
    assert reason in found["reason"]


def test_some_numbers_may_be_left_over_where_the_row_says_so():
    assert score("8*3", use_all=False) == 1.0
    assert score("8*3", use_all=True) == 0.0
    assert score("3*3*3-3", use_all=False) == 0.0


def test_the_target_may_be_negative():
    assert score("3-8 = -5", numbers=[3, 8], target=-5) == 1.0
    assert score("8-3 = 5", numbers=[3, 8], target=-5) == 0.0


def test_it_abstains_without_a_puzzle():
    reward = RewardRegistry.create("countdown")
    for meta in ({}, {"numbers": [1]}, {"target": 1}):
        assert reward.compute(RewardContext(generated_text="1", meta=meta)) is None


@pytest.mark.parametrize(
    "meta",
    [
        {"numbers": "8, 3"},
        {"numbers": []},
        {"numbers": ["8", "3"]},
        {"numbers": [8.0, 3]},
        {"numbers": [True, 3]},
        {"numbers": [-8, 3]},
        {"target": "24"},
        {"target": None},
        {"use_all": 1},
    ],
    ids=str,
)
def test_wrong_data_are_not_the_completions_fault(meta):
    with pytest.raises(TypeError, match=f"meta.{next(iter(meta))}"):
        result("8*3", **meta)


@pytest.mark.parametrize(
    "piece",
    ["(", ")", "-", "8+", "8=", "= 24 ", "\n", " ", "9", "8*3\n", r"\boxed{", r"\frac{", "\u00f7", "x", "#### "],
)
def test_five_megabytes_in_a_second(piece):
    start = time.process_time()
    assert score(piece * (5_000_000 // len(piece))) == 0.0
    assert time.process_time() - start < 1


def test_nesting_is_bounded():
    assert evaluate("(" * DEEPEST + "7" + ")" * DEEPEST).value == 7
    for text in ("(" * (DEEPEST + 1) + "7" + ")" * (DEEPEST + 1), "-" * (DEEPEST + 1) + "7"):
        with pytest.raises(NotArithmeticError, match="nested deeper"):
            evaluate(text)
    with pytest.raises(NotArithmeticError, match="longer than"):
        evaluate("(" * 10_000 + "7" + ")" * 10_000)
    assert evaluate("+".join(["1"] * (LONGEST // 2))).value == LONGEST // 2


def tree():
    """Expressions as pairs of text and value, computed on the way; None where something is divided by zero."""

    def joined(parts):
        (left, a), operator, (right, b) = parts
        text = f"({left}{operator}{right})"
        if a is None or b is None or (operator == "/" and b == 0):
            return text, None
        return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]

    leaf = st.integers(0, 99).map(lambda number: (str(number), Fraction(number)))
    return st.recursive(leaf, lambda part: st.tuples(part, st.sampled_from("+-*/"), part).map(joined), max_leaves=12)


@given(case=tree())
def test_values_are_exact(case):
    text, value = case
    if value is None:
        with pytest.raises(NotArithmeticError, match="division by zero"):
            evaluate(text)
    else:
        assert evaluate(text).value == value


@given(text=st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_whatever_is_read_python_reads_the_same(text):
    try:
        found = evaluate(text)
    except NotArithmeticError:
        return
    exact = re.sub(r"[0-9]+", r"Fraction('\g<0>')", text.strip())
    assert found.value == eval(exact, {"Fraction": Fraction})
    assert found.numbers == tuple(map(int, re.findall(r"[0-9]+", text)))
