"""What inspection says of scores: numbers by hand, agreement, and which rows are worth reading."""

import numpy as np
import pytest

from pipelines.rewards.composer import Failure, Scores
from pipelines.rewards.inspection import agreements, describe, ranks, row_records, strangest

NAN = float("nan")


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


def test_why_there_is_no_correlation():
    constant, same_length = describe(scores([1.0, 1.0]), [1, 2])[0], describe(scores([0.0, 1.0]), [2, 2])[0]
    assert (constant.length_correlation, constant.undefined) == (None, "its value is the same everywhere")
    assert (same_length.length_correlation, same_length.undefined) == (None, "all completions have the same length")
    assert describe(scores([NAN]), [1])[0].undefined == "it has no value"
    assert describe(scores([0.0, 1.0]), [1, 2])[0].undefined == ""


def test_edges_are_those_of_the_histogram():
    assert describe(scores([0.2, 0.4]), [1, 2])[0].edges == (0.0, 1.0)
    assert describe(scores([-3.0, 4.0]), [1, 2])[0].edges == (-3.0, 4.0)
    assert describe(scores([NAN, NAN]), [1, 2])[0].edges == (0.0, 1.0)


def test_equal_values_share_their_rank():
    assert ranks(np.array([5.0, 1.0, 5.0, 2.0], np.float32)) == [3.5, 1.0, 3.5, 2.0]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([0.0, 0.5, 1.0, 0.7], [0.1, 0.2, 0.9, 0.3], "they say the same: one would do"),
        ([0.0, 0.5, 1.0, 0.7], [0.1, 0.3, 0.35, 0.9], "they mostly agree"),
        ([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], "each says its own"),
        ([0.0, 0.5, 1.0, 0.7], [0.9, 0.2, 0.1, 0.3], "they pull against each other"),
        ([0.0, 0.5, 1.0, 0.7], [1.0, 1.0, 1.0, 1.0], "second is the same everywhere"),
        ([NAN, NAN, 1.0, 0.7], [1.0, 0.0, NAN, NAN], "no text has a value of both"),
    ],
)
def test_agreement_in_words(first, second, words):
    assert [pair.words for pair in agreements([scores(first, second)])] == [words]


def test_agreement_is_pearson_and_spearman_over_all_texts():
    (pair,) = agreements([scores([0.0, 0.5], [0.0, 0.1]), scores([1.0, NAN], [0.9, 0.4])])
    assert (pair.first, pair.second, pair.count, pair.rank) == ("first", "second", 3, 1.0)
    assert pair.pearson == pytest.approx(np.corrcoef([0, 0.5, 1], [0, 0.1, 0.9])[0, 1], abs=1e-6)
    assert len(agreements([scores([0.0], [0.0], [0.0])])) == 3


def test_row_records():
    record = row_records(scores([0.1, NAN], failures=[Failure(1, "first", "ValueError: bad")]))
    assert record[0] == {"row": 0, "total": 0.1, "rewards": {"first": 0.1}, "reasons": {}}
    assert record[1]["rewards"] == {"first": None}
    assert record[1]["total"] is None
    assert record[1]["reasons"] == {"first": {"failed": "ValueError: bad"}}


def told(*columns, failures=(), tokens=None):
    found = row_records(scores(*columns, failures=failures))
    lengths = tokens or [10] * len(found)
    return [
        record | {"thinking_tokens": 0, "answer_tokens": length} for record, length in zip(found, lengths, strict=True)
    ]


def test_strange_rows_come_in_the_order_of_their_strangeness():
    records = told(
        [1.0, 1.0, NAN, 1.0, NAN, 0.5, 1.0], [1.0, 0.0, NAN, 1.0, 0.5, 0.5, 1.0], failures=[Failure(4, "first", "no")]
    )
    found = strangest(records, 4, low_gold=())
    assert [each.row for each in found] == [4, 2, 1, 5]
    assert found[0].why == "first failed"
    assert found[1].why == "no reward has a value"
    assert found[2].why == "rewards disagree: first 1, second 0"


def test_gold_that_scores_low_is_strange_and_the_lowest_first():
    found = strangest(told([1.0, 0.6, 0.2]), 3, low_gold=[1, 2])
    assert [(each.row, each.why) for each in found] == [
        (2, "gold, yet it scores 0.2"),
        (1, "gold, yet it scores 0.6"),
        (0, "its total is unusual: 1, the mean is 0.6"),
    ]


def test_an_unusual_length_is_strange():
    found = strangest(told([1.0] * 9, tokens=[10] * 8 + [500]), 2, low_gold=())
    assert [(each.row, each.why) for each in found] == [
        (8, "its length is unusual: 500 tokens"),
        (0, "like the others"),
    ]
