"""From items to records to metrics, with the real engine on a blank model."""

import numpy as np
import pytest

from pipelines.config import GenerationConfig
from pipelines.errors import ConfigError
from pipelines.evaluation import scoring
from pipelines.evaluation.base import EvaluatorConfig
from pipelines.evaluation.completions import Prompt
from pipelines.evaluation.decoding import ended
from pipelines.evaluation.exact_match import ExactMatch, read
from pipelines.evaluation.records import by_item, metrics, own
from pipelines.evaluation.scoring import chosen, score, temperature_of
from pipelines.evaluation.statistics import wilson
from pipelines.models.load import load
from pipelines.models.tiny import write_blank
from pipelines.rewards import RewardContext
from pipelines.rows.records import Row

MAX_TOKENS = 6


def record(item, correct, tokens=4, finish_reason="stop", well_formed=True):
    return {
        "item": item,
        "correct": correct,
        "tokens": tokens,
        "finish_reason": finish_reason,
        "well_formed": well_formed,
    }


def test_metrics_worked_out_by_hand():
    found = metrics([record(0, True), record(1, False, 8, "length", False), record(2, True), record(3, True)])
    low, high = wilson(3, 4)
    assert found == {
        "accuracy": 0.75,
        "low": low,
        "high": high,
        "n": 4,
        "samples": 1,
        "mean_length": 5.0,
        "truncation_rate": 0.25,
        "format_rate": 0.75,
    }


def test_several_samples_count_as_one_item():
    records = [record(7, True), record(7, False), record(9, True), record(9, True)]
    assert by_item(records) == {7: 0.5, 9: 1.0}
    found = metrics(records)
    assert (found["accuracy"], found["n"], found["samples"]) == (0.75, 2, 2)
    assert (found["low"], found["high"]) == wilson(1.5, 2)


def prompts(count):
    return [Prompt(i, np.array([4, 9 + i], np.int32), False, Row("q", completion="1")) for i in range(count)]


def test_a_limit_draws_items_by_the_seed_in_their_own_order():
    items = prompts(30)
    assert chosen(items, None, 0) == items
    assert chosen(items, 99, 0) == items
    first = [prompt.index for prompt in chosen(items, 5, 0)]
    assert first == [prompt.index for prompt in chosen(items, 5, 0)]
    assert len(set(first)) == 5
    assert first == sorted(first)
    assert first != [prompt.index for prompt in chosen(items, 5, 1)]


def test_greedy_for_one_sample_and_the_runs_temperature_for_several():
    generation = GenerationConfig(temperature=0.7)
    assert temperature_of(EvaluatorConfig(), generation) == 0
    assert temperature_of(EvaluatorConfig(samples=4), generation) == 0.7
    assert temperature_of(EvaluatorConfig(samples=4, temperature=0.2), generation) == 0.2
    assert temperature_of(EvaluatorConfig(temperature=0.2), generation) == 0.2
    with pytest.raises(ConfigError, match="4 greedy samples"):
        temperature_of(EvaluatorConfig(samples=4, temperature=0), generation)


@pytest.mark.parametrize(
    ("answer", "reference", "correct", "extracted", "expected"),
    [
        ("12", "12", True, "12", "12"),
        ("so it is 12 apples", "12", True, "12", "12"),
        ("3 or 4", "4", False, "3 or 4", "4"),
        ("\\boxed{7/2}", "3.5", True, "7/2", "7/2"),
        ("", "5", False, "", "5"),
        ("the answer is Paris", "Paris", True, "Paris", "Paris"),
    ],
)
def test_exact_match_reads_and_compares_as_the_reward_does(answer, reference, correct, extracted, expected):
    text = f"<think>hm</think>{answer}"
    context = RewardContext(generated_text=text, reference_completion=f"<think>so</think>{reference}")
    verdict = ExactMatch().verdict(context)
    assert verdict.correct is correct
    assert (read(answer, reference), verdict.expected) == (extracted, expected)
    assert verdict.extracted == extracted


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "blank"
    write_blank(directory)
    return load(str(directory))


