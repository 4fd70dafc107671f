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
    "**Answer**: B",
    '"B"',
    "The answer is 'B'.",
    r"\textbf{B}",
    "\uff22",
    "\uff08\uff22\uff09",
    "It is B.",
    "I guess it is B",
    "A is wrong. B is right.",
    "I think A, but B is correct.",
    "The correct option is B.",
    "\u7b54\u6848\u662fB\u3002",
    "\u7b54\u3048\u306fB\u3067\u3059\u3002",
    "Let me think.\n\nB",
    "A. It is warm.\nC. It is cold.\n\n**B**",
    "B\n\nA is warm, C is a mixture.",
    "A. red is warm.\nB. green is not.\nC. blue is cold.\nSo it is B.",
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
    "B is wrong.",
    "It is not B.",
    "It isn't B.",
    "It is A or B",
    "neither A nor B",
    "20 \u00b0B",
    "A) red\nB) green\nC) light green\nD) blue",
]


@pytest.mark.parametrize(
    "answer",
    [*NOTHING_RIGHT, "red or green", "1. think\n2. answer", "greenish", "BB", "I am B2", "B B B", "B, B, B, B"],
)
def test_b_is_not_chosen(answer):
    assert score(answer) == 0.0


@pytest.mark.parametrize(
    ("answer", "value"), [("3.", 1), ("It is 3", 1), ("3.5", 0), ("It is -3", 0), ("3/4", 0), ("13", 0)]
)
def test_a_number_as_an_option_is_found_whole(answer, value):
    assert score(answer, options=["2", "3"]) == value


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
    start = time.process_time()
    assert score(piece * (5_000_000 // len(piece))) in (0.0, 1.0)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("piece", ["\n", " ", "A) ", "A) x  "])
def test_a_prompt_of_five_megabytes(piece):
    start = time.process_time()
    prompt = piece * (5_000_000 // len(piece))
    context = RewardContext(prompt_text=prompt, generated_text="A", reference_answer="A")
    assert RewardRegistry.create("mcq_accuracy").compute(context) is None
    assert time.process_time() - start < 1
