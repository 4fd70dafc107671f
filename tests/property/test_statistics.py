"""Laws of the intervals, and numbers worked out elsewhere."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation.statistics import bootstrap, paired_bootstrap, pass_at_k, wilson

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.floats(0.5, 0.999)
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def columns(rows):
    return [a for a, _ in rows], [b for _, b in rows]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_wilson_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(counts, confidences)
def test_wilson_contains_the_estimate_and_stays_in_the_unit_interval(count, confidence):
    successes, n = count
    low, high = wilson(successes, n, confidence)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


@given(counts, st.integers(2, 20))
def test_wilson_shrinks_with_n(count, factor):
    successes, n = count
    small, large = wilson(successes, n), wilson(successes * factor, n * factor)
    assert large.high - large.low < small.high - small.low


@given(counts, confidences)
def test_wilson_is_symmetric_in_success_and_failure(count, confidence):
    successes, n = count
    low, high = wilson(successes, n, confidence)
    assert wilson(n - successes, n, confidence) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts)
def test_wilson_widens_with_confidence(count):
    narrow, wide = wilson(*count, 0.8), wilson(*count, 0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_is_no_proportion(successes, n, confidence):
    with pytest.raises(ValueError, match="no interval"):
        wilson(successes, n, confidence)


@given(pairs, st.integers(0, 5))
@settings(deadline=None)
def test_bootstrap_is_antisymmetric(rows, seed):
    a, b = columns(rows)
    one, other = paired_bootstrap(a, b, seed=seed, resamples=200), paired_bootstrap(b, a, seed=seed, resamples=200)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(deadline=None)
def test_bootstrap_of_a_vector_with_itself_is_exactly_zero(values):
    found = paired_bootstrap(values, values, resamples=100)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.ties == len(values)


@given(pairs)
@settings(deadline=None)
def test_bootstrap_stays_between_the_extreme_differences(rows):
    a, b = columns(rows)
    found = paired_bootstrap(a, b, resamples=200)
    differences = np.subtract(b, a)
    assert differences.min() <= found.low <= found.high <= differences.max()
    assert found.wins + found.losses + found.ties == len(rows)
    assert found.difference == pytest.approx((found.wins - found.losses) / len(rows))


def test_bootstrap_repeats_itself_and_agrees_with_the_normal_approximation():
    random = np.random.default_rng(3)
    a, b = random.integers(0, 2, 400), random.integers(0, 2, 400)
    found = paired_bootstrap(a, b, seed=1)
    assert found == paired_bootstrap(a, b, seed=1)
    half_width = 1.96 * np.std(b - a) / 20
    assert (found.low, found.high) == pytest.approx(
        (found.difference - half_width, found.difference + half_width), abs=0.006
    )


def test_bootstrap_refuses_what_is_not_paired():
    with pytest.raises(ValueError, match="a pair of scores"):
        paired_bootstrap([1, 0], [1])
    with pytest.raises(ValueError, match="a pair of scores"):
        paired_bootstrap([], [])


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(case):
    n, c, k = case
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_exact_where_binomials_are_huge(case):
    n, c, k = case
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-12)


def test_pass_at_k_refuses_what_has_no_answer():
    for n, c, k in ((2, 3, 1), (2, 1, 3), (2, -1, 1), (2, 1, 0)):
        with pytest.raises(ValueError, match="no pass@"):
            pass_at_k(n, c, k)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 50)), min_size=1, max_size=30))
def test_bootstrap_of_a_ratio_lies_between_the_items_own(rows):
    values, weights = columns(rows)
    low, high = bootstrap(values, weights, resamples=200)
    ratios = [value / weight for value, weight in rows]
    assert min(ratios) - 1e-9 <= low <= high <= max(ratios) + 1e-9


def test_bootstrap_has_the_width_of_the_standard_error():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = bootstrap(list(values))
    half = 1.96 * values.std() / 400**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_bootstrap_needs_a_weight_for_each_item():
    with pytest.raises(ValueError, match="a weight for every item"):
        bootstrap([1.0], [1.0, 2.0])
