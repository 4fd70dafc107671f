"""Laws of rewards: total on any text, within range, blind to order and to the scale of the weights."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RewardConfig
from pipelines.rewards import RewardComposer, RewardContext, RewardRegistry
from pipelines.rewards.answers import same_answer

RANGES = {
    "exact_match": (0, 1, {}),
    "format_structure": (0, 1, {"min_think_length": 3, "think_length_target_min": 5, "think_length_target_max": 9}),
    "length_penalty": (0, 1, {"target_length": 5, "max_length": 9, "min_length": 2}),
    "thinking_quality": (0, 1, {"target_length_min": 2, "target_length_max": 5, "excessive_length_threshold": 8}),
    "answer_quality": (0, 1, {"phrases": ["42", "the"], "ngram_size": 1}),
    "semantic_similarity": (0, 1, {"apply_length_penalty": True, "apply_verbosity_penalty": True, "min_length": 3}),
    "steps_coverage": (0, 1, {}),
    "mcq_accuracy": (0, 1, {"mode": "jaccard"}),
    "countdown": (0, 1, {}),
    "reasoning_gym": (0, 1, {"outside_sandbox": True}),
    "repetition_penalty": (-2, 0, {"max_penalty": 2.0, "ngram_size": 1}),
    "soft_overlong": (-1, 0, {"max_length": 5, "cache_length": 2}),
}
TAGS_AND_MARKS = ["<think>", "</think>", "####", r"\boxed{", "}", r"\frac{1}{2}", "The answer is ", "(B)", "**", "="]
NUMBERS = ["42", "-1/2", "$", "%", "1,000", ".5", "e9", "\u2212", "½", "²", "\u0661"]
pieces = st.sampled_from([*TAGS_AND_MARKS, *NUMBERS, "中文", "😀", "e\u0301", " ", "\n", "\u202f", "\x00"])
texts = st.one_of(st.text(), st.lists(pieces, max_size=12).map("".join))
metas = st.fixed_dictionaries(
    {},
    optional={
        "required_steps": st.lists(texts),
        "options": st.lists(texts),
        "correct_letters": st.text("ABC"),
        "numbers": st.lists(st.integers(0, 99), min_size=1),
        "target": st.integers(0, 99),
    },
)
contexts = st.builds(
    RewardContext,
    prompt_text=texts,
    generated_text=texts,
    reference_answer=st.none() | texts,
    meta=metas,
    thinking_opened=st.booleans(),
    finish_reason=st.sampled_from(["stop", "length"]),
)


@pytest.mark.parametrize("name", sorted(RANGES))
@given(context=contexts)
def test_total_and_within_range(name, context):
    low, high, config = RANGES[name]
    result = RewardRegistry.create(name, config).compute(context)
    if result is not None:
        value = result["reward"] if isinstance(result, dict) else result
        assert low <= value <= high


RUNS_CODE = {"code_execution"}
"""Takes a process a completion: its laws have tests of their own."""


def test_every_reward_has_a_range():
    ours = {name for name in RewardRegistry.names() if RewardRegistry.get(name).__module__.startswith("pipelines.")}
    assert {RewardRegistry.canonical(name) for name in ours} - RUNS_CODE == set(RANGES)


@pytest.mark.parametrize("method", ["tfidf", "jaccard", "rouge_l"])
@given(text=texts, other=texts)
def test_similarity_to_itself_is_one(method, text, other):
    reward = RewardRegistry.create("semantic_similarity", {"method": method})
    itself = reward.compute(RewardContext(answer=f"{text} x", reference_answer=f"{text} x"))
    different = reward.compute(RewardContext(answer=f"{text} x", reference_answer=f"{other} y"))
    assert itself["reward"] == 1.0
    assert 0 <= different["reward"] <= 1.0


@given(text=texts)
def test_every_text_is_its_own_answer(text):
    assert same_answer(text, text) == bool(text.strip())


@given(value=st.fractions(), percent=st.booleans())
def test_a_number_is_itself_however_written(value, percent):
    sign = "%" if percent else ""
    assert same_answer(f"{value}{sign}", f"{value} {sign}")
    assert same_answer(f"The answer is {value}{sign}.", f"#### {value}{sign}")
    assert same_answer(rf"\boxed{{{value}}}", f"{value}")


@given(one=st.integers(), other=st.integers())
def test_different_integers_differ(one, other):
    assert same_answer(f"{one:,}", str(other)) == (one == other)


def composer(scale=1.0):
    weights = {"exact_match": 1.0, "format_structure": 0.5, "length_penalty": 0.25}
    return RewardComposer(
        [RewardConfig(name=name, weight=weight * scale, config=RANGES[name][2]) for name, weight in weights.items()]
    )


every_reward = RewardComposer([RewardConfig(name=name, config=config) for name, (_, _, config) in RANGES.items()])


@given(data=st.data(), batch=st.lists(contexts, max_size=6))
def test_order_changes_nothing(data, batch):
    order = data.draw(st.permutations(range(len(batch))))
    straight, shuffled = every_reward.score(batch), every_reward.score([batch[index] for index in order])
    assert straight.failures == shuffled.failures == ()
    assert shuffled.details == tuple(straight.details[index] for index in order)
    np.testing.assert_array_equal(shuffled.values, straight.values[order])
    np.testing.assert_array_equal(shuffled.totals, straight.totals[order])


@given(batch=st.lists(contexts, min_size=1, max_size=4), scale=st.floats(1e-3, 1e3))
def test_only_the_proportion_of_weights_matters(batch, scale):
    np.testing.assert_allclose(
        composer(scale).score(batch).totals, composer().score(batch).totals, rtol=1e-6, atol=1e-7
    )


@given(batch=st.lists(contexts, min_size=1, max_size=4))
def test_a_total_lies_between_its_components(batch):
    scores = composer().score(batch)
    for total, values in zip(scores.totals, scores.values, strict=True):
        present = [value for value in values.tolist() if not math.isnan(value)]
        assert min(present) - 1e-6 <= total <= max(present) + 1e-6