def run(loaded, config, count=5, rollout_batch_size="auto", seed=0):
    generation = GenerationConfig(rollout_batch_size=rollout_batch_size)
    items = prompts(count)
    return score(ExactMatch(config), items, loaded, generation, max_tokens=MAX_TOKENS, seed=seed)


def test_records_of_a_real_model(loaded):
    records = run(loaded, {})
    assert [each["item"] for each in records] == list(range(5))
    for each in records:
        assert 1 <= each["tokens"] <= MAX_TOKENS
        assert each["finish_reason"] == "stop" or each["tokens"] == MAX_TOKENS
        assert each["expected"] == "1"
    assert 0 <= metrics(records)["accuracy"] <= 1


def test_the_width_of_a_batch_changes_nothing(loaded):
    config = {"samples": 2, "temperature": 1.0}
    whole = run(loaded, config)
    assert [(each["item"], each["sample"]) for each in whole] == [(i, s) for i in range(5) for s in range(2)]
    assert run(loaded, config, rollout_batch_size=3) == whole
    assert run(loaded, config, seed=1) != whole


def test_one_greedy_item_is_the_same_alone_and_among_others(loaded):
    assert run(loaded, {}, count=1) == run(loaded, {})[:1]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_progress_counts_items(loaded, monkeypatch, seconds):
    """Now and then by completions that have ended, and when items have been judged."""
    told = []
    monkeypatch.setattr(scoring, "TELL_SECONDS", seconds)
    score(
        ExactMatch({"samples": 2, "temperature": 1.0}),
        prompts(5),
        loaded,
        GenerationConfig(rollout_batch_size=4),
        max_tokens=2,
        seed=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == ([(5, 5)] if seconds else [(2, 5), (4, 5), (5, 5)])


def test_readings_beside_the_accuracy_are_metrics_of_their_own():
    records = [record(item, False) | {"also": {"lenient": float(item > 0)}} for item in range(4)]
    found = metrics(records)
    low, high = wilson(3, 4)
    assert (found["accuracy"], found["lenient"], found["lenient_low"], found["lenient_high"]) == (0, 0.75, low, high)
    assert own(found) == {"lenient": 0.75}
    assert own(metrics([record(0, True)])) == {}


@pytest.mark.parametrize(
    ("text", "stops", "kept", "answer"),
    [
        ("12\nQ: 3+4?", ["Q:"], "12\n", "12"),
        ("12\nQ: 3+4?", ["Q:", "\n"], "12", "12"),
        ("12", ["Q:"], "12", "12"),
        ("<think>Q: hm</think>12 Q: 3", ["Q:"], "<think>Q: hm</think>12 ", "12"),
        ("Q: all of it", ["Q:"], "", ""),
    ],
)
def test_an_answer_ends_at_the_first_of_its_stops(text, stops, kept, answer):
    found = ended(RewardContext(generated_text=text), stops)
    assert (found.generated_text, found.answer) == (kept, answer)


def test_stops_end_completions_early(loaded):
    """A text that one greedy completion holds ends it there, and is not judged with it."""
    (whole,) = run(loaded, {}, count=1)
    stop = whole["completion"][2]
    (cut,) = run(loaded, {"until": [stop]}, count=1)
    assert cut["completion"] == whole["completion"].partition(stop)[0]
    assert (cut["finish_reason"], whole["finish_reason"]) == ("stop", "length")
    assert cut["tokens"] < whole["tokens"]


def test_verdicts_asked_for_side_by_side_keep_their_order(loaded):
    class Slow(ExactMatch):
        threads = 4

    generation, items = GenerationConfig(), prompts(5)
    one, other = (score(kind(), items, loaded, generation, max_tokens=3, seed=0) for kind in (ExactMatch, Slow))
    assert one == other
