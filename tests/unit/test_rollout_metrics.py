"""What an update says of its completions, where it is more than a mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.rollout_metrics import length_correlation

GROUP = 4
MISSING = float("nan")


def correlation(rewards, lengths, group_size=GROUP):
    found = length_correlation(np.array(rewards, np.float32), np.array(lengths), group_size)
    return found.get("reward_length_correlation")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=GROUP, max_size=GROUP), st.integers(0, 99))
def test_what_a_prompt_adds_to_all_of_its_group_does_not_count(group, more):
    rewards, lengths = zip(*group, strict=True)
    alone = correlation(rewards, lengths)
    twice = correlation([*rewards, *(r + more for r in rewards)], [*lengths, *(n + more for n in lengths)])
    if alone is None:
        assert twice is None
    else:
        assert alone == pytest.approx(np.corrcoef(rewards, lengths)[0, 1], abs=1e-6)
        assert twice == pytest.approx(alone, abs=1e-5)


def test_a_row_without_a_reward_is_left_out():
    rewards, lengths = [0.1, 0.5, 0.2, MISSING], [10, 30, 12, 500]
    assert correlation(rewards, lengths) == pytest.approx(np.corrcoef(rewards[:3], lengths[:3])[0, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("rewards", "lengths"),
    [
        ([0.7, 0.7, 0.7, 0.7, 0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4, 5, 6, 7, 8]),
        ([0.1, 0.2, 0.3, 0.4], [7, 7, 7, 7]),
        ([MISSING] * GROUP, [1, 2, 3, 4]),
        ([0.3, MISSING, MISSING, MISSING], [1, 2, 3, 4]),
    ],
    ids=["equal rewards", "equal lengths", "no reward", "one reward"],
)
def test_where_nothing_differs_there_is_nothing_to_follow(rewards, lengths):
    assert correlation(rewards, lengths) is None


def test_prompts_with_one_completion_are_compared_with_each_other():
    assert correlation([0.1, 0.9], [10, 90], group_size=1) == pytest.approx(1)
