"""`rewards` as a benchmark: validation rows judged by what the run is trained with."""

from types import SimpleNamespace

import pytest

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.rewards import RewardContext
from pipelines.rows.records import Row

PUZZLE = {"numbers": [2, 3, 4], "target": 14}
GOLD = "<think>3+4=7, 2*7=14</think>2*(3+4)"
ROWS = (Row("?", GOLD, meta=PUZZLE),)
BOTH = [{"name": "countdown", "weight": 3}, {"name": "exact_match"}]


class Rows(list):
    """What a tokenised data set gives, of rows that nobody has tokenised."""

    def prompt_tokens(self, index):
        return [index]

    def preopened(self, index):
        return False

    def row(self, index):
        return self[index]


def judge(answers, rewards=BOTH, *, rows=ROWS, **settings):
    """The evaluator and its verdicts on answers to the first row."""
    config = ExperimentConfig.model_validate({"rewards": rewards})
    evaluator = EvaluatorRegistry.create("rewards", settings)
    items = evaluator.items(SimpleNamespace(config=config, validation=lambda: Rows(rows)))
    row = items[0].row
    texts = [RewardContext(generated_text=text, reference_answer="2*(3+4)", meta=row.meta) for text in answers]
    return evaluator, evaluator.verdicts(texts)


def records(verdicts):
    return [{"item": n, "correct": each.correct, **each.details} for n, each in enumerate(verdicts)]


def test_a_right_expression_that_is_not_the_rows_own_is_right():
    _, (own, other, wrong) = judge(["2*(3+4)", "(4+3)*2", "2*3*4"], BOTH[:1])
    assert (own.correct, other.correct, wrong.correct) == (True, True, False)
    assert (own.expected, other.extracted) == ("2*(3+4)", "(4+3)*2")
    assert wrong.reason == "countdown: it makes 24"
    assert other.details == {"reward": 1.0, "rewards": {"countdown": 1.0}}


def test_right_is_the_whole_reward_unless_less_is_enough():
    answers = ["2*(3+4)", "(4+3)*2", "no idea"]
    assert [each.correct for each in judge(answers)[1]] == [True, False, False]
    assert [each.correct for each in judge(answers, threshold=0.75)[1]] == [True, True, False]


def test_mean_rewards_stand_beside_the_accuracy():
    evaluator, verdicts = judge(["2*(3+4)", "(4+3)*2", "no idea", "2*3*4"])
    found = evaluator.metrics(records(verdicts))
    assert found["accuracy"] == 0.25
    assert found["reward"] == pytest.approx((1 + 0.75) / 4)
    assert 0 <= found["reward_low"] < found["reward"] < found["reward_high"] <= 1
    assert (found["reward_countdown"], found["reward_exact_match"]) == (0.5, 0.25)
    alone, verdicts = judge(["2*(3+4)"], BOTH[:1])
    assert [name for name in alone.metrics(records(verdicts)) if "countdown" in name] == []


def test_where_every_reward_abstains_nothing_is_right_and_that_is_told():
    evaluator, verdicts = judge(["2*(3+4)"], BOTH[:1], rows=[Row("?", GOLD)])
    assert (verdicts[0].correct, verdicts[0].details["reward"]) == (False, None)
    assert verdicts[0].reason == "no reward has a value"
    with pytest.raises(DataError, match="no reward has a value for any completion"):
        evaluator.metrics(records(verdicts))
    _, (paid,) = judge(["2*(3+4)"], BOTH[:1])
    assert evaluator.metrics(records([paid, *verdicts]))["unrewarded"] == 0.5


def test_without_validation_rows_it_says_so():
    with pytest.raises(DataError, match="there is no validation row"):
        judge([], rows=())
