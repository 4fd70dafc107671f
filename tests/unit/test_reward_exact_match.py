"""exact_match: a table of answers that are and are not the reference's answer."""

import time

import pytest

from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.answers import final_number, marked

SAME = [
    ("42", "42"),
    ("1,234", "1234.0"),
    ("12,345,678", "12345678"),
    ("1\u202f234", "1234"),
    ("1{,}234", "1234"),
    ("$5.00", "5"),
    (r"\$5", "5"),
    ("€5", "5"),
    ("5 €", "€5"),
    ("$12$", "12"),
    ("1/2", "0.5"),
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac34", "3/4"),
    ("½", "0.5"),
    ("1½", "3/2"),
    ("1 1/2", "1.5"),
    ("50%", "50 %"),
    (r"50\%", "50%"),
    ("50%", "50"),
    (r"\boxed{12}", "12"),
    (r"so \boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    ("#### 12.", "12"),
    ("3 + 4 = 7 and so on\n#### 7", "#### 7"),
    ("**12**", "12"),
    ("12.", "12"),
    ("12", "012"),
    ("-5", "\u22125"),
    ("- 5", "-5"),
    ("-$5", "$-5"),
    ("+5", "5"),
    ("-0", "0"),
    (".5", "0.50"),
    ("1e3", "1000"),
    ("\uff11\uff12", "12"),
    ("\u0661\u0662", "12"),
    ("The answer is 12.", "12"),
    ("Answer: 12", "12"),
    ("The final answer is: 12 because it must be. I tried 3 times.", "12"),
    ("so she pays 12 dollars", "12"),
    ("first 5, then 7\n5 + 7 = 12", "12"),
    ("x = 12", "12"),
    ("12 dollars ($12)", "12"),
    ("The answer is Paris.", "paris"),
    ("  Paris ", "PARIS"),
    ("(1, 2)", "(1,2)"),
    ("x=5 or y", "x = 5 or y"),
    ("北京。", "北京"),
    ("cafe\u0301", "café"),
    ("😀", "😀"),
]
DIFFERENT = [
    ("50%", "0.5"),
    ("50%", "$50"),
    ("0.333", "1/3"),
    ("5", "-5"),
    ("10²", "102"),
    ("H₂O", "H2O"),
    ("1 2 3 12", "12"),
    ("11 or 12", "12"),
    ("12 12 12", "12"),
    ("12,13", "12"),
    ("1.12", "12"),
    ("12e", "12"),
    ("x12", "12"),
    ("10-12", "-12"),
    ("2024-01-12", "12"),
    ("12:30", "12"),
    ("12 apples", "12 pears"),
    ("12", "12 apples"),
    ("12\nno idea", "12"),
    (r"\boxed{11} 12", "12"),
    ("", "12"),
    (" \n", "12"),
    ("...", "!!"),
    ("5/0", "5"),
    ("1e999", "1"),
    ("Paris or Rome", "Paris"),
]


def score(answer, reference, **config):
    return RewardRegistry.create("exact_match", config).compute(
        RewardContext(generated_text=answer, answer=answer, reference_answer=reference)
    )


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_same(answer, reference):
    assert score(answer, reference) == 1.0


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_different(answer, reference):
    assert score(answer, reference) == 0.0


def test_abstains_without_a_reference():
    reward = RewardRegistry.create("exact_match")
    assert reward.compute(RewardContext(answer="12")) is None
    assert reward.compute(RewardContext(answer="12", reference_answer="  ", reference_completion=None)) is None


def test_reads_the_reference_behind_its_thinking():
    reward = RewardRegistry.create("exact_match")
    context = RewardContext(answer="30", reference_completion="<think>5+5=10</think>30")
    assert reward.compute(context) == 1.0


def test_require_mark():
    assert score("#### 12", "12", require_mark=True) == 1.0
    unmarked = score("12", "12", require_mark=True)
    assert unmarked == {"reward": 0.0, "reason": "the answer is not marked"}


def test_the_last_mark_wins():
    assert marked(r"\boxed{1} #### 2") == "2"
    assert marked(r"#### 2 \boxed{1}") == "1"
    assert marked(r"\boxed{a{b}c} and") == "a{b}c"
    assert marked(r"\boxed{never closed") == "never closed"
    assert marked("nothing marked") is None


def test_exact_arithmetic_beyond_floats():
    assert score("0.1", "1/10") == 1.0
    assert score("9007199254740993", "9007199254740992") == 0.0
    assert final_number("1/3").value * 3 == 1


@pytest.mark.parametrize(
    "text",
    ["9" * 6000, "9" * 5_000_000, "1," * 2_500_000, r"\frac{" + " " * 5_000_000, "é\u0301\u0316" * 1_000_000, "a" * 10],
    ids=["digits", "many digits", "commas", "fraction", "accents", "short"],
)
def test_long_texts_are_answered_at_once(text):
    start = time.perf_counter()
    assert score(text, text) == 1.0
    assert score(text, "12") == 0.0
    assert score(text + "x", text) == 0.0
    assert time.perf_counter() - start < 2
