"""Verdicts on adversarial texts, and warnings: one for each sign of trouble, none about a sound reward."""

import numpy as np
import pytest

from pipelines.config import RewardConfig
from pipelines.rewards import RewardComposer, RewardContext
from pipelines.rewards.battery import ATTACKED_ROWS, ATTACKS, attack_texts
from pipelines.rewards.composer import Failure, Scores
from pipelines.rewards.inspection import describe
from pipelines.rewards.verdicts import judge, length_ranks, low_gold, mean_total, warnings_about

NAN = float("nan")
SUMS = {"1+1=?": "2", "2+2=?": "4", "3+3=?": "6", "4+4=?": "8"}


def scores(*columns, names=("first", "second", "third"), failures=()):
    values = np.array(columns, dtype=np.float32).T
    weights = np.ones(len(columns), dtype=np.float32)
    details = tuple({} for _ in values)
    return Scores(names[: len(columns)], values, weights, values.mean(axis=1), tuple(failures), {}, details)


def warned(found, gold=None, attacks=None, lengths=None):
    """The warnings on `found`, where attacks (by name) got their scores."""
    attacks = attacks or {}
    level = None if gold is None else mean_total(gold)
    judged = [judge(name, each, texts(each), range(len(each.totals)), level) for name, each in attacks.items()]
    distributions = describe(found, lengths or [1] * len(found.totals))
    return warnings_about(found, distributions, gold, judged, list(attacks.values()))


def texts(found):
    return [RewardContext(generated_text=f"text {row}") for row in range(len(found.totals))]


def verdict(name, totals, level=1.0):
    found = scores(totals)
    return judge(name, found, texts(found), range(len(totals)), level)


def test_nothing_to_say_about_good_rewards():
    gold = scores([1.0, 1.0])
    assert warned(gold, gold, {"empty": scores([0.0, 0.0])}) == []
    assert warned(scores([0.2, 0.9]), gold, {"empty": scores([0.0, 0.0])}) == []


def test_a_constant_reward():
    gold = scores([1.0, 1.0])
    assert "first is constant: 1 for all 4 texts" in warned(gold, gold, {"empty": gold})[0]
    found = warned(scores([0.5, 0.5]))
    assert found == ["first is constant: 0.5 for all 2 texts, so it teaches nothing"]


def test_a_reward_without_any_value():
    assert "first has no value for any completion" in warned(scores([NAN, NAN], [0.0, 1.0]))[0]


def test_low_gold_names_the_worst_row_and_reward():
    gold = scores([1.0, 1.0, 1.0], [1.0, 0.2, 0.6])
    found = warned(gold, gold, {"empty": scores([0.0] * 3, [0.0] * 3)})
    assert found == ["gold scores below 0.95 on 2 of 3 rows, lowest on row 1: 0.6 (second 0.2)"]


def test_a_penalty_leaves_gold_less_than_1():
    attack = scores([0.0, 0.0], [-1.0, 0.0])
    gold = scores([1.0, 1.0], [0.0, 0.0])
    assert warned(gold, gold, {"empty": attack}) == []
    assert low_gold(gold, [attack]) == []
    gold = scores([1.0, 1.0], [0.0, -0.5])
    found = warned(gold, gold, {"empty": attack})
    assert found == ["gold scores below 0.475 on 1 of 2 rows, lowest on row 1: 0.25 (second -0.5)"]


def test_what_is_always_0_is_no_penalty():
    gold, attack = scores([1.0, 1.0], [0.0, 0.0]), scores([0.0, 0.0], [0.0, 0.0])
    assert low_gold(gold, [attack]) == [0, 1]


def test_gold_on_which_all_rewards_abstain_is_not_low():
    assert low_gold(scores([NAN, 1.0], [NAN, NAN]), []) == []


def test_an_attack_that_scores_high():
    gold, attack = scores([1.0, 1.0]), scores([1.0, 0.1])
    found = warned(gold, gold, {"empty": scores([0.5, 0.5]), "prompt echo": attack})
    assert found == ["adversarial text scores high: prompt echo gets 0.55 on average, gold 1"]


def test_failures():
    found = warned(scores([0.0, 1.0, NAN], failures=[Failure(2, "first", "KeyError: 'x'")]))
    assert found == ["first failed on 1 row, first on row 2: KeyError: 'x'"]


LENGTHS = list(range(10, 20))
RISING = [0.1 * step for step in range(10)]


