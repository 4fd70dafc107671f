"""The composer: weighted means by hand, abstaining, and failures that are never a quiet zero."""

import math

import numpy as np
import pytest

from pipelines.config import RewardConfig
from pipelines.errors import ConfigError, RewardError
from pipelines.rewards import BaseReward, Failure, RewardComposer, RewardContext, RewardRegistry


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    """A reward that returns what the context's meta tells it to, or raises it."""
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))

    @RewardRegistry.register("echo", aliases=["mirror"])
    class Echo(BaseReward):
        def compute(self, context):
            value = context.meta[self.config.get("key", "value")]
            if isinstance(value, BaseException):
                raise value
            return value


def composer(*entries, **options):
    return RewardComposer([RewardConfig(name=name, weight=w, config=c) for name, w, c in entries], **options)


def rows(*values, **others):
    return [RewardContext(meta={"value": value, **others}) for value in values]


def test_weighted_mean_by_hand():
    both = composer(("echo", 3.0, {}), ("echo", 1.0, {"key": "other"}))
    scores = both.score(rows(1.0, 0.5, other=0.0))
    assert scores.names == ("echo", "echo_2")
    np.testing.assert_array_equal(scores.values, [[1, 0], [0.5, 0]])
    np.testing.assert_allclose(scores.totals, [0.75, 0.375])
    assert scores.values.dtype == scores.totals.dtype == np.float32
    assert scores.failures == ()


def test_each_reward_has_its_seconds(monkeypatch):
    """One that takes its time has them to itself, also where both are of one name."""
    clock = iter([0.0, 2.0, 10.0, 10.5])
    monkeypatch.setattr("pipelines.rewards.composer.perf_counter", lambda: next(clock))
    scores = composer(("echo", 1.0, {}), ("echo", 1.0, {"key": "other"})).score(rows(1.0, 0.5, other=0.0))
    assert scores.seconds == {"echo": 2.0, "echo_2": 0.5}


def test_abstaining_hands_the_weight_to_the_others():
    scores = composer(("echo", 3.0, {}), ("echo", 1.0, {"key": "other"})).score(rows(None, 1.0, other=0.25))
    assert math.isnan(scores.values[0, 0])
    np.testing.assert_allclose(scores.totals, [0.25, (3 + 0.25) / 4])


def test_no_penalty_is_0_without_a_sign():
    assert not np.signbit(composer(("echo", 1.0, {})).score(rows(-0.0)).values).any()


def test_all_abstained_is_nan():
    scores = composer(("echo", 1.0, {})).score(rows(None, {"reward": None}))
    assert np.isnan(scores.totals).all()
    assert scores.failures == ()


def test_weight_zero_is_watched_but_does_not_count():
    scores = composer(("echo", 1.0, {}), ("echo", 0.0, {"key": "other"})).score(rows(0.5, other=1.0))
    assert scores.totals.tolist() == [0.5]
    assert scores.values.tolist() == [[0.5, 1.0]]


def test_details_are_kept_by_row_and_name():
    scores = composer(("echo", 1.0, {})).score(rows({"reward": 1, "why": "because"}, 0.0))
    assert scores.details == ({"echo": {"why": "because"}}, {})


def test_reasons_are_plain_data():
    said = {"reward": 1, "a": np.float32(0.5), "b": (1, {"c"}), "d": {2: None}, "e": ValueError("x"), "f": True}
    assert composer(("echo", 1.0, {})).score(rows(said)).details == (
        {"echo": {"a": 0.5, "b": [1, ["c"]], "d": {"2": None}, "e": "x", "f": True}},
    )


def test_names_are_told_apart():
    assert composer(("mirror", 1.0, {}), ("echo", 1.0, {}), ("echo", 1.0, {})).names == ("echo", "echo_2", "echo_3")
    RewardRegistry.register("echo_2")(RewardRegistry.get("echo"))
    assert composer(("echo", 1.0, {}), ("echo", 1.0, {}), ("echo_2", 1.0, {})).names == ("echo", "echo_3", "echo_2")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (ValueError(), "ValueError"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (SystemExit(3), "SystemExit: 3"),
        (float("nan"), "ValueError: returned nan"),
        (float("inf"), "ValueError: returned inf"),
        (1e300, "ValueError: returned 1e[+]300"),
        ("1.0", "TypeError: returned str, not a number"),
        ({"score": 1.0}, 'ValueError: returned a dict without "reward"'),
        ({"reward": [1]}, "TypeError: returned list"),
    ],
)
def test_a_failure_names_reward_error_and_row(returned, message):
    with pytest.raises(RewardError, match=rf"reward 'echo' failed: {message}.*first at row 1; 1 of 3"):
        composer(("echo", 1.0, {})).score(rows(1.0, returned, 0.0))


def test_a_tolerated_failure_is_recorded_and_not_a_zero():
    tolerant = composer(("echo", 1.0, {}), ("echo", 1.0, {"key": "other"}), max_failure_fraction=0.5)
    scores = tolerant.score(rows(KeyError("lost"), 1.0, other=0.5))
    assert scores.failures == (Failure(0, "echo", "KeyError: 'lost'"),)
    assert math.isnan(scores.values[0, 0])
    np.testing.assert_allclose(scores.totals, [0.5, 0.75])


def test_one_percent_is_the_limit():
    bad = ValueError("bad")
    composer(("echo", 1.0, {})).score(rows(bad, *[1.0] * 99))
    with pytest.raises(RewardError, match=r"2 of 199 completions failed, 1\.0% are allowed"):
        composer(("echo", 1.0, {})).score(rows(bad, bad, *[1.0] * 197))


@pytest.mark.parametrize("value", [True, 1, np.float32(1), np.int64(1), np.bool_(True)])
def test_every_kind_of_number_is_a_number(value):
    assert composer(("echo", 1.0, {})).score(rows(value)).totals.tolist() == [1.0]


def test_no_completions():
    scores = composer(("echo", 1.0, {})).score([])
    assert scores.values.shape == (0, 1)
    assert scores.totals.shape == (0,)


def test_no_rewards():
    with pytest.raises(ConfigError, match="the list is empty"):
        RewardComposer([])


def test_errors_name_the_place_in_the_list():
    with pytest.raises(ConfigError, match=r"rewards\[1\].config.region"):
        composer(("exact_match", 1.0, {}), ("length_penalty", 1.0, {"region": "tail"}))
