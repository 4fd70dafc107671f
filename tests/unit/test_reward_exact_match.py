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
    ("90\u00b0", r"90^{\circ}"),
    (r"$90^\circ$", "90"),
    ("90 degrees", "90\u00b0"),
    (r"\frac12", r"\tfrac{1}{2}"),
    (r"5 \frac{1}{2}", "11/2"),
    ("1 \u00bd", "1.5"),
    (r"1.2 \times 10^{3}", "1200"),
    ("1.2\u00d710\u00b3", "1200"),
    (r"\boxed{420\times10^{-1}}", "42"),
    ("$10^{6}$", "1000000"),
    ("minus 5", "-5"),
    ("it is negative $5", "-5"),
    ("答案是42。", "42"),
    ("答えは42です。", "42"),
    ("정답은 42입니다.", "42"),
    ("คำตอบคือ42", "42"),
    ("so\n\\[\n12\n\\]", "12"),
    ("so\n$$\n5 + 7 = 12\n$$", "12"),
    ("so\n```\n12\n```", "12"),
    ("12\n\n---", "12"),
    ("#### Step 1: Sum\n5 + 7 = 12\n#### Step 2: Answer\nThe answer is 12.", "12"),
    ("#### 1. Sum\nit is\n\n#### Final Answer\n**12**", "12"),
    (r"\boxed{12} #### Check" + "\n5 of 5", "12"),
    ("#### 12 apples\nQ: and 5?", "12"),
    ("**Answer**: Paris", "Paris"),
    (r"\sqrt{2}", r"$\sqrt 2$"),
    ("√2", r"\boxed{\sqrt{2}}"),
    (r"2 \pi", "2π"),
    (r"\dfrac{\sqrt{3}}{2}", r"\frac{\sqrt3}{2}"),
    (r"\frac{a+b}{2c}", "(a + b)/(2c)"),
    ("x^2 + 1", "x^{2}+1"),
    ("x\u00b9\u00b2", "x^{12}"),
    (r"1 \pm \sqrt{2}", r"1\pm\sqrt{2}"),
    (r"x \leq 5", "x≤5"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\boxed{\textbf{(C)}}", "C"),
    (r"12\,\text{cm}", "12 cm"),
    (r"\{1, 2\}", "{1,2}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("(3, 4)", "$(3,4)$"),
    ("don\u2019t", "don't"),
]
IN_A_FORMULA = [
    *("2+2", "2 + 2", "2*2", "2 x 2", "2 \u00d7 2", r"2 \cdot 2", "2-2", "2:2", "2/x", "2^x", "x^2", "a^{2}", "x_{2}"),
    *("x+2", "x - 2", "2x + 2", "2 + x", "item-2", "2x", r"\sqrt{2}", r"\sqrt 2", "√2", r"\sqrt[3]{2}", r"\pm 2"),
    *(r"2\pi", r"2 \theta", r"\log 2", r"\overline{2}", r"2.\overline{2}", r"\binom{n}{2}", r"x \le 2"),
    *("(x, 2)", "(2, 2)", r"(-\infty, 2)", r"[2, \infty)", r"\{x, 2\}", "|2|x", "2 10^2", "2万", "2nd"),
]
IN_WORDS = [
    *("about 2", "makes **2** dollars", "makes *2* dollars", "* 2", "**2** apples", "a 2 metre rope"),
    *(
        "2 cm^2",
        r"$2 \text{ cm}^{2}$",
        "2 m/s",
        "2 km / h",
        "($2)",
        "(2)",
        "2 (about)",
        "is +2",
        "2 - that is all",
        "a is 2",
    ),
    *(r"\approx 2", r"\therefore 2", r"In \triangle ABC it is 2", "f(x) has 2 roots", "two-digit 2", r"2\ \mathrm{kg}"),
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
    ("180\u00b0", "180%"),
    (r"42 \times 10^1", "42"),
    ("10^2", "10"),
    ("minus 12", "12"),
    ("5 minus 5", "5"),
    ("#### Step 12: Money\nis 5", "12"),
    ("x + 1/2", r"\frac{x+1}{2}"),
    (r"\frac{1}{2}x", r"\frac{1}{2x}"),
    ("(0, 1)", "[0, 1]"),
    ("3,4", "(3,4)"),
    (r"\infty", r"-\infty"),
    ("2", r"so it is $\boxed{\sqrt{2}}$"),
    ("1", r"so it is $\boxed{x^2+1}$"),
    ("-1", r"so it is $\boxed{x - 1}$"),
    (r"[2, \infty)", r"so it is $\boxed{(-\infty, 2)}$"),
    ("3", r"so it is $\boxed{\pm 3}$"),
]


def score(answer, reference, **config):
    return RewardRegistry.create("exact_match", {"math_verify": "never", **config}).compute(
        RewardContext(generated_text=answer, answer=answer, reference_answer=reference)
    )


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_same(answer, reference):
    assert score(answer, reference) == 1.0


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_different(answer, reference):
    assert score(answer, reference) == 0.0


@pytest.mark.parametrize("formula", IN_A_FORMULA)
def test_a_number_in_a_formula_is_not_the_answer(formula):
    assert score(formula, "2") == score(f"The value is {formula}", "2") == score(rf"\boxed{{{formula}}}", "2") == 0.0


@pytest.mark.parametrize("words", IN_WORDS)
def test_a_number_in_words_is_the_answer(words):
    assert score(words, "2") == score(f"With 5 and 6:\n{words}", "2") == 1.0


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
    start = time.process_time()
    assert score(text, text) == 1.0
    assert score(text, "12") == 0.0
    assert score(text + "x", text) == 0.0
    assert time.process_time() - start < 2
