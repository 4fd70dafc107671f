"""The shares of ranks are a partition, and what they send each other arrives as it was."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training import distributed
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.micro_batches import micro_batches
from pipelines.training.sequences import Sequences

SIZES = st.integers(1, 5)


@dataclass(frozen=True)
class Seat:
    """The place of a rank, as MLX's groups tell it; nothing can be sent from here."""

    number: int
    of: int

    def rank(self):
        return self.number

    def size(self):
        return self.of


def seats(size):
    return [Ranks(cast("Any", Seat(rank, size))) for rank in range(size)]


@given(size=SIZES, count=st.integers(0, 30))
def test_parts_follow_one_another_and_differ_by_one_at_most(size, count):
    parts = [ranks.part(range(count)) for ranks in seats(size)]
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(size=SIZES, count=st.integers(0, 30))
def test_everything_is_dealt_once(size, count):
    hands = [ranks.dealt(range(count)) for ranks in seats(size)]
    assert sorted(item for hand in hands for item in hand) == list(range(count))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_rank_0_leads():
    assert [ranks.leads for ranks in seats(3)] == [True, False, False]
    assert ALONE.leads
    assert ALONE.size == 1


def test_alone_nothing_is_sent():
    assert ALONE.told({"a": 1}) == {"a": 1}
    assert ALONE.gathered([1]) == [[1]]
    arrays = {"x": np.arange(3)}
    assert ALONE.gathered_arrays(arrays, 7)[0][1] == 7
    assert ALONE.added({}) == {}


@given(
    numbers=st.lists(st.floats(width=32), max_size=20),
    said=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)),
)
def test_what_is_packed_arrives(numbers, said):
    arrays = {"data": np.array(numbers, np.float32), "array.x": np.zeros((2, 0, 3), bool)}
    found, heard = distributed._unpacked(distributed._packed(arrays, said))
    assert heard == said
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values, equal_nan=values.dtype == np.float32)


def test_not_a_number_is_sent_as_such():
    assert math.isnan(distributed._unpacked(distributed._packed({}, math.nan))[1])


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({}, None),
        ({"MLX_RANK": "0"}, 0),
        ({"MLX_RANK": "2"}, 2),
        ({"OMPI_COMM_WORLD_RANK": "1"}, 1),
        ({"PMI_RANK": "x"}, None),
    ],
)
def test_the_environment_tells_the_number(environment, number, monkeypatch):
    for name in distributed.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed.launched() == number


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=24),
    size=SIZES,
    most=st.integers(10, 500),
    may_share=st.booleans(),
)
def test_every_row_is_in_one_micro_batch_of_one_rank(lengths, size, most, may_share):
    sequences = Sequences(
        prompts=[np.array([1, 2 + n // 4, 3]) for n in range(len(lengths))],
        completions=[np.ones(length, np.int32) for length in lengths],
        advantages=np.ones(len(lengths), np.float32),
        silent=np.zeros(len(lengths), bool),
    )
    hands = [micro_batches(sequences, most, may_share=may_share, ranks=ranks) for ranks in seats(size)]
    assert sorted(int(row) for hand in hands for batch in hand for row in batch.rows) == list(range(len(lengths)))