def test_a_reward_that_follows_the_length():
    assert warned(scores(RISING), lengths=LENGTHS) == [
        "first follows the length: r = 1.00 over 10 rows, longer texts earn more"
    ]
    falling = warned(scores(RISING[::-1], [0.5, 1.0] * 5), lengths=LENGTHS)
    assert falling[0] == "first follows the length: r = -1.00 over 10 rows, shorter texts earn more"
    assert falling[1] == "total follows the length: r = -0.70 over 10 rows, shorter texts earn more"


@pytest.mark.parametrize(
    ("column", "lengths"),
    [
        ([0.0, 1.0] * 5, LENGTHS),
        (RISING[:7], LENGTHS[:7]),
        ([0.5 + value / 100 for value in RISING], LENGTHS),
        (RISING, [10] * 10),
    ],
    ids=["it does not", "too few rows", "nothing moves", "one length"],
)
def test_no_word_about_length(column, lengths):
    assert warned(scores(column), lengths=lengths) == []


def test_being_right_may_go_with_the_length_where_the_control_does_not():
    found = scores([0.0, 1.0] * 5)
    distributions = describe(found, [3, 9] * 5)
    followed = ["first follows the length: r = 1.00 over 10 rows, longer texts earn more"]
    assert warnings_about(found, distributions, None, [], []) == followed
    assert warnings_about(found, distributions, None, [], [], control={"first": 0.2}) == []
    assert warnings_about(found, distributions, None, [], [], control={"first": -0.2}) == []
    assert warnings_about(found, distributions, None, [], [], control={"first": 0.6}) == followed
    assert warnings_about(found, distributions, None, [], [], control={"first": None}) == followed


def test_length_ranks_are_over_all_texts():
    found = length_ranks([scores([0.1, 0.4], [1.0, 1.0]), scores([9.0, NAN], [1.0, 1.0])], [1, 2, 300, 4])
    assert found == {"first": 1.0, "second": None, "total": 1.0}


def test_rewards_about_length_may_follow_it_but_the_total_is_watched():
    named = ("length_penalty", "length_penalty_2")
    found = warned(scores(RISING, RISING, names=named), lengths=LENGTHS)
    assert found == ["total follows the length: r = 1.00 over 10 rows, longer texts earn more"]


@pytest.mark.parametrize(
    ("name", "totals", "level", "words", "high"),
    [
        ("empty", [0.0, 0.0], 1.0, "earns nothing", False),
        ("empty", [0.2, 0.2], 1.0, "a little: 20% of gold", False),
        ("empty", [0.5, 0.5], 1.0, "some: 50% of gold", False),
        ("empty", [0.0, 0.0, 0.0, 1.0], 1.0, "pays on 25% of the rows", False),
        ("constant answer", [0.0, 0.0, 0.0, 1.0], 1.0, "right on 25% of the rows", False),
        ("constant answer", [1.0, 1.0, 1.0, 0.0], 1.0, "pays 75% of gold", True),
        ("answer spam", [0.6, 0.6], 1.0, "pays 60% of gold", True),
        ("answer spam", [0.4, 0.4], 0.4, "as good as gold", True),
        ("answer spam", [NAN, NAN], 1.0, "no reward has a value for it", False),
        ("answer spam", [1.0, 1.0], 0.0, "gold earns nothing to compare with", True),
        ("answer spam", [1.0, 1.0], None, "gold earns nothing to compare with", False),
    ],
)
def test_verdicts(name, totals, level, words, high):
    found = verdict(name, totals, level)
    assert (found.verdict, found.high) == (words, high)


def test_a_verdict_names_the_reward_that_pays():
    found = scores([0.1, 0.1], [1.0, 1.0])
    judged = judge("empty", found, texts(found), [3, 7], 1.0)
    assert (judged.verdict, judged.by) == ("pays 55% of gold", "second")
    assert judge("empty", found, texts(found), [3, 7], 2.0).by == ""


def test_the_best_row_is_shown_with_its_number():
    found = scores([0.1, 0.9, NAN])
    best = judge("empty", found, texts(found), [3, 7, 9], 1.0).best
    assert best == {"row": 7, "total": 0.9, "prompt": "", "generated": "text 1"}
    assert verdict("empty", [NAN]).best is None


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


def test_the_constant_answer_is_the_commonest_of_all_rows():
    rows = [RewardContext(generated_text=str(n)) for n in range(ATTACKED_ROWS)]
    rows += [RewardContext(generated_text="seven")] * 5
    found = attack_texts("constant answer", rows)
    assert found == ["seven"] * ATTACKED_ROWS
    assert len(attack_texts("empty", rows)) == ATTACKED_ROWS
