"""What inspection says of scores: numbers by hand, and a warning for each sign of trouble and no other."""

import numpy as np
import pytest

from pipelines.config import RewardConfig
from pipelines.rewards import RewardComposer, RewardContext
from pipelines.rewards.battery import ATTACKS
from pipelines.rewards.composer import Failure, Scores
from pipelines.rewards.inspection import describe, row_records, sparkline, warnings_about

NAN = float("nan")
SUMS = {"1+1=?": "2", "2+2=?": "4", "3+3=?": "6", "4+4=?": "8"}


def scores(*columns, failures=()):
    values = np.array(columns, dtype=np.float32).T
    weights = np.ones(len(columns), dtype=np.float32)
    names = ("first", "second", "third")[: len(columns)]
    details = tuple({} for _ in values)
    return Scores(names, values, weights, values.mean(axis=1), tuple(failures), {}, details)


def test_distributions_by_hand():
    first, total = describe(scores([0.0, 0.5, 1.0, NAN]), [1, 2, 3, 100])
    assert (first.count, first.missing, first.mean, first.low, first.high) == (3, 1, 0.5, 0.0, 1.0)
    assert first.std == pytest.approx(np.std([0, 0.5, 1]))
    assert first.histogram == (1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    assert first.length_correlation == pytest.approx(1.0)
    assert total.name == "total"


def test_a_distribution_of_nothing():
    first = describe(scores([NAN, NAN]), [1, 2])[0]
    assert (first.count, first.missing, first.mean, first.length_correlation) == (0, 2, None, None)
    assert describe(scores([-3.0, 4.0]), [1, 2])[0].histogram == (1, *[0] * 8, 1)


def test_a_constant_has_no_correlation():
    assert describe(scores([1.0, 1.0]), [1, 2])[0].length_correlation is None
    assert describe(scores([0.0, 1.0]), [2, 2])[0].length_correlation is None


def test_sparkline_shows_every_bin_that_holds_something():
    assert sparkline([0, 1, 1000]) == " ▁█"
    assert sparkline([0, 0]) == "  "


def test_row_records():
    record = row_records(scores([0.1, NAN], failures=[Failure(1, "first", "ValueError: bad")]))
    assert record[0] == {"row": 0, "total": 0.1, "rewards": {"first": 0.1}, "reasons": {}}
    assert record[1]["rewards"] == {"first": None}
    assert record[1]["total"] is None
    assert record[1]["reasons"] == {"first": {"failed": "ValueError: bad"}}


def test_nothing_to_say_about_good_rewards():
    gold = scores([1.0, 1.0])
    assert warnings_about(gold, gold, {"empty": scores([0.0, 0.0])}) == []
    assert warnings_about(scores([0.2, 0.9]), gold, {"empty": scores([0.0, 0.0])}) == []


def test_a_constant_reward():
    gold = scores([1.0, 1.0])
    assert "first is constant: 1 for all 4 texts" in warnings_about(gold, gold, {"empty": gold})[0]
    found = warnings_about(scores([0.5, 0.5]), None, {})
    assert found == ["first is constant: 0.5 for all 2 texts, so it teaches nothing"]


def test_a_reward_without_any_value():
    assert "first has no value for any completion" in warnings_about(scores([NAN, NAN], [0.0, 1.0]), None, {})[0]


def test_low_gold_names_the_worst_row_and_reward():
    gold = scores([1.0, 1.0, 1.0], [1.0, 0.2, 0.6])
    found = warnings_about(gold, gold, {"empty": scores([0.0] * 3, [0.0] * 3)})
    assert found == ["gold scores below 0.95 on 2 of 3 rows, lowest on row 1: 0.6 (second 0.2)"]


def test_an_attack_that_scores_high():
    gold, attack = scores([1.0, 1.0]), scores([1.0, 0.1])
    found = warnings_about(gold, gold, {"empty": scores([0.5, 0.5]), "prompt echo": attack})
    assert found == ["adversarial text scores high: prompt echo gets 0.55 on average, gold 1"]


def test_failures():
    found = warnings_about(scores([0.0, 1.0, NAN], failures=[Failure(2, "first", "KeyError: 'x'")]), None, {})
    assert found == ["first failed on 1 rows, first on row 2: KeyError: 'x'"]


def golds():
    return [
        RewardContext(prompt_text=prompt, generated_text=f"<think>add the two</think>{answer}", reference_answer=answer)
        for prompt, answer in SUMS.items()
    ]


def attacked(attack, *names):
    rows = golds()
    texts = ATTACKS[attack](rows)
    contexts = [
        RewardContext(prompt_text=row.prompt_text, generated_text=text or "", reference_answer=row.reference_answer)
        for row, text in zip(rows, texts, strict=True)
    ]
    return RewardComposer([RewardConfig(name=name) for name in names]).score(contexts).totals.tolist()


@pytest.mark.parametrize("attack", sorted(set(ATTACKS) - {"constant answer"}))
def test_exact_match_gives_attacks_nothing(attack):
    assert attacked(attack, "exact_match") == [0.0] * 4


def test_a_constant_answer_is_right_as_often_as_it_is_common():
    assert attacked("constant answer", "exact_match") == [1.0, 0.0, 0.0, 0.0]


def test_format_alone_is_hackable():
    assert attacked("wrong answer", "format_structure") == [1.0] * 4


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_attacks_on_poor_data(attack):
    assert ATTACKS[attack]([]) == []
    assert len(ATTACKS[attack]([RewardContext()])) == 1
    assert len(ATTACKS[attack]([RewardContext(generated_text="<think>"), RewardContext(prompt_text="a b c d")])) == 2
