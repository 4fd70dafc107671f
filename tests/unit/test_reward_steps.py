"""steps_coverage: what counts as a step being there."""

import time

import pytest

from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.steps import alike

STEPS = ["add 3 and 4", "multiply by 2", "write the result"]


def score(text, steps=STEPS, **config):
    result = RewardRegistry.create("steps_coverage", config).compute(
        RewardContext(generated_text=text, meta={"required_steps": steps})
    )
    return result["reward"]


def test_all_steps_whatever_the_order_and_what_else_is_said():
    assert score("We write the results down. First I added 3 and 4, ok; then multiplied by 2! Sing a song.") == 1.0
    assert score("<think>Add 3 and 4.\nMultiply by 2.</think>Write the result: 14") == 1.0


def test_missing_steps_are_named():
    result = RewardRegistry.create("steps_coverage").compute(
        RewardContext(generated_text="add 3 and 4", meta={"required_steps": STEPS})
    )
    assert result["reward"] == pytest.approx(1 / 3)
    assert result["missing"] == STEPS[1:]


@pytest.mark.parametrize("text", ["add 3 and 5", "add 3. And 4.", "", "3 4", "multiply"])
def test_a_step_needs_its_numbers_and_words_in_one_sentence(text):
    assert score(text, steps=["add 3 and 4"]) == 0.0


def test_decimals_do_not_end_a_sentence():
    assert score("take 3.5 times 2", steps=["take 3.5 times 2"]) == 1.0


def test_thousands_may_have_commas():
    assert score("take 1,000 times 2", steps=["take 1000 times 2"]) == 1.0
    assert score("take 1000 times 2", steps=["take 1,000 times 2"]) == 1.0
    assert score("take 1,2 times 2", steps=["take 12 times 2"]) == 0.0


def test_any_script():
    assert score("先加三和四。再乘以二。", steps=["加三和四", "乘以二", "写下结果"]) == pytest.approx(2 / 3)


def test_threshold():
    assert score("one two", steps=["one two nine ten"], threshold=0.5) == 1.0
    assert score("one two", steps=["one two nine ten"], threshold=0.6) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("add", "added", True), ("multiply", "multiplied", True), ("sum", "summary", False), ("add", "address", False)],
)
def test_alike(one, other, expected):
    assert alike(one, other) == alike(other, one) == expected


def test_abstains_without_steps():
    reward = RewardRegistry.create("steps_coverage")
    assert reward.compute(RewardContext(generated_text="x")) is None
    assert reward.compute(RewardContext(generated_text="x", meta={"required_steps": []})) is None


def test_steps_that_are_no_list():
    with pytest.raises(TypeError, match="must be a list of texts, not str"):
        score("x", steps="add")


def test_five_megabytes():
    start = time.perf_counter()
    assert score("add 3 and 5. " * 400_000) == 0.0
    assert time.perf_counter() - start < 1
