"""format_structure: every shape a completion can have, and the length credit of a well-formed one."""

import pytest

from pipelines.errors import ConfigError
from pipelines.rewards import RewardContext, RewardRegistry

ACCEPTANCE = {
    "min_think_length": 10,
    "min_answer_length": 2,
    "think_length_target_min": 40,
    "think_length_target_max": 90,
}


def value(context, **config):
    return RewardRegistry.create("format_structure", config).compute(context)["reward"]


SHAPES = [
    ("<think>add them</think>42", 1.0),
    ("  <think>\nadd\n</think>\n42\n", 1.0),
    ("<think>😀</think>四十二", 1.0),
    ("<think>add them 42", 0.3),
    ("add them</think>42", 0.3),
    ("<think>add</think>", 0.3),
    ("<think>add</think>  \n", 0.3),
    ("<think></think>42", 0.3),
    ("<think>a</think>b<think>c</think>42", 0.2),
    ("<think>a<think>b</think>c</think>42", 0.2),
    ("<think>a</think>b</think>42", 0.2),
    ("<think><think>a", 0.2),
    ("a</think>42<think>", 0.2),
    ("Sure! <think>a</think>42", 0.2),
    ("just 42", 0.1),
    ("<Think>a</Think>42", 0.1),
    ("", 0.0),
    (" \n\t", 0.0),
    ("<think></think>", 0.0),
    ("<think>", 0.0),
]


@pytest.mark.parametrize(("text", "expected"), SHAPES)
def test_shapes(text, expected):
    assert value(RewardContext(generated_text=text)) == expected


PREOPENED = [
    ("add them</think>42", 1.0),
    ("add them 42", 0.3),
    ("</think>42", 0.3),
    ("add</think>", 0.3),
    ("<think>add</think>42", 0.2),
    ("a</think>b</think>42", 0.2),
    ("", 0.0),
    ("</think>", 0.0),
]


@pytest.mark.parametrize(("text", "expected"), PREOPENED)
def test_a_preopened_tag_counts_as_opened(text, expected):
    assert value(RewardContext(generated_text=text, thinking_opened=True)) == expected


def sized(thinking_tokens, answer_tokens=2):
    return RewardContext(
        generated_text="<think>t</think>a",
        thinking="t",
        answer="a",
        thinking_tokens=thinking_tokens,
        answer_tokens=answer_tokens,
    )


@pytest.mark.parametrize(
    ("tokens", "credit"),
    [(0, 0), (5, 0.25), (10, 0.5), (25, 0.75), (40, 1), (65, 1), (90, 1), (135, 0.5), (180, 0), (10_000, 0)],
)
def test_thinking_length_is_piecewise_linear(tokens, credit):
    assert value(sized(tokens), **ACCEPTANCE) == pytest.approx(0.3 + 0.7 * credit)


def test_a_short_answer_is_credited_in_proportion():
    assert value(sized(50, answer_tokens=1), **ACCEPTANCE) == pytest.approx(0.65)
    assert value(sized(50, answer_tokens=3), **ACCEPTANCE) == 1.0


def test_without_a_target_only_the_minimum_counts():
    assert value(sized(5), min_think_length=10) == pytest.approx(0.65)
    assert value(sized(5000), min_think_length=10) == 1.0


def test_other_tags():
    context = RewardContext(generated_text="[T]add[/T]42", think_tags=("[T]", "[/T]"))
    assert value(context) == 1.0


def test_says_which_shape_it_saw():
    result = RewardRegistry.create("tag_structure").compute(RewardContext(generated_text="<think>a"))
    assert result == {"reward": 0.3, "shape": "half a block"}


def test_targets_must_be_in_order():
    with pytest.raises(ConfigError, match="think_length_target_min <= think_length_target_max"):
        RewardRegistry.create("format_structure", {"think_length_target_min": 9, "think_length_target_max": 3})


def test_five_megabytes():
    text = "<think>" * 700_000
    assert value(RewardContext(generated_text=text, thinking=text, thinking_tokens=1, answer_tokens=0)) == 0.0
    text += "x"
    assert value(RewardContext(generated_text=text, thinking=text, thinking_tokens=1, answer_tokens=0)) == 0.2
