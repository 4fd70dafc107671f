"""mcq_accuracy: a table of ways to choose a letter, and of texts that choose none."""

import time

import pytest

from pipelines.rewards import RewardContext, RewardRegistry

OPTIONS = ["red", "green", "light green", "blue"]


def score(answer, correct="B", options=OPTIONS, **config):
    meta = {"options": options, "correct_letters": correct}
    result = RewardRegistry.create("mcq_accuracy", config).compute(
        RewardContext(generated_text=answer, answer=answer, meta=meta)
    )
    return result["reward"]


B_IS_CHOSEN = [
    "B",
    "b",
    "(B)",
    "[B]",
    "B.",
    "B)",
    "**B**",
    "*(B)*",
    "`B`",
    "$B$",
    "Answer: B",
    "answer: (b)",
    "**Answer:** B",
    "The answer is B.",
    "The answer is **B**, green.",
    "The correct answer is (B) because A is too warm.",
    r"\boxed{B}",
    r"\boxed{\text{B}}",
    "#### B",
    "A cat sat. B) yes",
    "B) green",
    "B: green",
    "B - green",
    "B, since it grows",
    "B because A is red",
    "I choose option B",
    "Option A looks warm.\nThe answer is B",
    "green",
    "Green.",
    "It must be green!",
    "The answer is green.",
]


@pytest.mark.parametrize("answer", B_IS_CHOSEN)
def test_b_is_chosen(answer):
    assert score(answer) == 1.0


NOTHING_RIGHT = [
    "",
    "A",
    "A, B",
    "A B C D",
    "ABCD",
    "(A) or (B)",
    "Be careful",
    "A boy sat",
    "none",
    "E",
    "light green",
]


@pytest.mark.parametrize("answer", [*NOTHING_RIGHT, "red or green", "1. think\n2. answer", "greenish", "BB", "I am B2"])
def test_b_is_not_chosen(answer):
    assert score(answer) == 0.0


def test_the_longest_option_counts():
    assert score("It is light green", correct="C") == 1.0


@pytest.mark.parametrize("correct", ["AC", "A, C", ["A", "C"], ["c", "a"], "A&C"])
@pytest.mark.parametrize("answer", ["A, C", "(A) and (C)", "C A", "AC", "A & C", "The answer is A and C."])
def test_several_letters(correct, answer):
    assert score(answer, correct=correct) == 1.0


def test_jaccard_gives_partial_credit():
    assert score("A", correct="AC", mode="jaccard") == 0.5
    assert score("A, B, C", correct="AC", mode="jaccard") == pytest.approx(2 / 3)
    assert score("nothing", correct="AC", mode="jaccard") == 0.0


def test_forms_of_meta():
    reward = RewardRegistry.create("mcq_accuracy")

    def chosen(answer, **meta):
        return reward.compute(RewardContext(answer=answer, generated_text=answer, meta=meta))["reward"]

    assert chosen("B", options=OPTIONS, correct_index=1) == 1.0
    assert chosen("A", options=OPTIONS, correct_index=0) == 1.0
    assert chosen("A, D", options=OPTIONS, correct_index=[0, 3]) == 1.0
    assert chosen("green", options={"A": "red", "B": "green"}, correct_letters="B") == 1.0
    assert chosen("green", options=["A) red", "B) green"], correct_letters=["B"]) == 1.0
    assert chosen("B", correct_letters="B") == 1.0


def test_a_question_in_the_prompt():
    reward = RewardRegistry.create("mcq_accuracy")
    question = "Which?\nA) red\nB) green\nC) blue"
    context = RewardContext(prompt_text=question, generated_text="green", reference_answer="B")
    assert reward.compute(context) == {"reward": 1.0, "chosen": ["B"]}


@pytest.mark.parametrize(
    "context",
    [
        RewardContext(generated_text="B"),
        RewardContext(prompt_text="Do:\n1. think\n2. write\n3. rest", generated_text="1. x", reference_answer="1. x"),
        RewardContext(prompt_text="Plan:\nA. think\nC. rest", generated_text="A", reference_answer="A"),
        RewardContext(prompt_text="Which?\nA) red\nB) green", generated_text="A", reference_answer="mauve"),
        RewardContext(generated_text="B", meta={"options": OPTIONS}),
    ],
)
def test_no_multiple_choice_question(context):
    assert RewardRegistry.create("mcq_accuracy").compute(context) is None


@pytest.mark.parametrize("piece", ["B ", "A) ", "green ", "answer is ", "(", "**"])
def test_five_megabytes(piece):
    start = time.perf_counter()
    assert score(piece * (5_000_000 // len(piece))) in (0.0, 1.0)
    assert time.perf_counter() - start < 1
