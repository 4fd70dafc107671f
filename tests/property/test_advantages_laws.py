"""The laws every advantage estimator obeys, whatever its baseline and scale."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipelines.algorithms.advantages import Advantages, compute_advantages, kept_rows
from pipelines.config import AdvantageConfig
from pipelines.errors import ConfigError

BASELINES = ["group", "batch", "leave_one_out"]
SCALES = ["group", "batch", "none"]
AGGREGATIONS = ["sum_then_normalize", "normalize_then_sum"]
configs = st.builds(AdvantageConfig, baseline=st.sampled_from(BASELINES), scale=st.sampled_from(SCALES))
shapes = st.tuples(st.integers(1, 4), st.integers(2, 8))  # groups, completions a group
tenths = st.integers(-30, 30).map(lambda tenth: tenth / 10)
rewards_of = npst.arrays(np.float32, shapes, elements=tenths)
rewards_or_none = npst.arrays(np.float32, shapes, elements=tenths | st.just(float("nan")))
laws = settings(deadline=None, max_examples=60)


def run(rewards, config, **kwargs):
    """Advantages of [B, G] rewards, in the same shape."""
    result = compute_advantages(mx.array(rewards.reshape(-1)), rewards.shape[1], config, **kwargs)
    return np.array(result.values).reshape(rewards.shape), np.array(result.zero_variance).reshape(rewards.shape)


@given(
    reward=tenths,
    shape=shapes,
    config=configs,
    aggregation=st.sampled_from(AGGREGATIONS),
)
@laws
def test_equal_rewards_give_exact_zeros(reward, shape, config, aggregation):
    config = config.model_copy(update={"aggregation": aggregation, "epsilon": 1e-8})
    values, zero = run(np.full(shape, reward, dtype=np.float32), config)
    assert not values.any()
    assert zero.all()


@given(rewards=rewards_of, equal=tenths, config=configs.filter(lambda config: config.baseline != "batch"))
@laws
def test_an_equal_group_among_others_is_exactly_zero(rewards, equal, config):
    rewards[0] = equal
    values, zero = run(rewards, config.model_copy(update={"epsilon": 1e-8}))
    assert not values[0].any()
    flat = rewards.max(axis=1) == rewards.min(axis=1)
    expected = rewards.max() == rewards.min() if config.scale == "batch" else flat
    assert (zero.all(axis=1) == expected).all()


@given(rewards=rewards_of, equal=tenths, baseline=st.sampled_from(["group", "leave_one_out"]))
@laws
def test_an_equal_group_is_exactly_zero_when_rewards_are_normalised_first(rewards, equal, baseline):
    rewards[-1] = equal
    values, zero = run(rewards, AdvantageConfig(baseline=baseline, aggregation="normalize_then_sum", epsilon=1e-8))
    assert not values[-1].any()
    assert (zero.all(axis=1) == (rewards.max(axis=1) == rewards.min(axis=1))).all()


@pytest.mark.parametrize("scale", SCALES)
def test_ten_times_2_7_has_no_advantage(scale):
    """Their float32 mean is not 2.7: centring on it would leave up to 0.98 with epsilon 1e-8."""
    rewards = np.array([[2.7] * 10, [1.0, 0.0] * 5], dtype=np.float32)
    assert rewards[0].mean() != rewards[0, 0]
    values, _ = run(rewards, AdvantageConfig(scale=scale, epsilon=1e-8))
    assert not values[0].any()
    assert values[1].all()


@pytest.mark.parametrize("level", [1e-3, 0.7, 300.0])
def test_one_unit_in_the_last_place_is_no_signal_but_a_ten_thousandth_is(level):
    noisy = np.array([[level, np.nextafter(np.float32(level), np.float32(np.inf)), level, level]], dtype=np.float32)
    values, zero = run(noisy, AdvantageConfig(epsilon=1e-8))
    assert not values.any()
    assert zero.all()
    small = np.array([[level, level * 1.0001, level, level]], dtype=np.float32)
    values, zero = run(small, AdvantageConfig(epsilon=1e-12))
    assert not zero.any()
    np.testing.assert_allclose(values, [[-0.5, 1.5, -0.5, -0.5]], atol=1e-2)


@given(rewards=rewards_or_none, config=configs)
@laws
def test_sums_to_zero_over_what_is_compared(rewards, config):
    config = config.model_copy(update={"scale": "none"})
    values, _ = run(rewards, config)
    totals = values.sum() if config.baseline == "batch" else values.sum(axis=1)
    np.testing.assert_allclose(totals, 0, atol=2e-4)


@given(rewards=rewards_or_none, shift=st.integers(-8, 8), config=configs, aggregation=st.sampled_from(AGGREGATIONS))
@laws
def test_ignores_a_constant_added_to_all_rewards(rewards, shift, config, aggregation):
    config = config.model_copy(update={"epsilon": 1e-2, "aggregation": aggregation})
    moved, _ = run(rewards + np.float32(shift), config)
    np.testing.assert_allclose(moved, run(rewards, config)[0], atol=1e-3)


@given(rewards=rewards_or_none, config=configs, seed=st.integers(0, 99), aggregation=st.sampled_from(AGGREGATIONS))
@laws
def test_permuting_groups_and_rows_permutes_advantages(rewards, config, seed, aggregation):
    config = config.model_copy(update={"aggregation": aggregation})
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(rewards.shape[0]), rng.permutation(rewards.shape[1])
    direct, flags = run(rewards, config)
    shuffled, shuffled_flags = run(rewards[rows][:, columns], config)
    np.testing.assert_allclose(shuffled, direct[rows][:, columns], atol=1e-3)
    np.testing.assert_array_equal(shuffled_flags, flags[rows][:, columns])


@given(rewards=rewards_or_none, config=configs)
@laws
def test_unscored_rows_get_zero_and_nothing_is_nan(rewards, config):
    values, _ = run(rewards, config)
    assert np.isfinite(values).all()
    assert not values[np.isnan(rewards)].any()
    if config.baseline != "batch":
        lonely = (~np.isnan(rewards)).sum(axis=1) < 2
        assert not values[lonely].any()


@given(rewards=rewards_or_none)
@laws
def test_leave_one_out_is_its_definition(rewards):
    values, _ = run(rewards, AdvantageConfig(baseline="leave_one_out", scale="none"))
    for group, row in zip(rewards.astype(np.float64), values, strict=True):
        scored = np.flatnonzero(~np.isnan(group))
        for index in scored if len(scored) > 1 else ():
            others = group[np.setdiff1d(scored, [index])]
            assert row[index] == pytest.approx(group[index] - others.mean(), abs=1e-4)


@given(rewards=rewards_of, scale=st.sampled_from(SCALES))
@laws
def test_a_single_group_is_the_batch(rewards, scale):
    flat = rewards.reshape(1, -1)
    group, _ = run(flat, AdvantageConfig(baseline="group", scale=scale))
    batch, _ = run(flat, AdvantageConfig(baseline="batch", scale=scale))
    np.testing.assert_array_equal(group, batch)


@given(rewards=rewards_of.filter(lambda rewards: rewards.size > 1), scale=st.sampled_from(SCALES))
@laws
def test_auto_compares_single_completions_over_the_batch(rewards, scale):
    column = rewards.reshape(-1, 1)
    auto, _ = run(column, AdvantageConfig(scale=scale))
    batch, _ = run(column, AdvantageConfig(baseline="batch", scale=scale))
    np.testing.assert_array_equal(auto, batch)


@given(rewards=rewards_of, scale=st.sampled_from(SCALES))
@laws
def test_auto_is_the_group_from_two_completions_on(rewards, scale):
    np.testing.assert_array_equal(
        run(rewards, AdvantageConfig(scale=scale))[0], run(rewards, AdvantageConfig(scale=scale, baseline="group"))[0]
    )


@given(rewards=rewards_or_none, aggregation=st.sampled_from(AGGREGATIONS))
@laws
def test_a_reward_that_always_abstains_changes_nothing(rewards, aggregation):
    config = AdvantageConfig(aggregation=aggregation)
    column = rewards.reshape(-1, 1)
    alone = compute_advantages(mx.array(column), rewards.shape[1], config, weights=mx.array([2.0]))
    silent = np.concatenate([column, np.full_like(column, np.nan)], axis=1)
    beside = compute_advantages(mx.array(silent), rewards.shape[1], config, weights=mx.array([2.0, 0.5]))
    np.testing.assert_allclose(np.array(beside.values), np.array(alone.values), atol=1e-6)
    assert beside.zero_variance.tolist() == alone.zero_variance.tolist()


def test_where_a_reward_abstained_the_others_speak_for_it_when_normalised_first():
    """The last two rows are the best and the worst by one reward; silent on the other, they would look half as far."""
    config = AdvantageConfig(aggregation="normalize_then_sum", epsilon=1e-8)
    nan = float("nan")
    rewards = mx.array([[1.0, 1.0], [0.0, 0.0], [1.0, nan], [0.0, nan]])
    values = compute_advantages(rewards, 4, config, weights=mx.array([3.0, 1.0])).values
    first, second = np.sqrt(0.75), np.sqrt(0.5)  # z-scores of 0/1 rewards, among four and among two
    scores = np.array([3 * first + second, -3 * first - second, 4 * first, -4 * first])
    np.testing.assert_allclose(np.array(values), scores / scores.std(ddof=1), atol=1e-6)


def test_when_normalised_first_a_group_is_flat_only_if_every_reward_is():
    """In the first group one reward is flat and one is not; in the second both are; in the third there is one row."""
    nan = float("nan")
    rewards = mx.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.5], [1.0, 0.5], [nan, 1.0], [nan, nan]])
    found = compute_advantages(rewards, 2, AdvantageConfig(aggregation="normalize_then_sum"))
    assert found.zero_variance.tolist() == [False, False, True, True, False, False]
    assert found.values[0].item() < 0 < found.values[1].item()
    assert found.values[2:].tolist() == [0, 0, 0, 0]


@given(rewards=rewards_or_none, weight=st.sampled_from([0.25, 1.0, 8.0]))
@laws
def test_only_the_ratio_of_weights_matters_when_normalised_first(rewards, weight):
    config = AdvantageConfig(aggregation="normalize_then_sum", epsilon=1e-8)
    table = mx.array(np.stack([rewards.reshape(-1), rewards[:, ::-1].reshape(-1)], axis=1))
    plain, scaled = (
        compute_advantages(table, rewards.shape[1], config, weights=mx.array([1.0, 0.5]) * factor).values
        for factor in (1.0, weight)
    )
    np.testing.assert_allclose(np.array(scaled), np.array(plain), atol=1e-4)


def test_normalize_then_sum_gives_a_small_reward_its_say():
    rewards = mx.array([[100.0, 0.0], [0.0, 0.01], [100.0, 0.01], [0.0, 0.0]])
    summed = compute_advantages(rewards, 4, AdvantageConfig()).values
    each = compute_advantages(rewards, 4, AdvantageConfig(aggregation="normalize_then_sum", epsilon=1e-8)).values
    assert summed[1].item() == pytest.approx(summed[3].item(), abs=1e-3)
    np.testing.assert_allclose(np.array(each), np.array([0, 0, 1, -1]) * np.sqrt(1.5), atol=1e-5)


@pytest.mark.parametrize("baseline", ["auto", *BASELINES])
def test_one_completion_in_an_update_is_refused(baseline):
    with pytest.raises(ConfigError) as refusal:
        compute_advantages(mx.array([1.0]), 1, AdvantageConfig(baseline=baseline))
    assert "num_rollout_samples" in refusal.value.hint


def test_rewards_that_do_not_divide_into_groups_are_a_bug():
    with pytest.raises(ValueError, match="6 rewards do not divide into groups of 4"):
        compute_advantages(mx.zeros(6), 4, AdvantageConfig())


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_compiled_equals_eager(baseline, scale, aggregation):
    column = np.array([1, 0, np.nan, 1, 2.7, 2.7, 2.7, 2.7], dtype=np.float32)
    rewards = mx.array(np.stack([column, column[::-1]], axis=1))
    config = AdvantageConfig(baseline=baseline, scale=scale, aggregation=aggregation)
    weights = mx.array([1.0, 0.5])
    compiled = mx.compile(lambda rewards: tuple(compute_advantages(rewards, 4, config, weights=weights)))
    values, zero = compiled(rewards)
    eager = compute_advantages(rewards, 4, config, weights=weights)
    np.testing.assert_allclose(np.array(values), np.array(eager.values), atol=1e-6)
    assert zero.tolist() == eager.zero_variance.tolist()


def test_kept_rows_are_those_of_groups_that_differ():
    found = Advantages(mx.zeros(6), mx.array([False, False, True, True, False, False]))
    assert kept_rows(found) == [0, 1, 4, 5]
    assert kept_rows(found, drop=False) == [0, 1, 2, 3, 4, 5]
