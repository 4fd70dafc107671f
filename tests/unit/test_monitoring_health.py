"""Each sign of dead or runaway learning is named when it is there, and silence means health."""

import pytest

from pipelines.errors import TrainingError
from pipelines.monitoring import health

HEALTHY = {
    "reward": 0.5,
    "frac_reward_zero_std": 0.25,
    "grad_norm": 0.3,
    "completions/clipped_ratio": 0.2,
    "kl": 0.01,
    "entropy": 0.4,
}


def updates(count=20, **changes):
    """A run of `count` updates with a moving reward; a change is a value or a function of the update's index."""
    names = {
        "clipped": "completions/clipped_ratio",
        "zero_std": "frac_reward_zero_std",
        "correlation": "reward_length_correlation",
        "length": "completions/mean_length",
    }
    runs = []
    for index in range(count):
        given = {names.get(k, k): v(index) if callable(v) else v for k, v in changes.items()}
        runs.append(HEALTHY | {"reward": 0.5 + index / 100} | given)
    return runs


def test_a_healthy_run_is_not_talked_about():
    assert health.findings(updates()) == []
    assert health.findings([]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zero_std": 1.0}, "same reward, so nothing is learnt"),
        ({"reward": 0.25}, "exactly 0.25 for 10 updates"),
        ({"grad_norm": 0.0}, "gradient was exactly zero"),
        ({"clipped": 0.34}, "34% of the completions"),
        ({"kl": 1.3}, "reached 1.3 nats"),
        ({"kl": float("nan")}, "reached nan nats"),
        ({"entropy": float("nan")}, "to nan nats"),
        ({"entropy": 0.0002}, "fallen to 0.0002"),
        ({"entropy": lambda i: 0.4 + i / 5}, "risen from"),
        ({"correlation": 0.8, "length": lambda i: 20 + 2 * i}, "grown from 24 to 54 tokens"),
    ],
)
def test_each_sign_gives_one_sentence(changes, words):
    (sentence,) = health.findings(updates(**changes))
    assert words in sentence


def test_a_model_that_broke_is_not_told_to_change_its_task():
    broken = [*updates(1, clipped=0.0), *updates(6, reward=0.0, zero_std=1.0, clipped=0.9)]
    equal, cut = health.findings(broken)
    assert "fallen from 0.5 to 0: if samples.jsonl shows text that falls apart, lower the learning rate" in equal
    assert "6 updates ago it was 0%" in cut
    solved = [*updates(6, reward=0.9), *updates(6, reward=0.9, zero_std=1.0)]
    assert "change the task's difficulty" in health.findings(solved)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_std": lambda i: 1.0 if i != 17 else 0.9},
        {"reward": lambda i: 0.25 if i != 12 else 0.2501},
        {"grad_norm": lambda i: 0.0 if i != 19 else 1e-30},
        {"kl": lambda i: 4.0 if i == 19 else 0.01},
        {"clipped": lambda i: 0.9 if i < 10 else 0.1},
        {"correlation": 0.8, "length": lambda i: 20 + i / 4},
        {"correlation": -0.8, "length": lambda i: 20 + 2 * i},
        {"correlation": lambda i: 0.9 if i < 15 else 0.3, "length": lambda i: 20 + 2 * i},
    ],
)
def test_a_single_good_update_or_an_old_sign_is_enough_to_be_quiet(changes):
    assert health.findings(updates(**changes)) == []


@pytest.mark.parametrize("scored", [None, 17], ids=["never", "once"])
def test_updates_that_take_no_step_have_no_gradient(scored):
    """Such as those whose completions were all cut off and masked."""
    runs = updates()
    for index, metrics in enumerate(runs):
        if index != scored:
            del metrics["grad_norm"]
    assert len(health.findings(runs)) == (scored is None)
    assert all("gradient was exactly zero" in sentence for sentence in health.findings(runs))


@pytest.mark.parametrize("scored", [None, 17], ids=["never", "once"])
def test_rewards_that_all_abstain_are_named(scored):
    runs = updates()
    for index, metrics in enumerate(runs):
        metrics["rewards/failures"] = 0
        if index != scored:
            del metrics["reward"]
    sentences = health.findings(runs)
    assert [("no reward scored any completion" in sentence) for sentence in sentences] == [True] * (scored is None)


def test_training_on_references_has_no_rewards_to_miss():
    assert health.findings([{"loss": 1.0, "grad_norm": 1.0}] * 20) == []


def test_too_few_updates_say_nothing():
    dead = updates(count=4, zero_std=1.0, grad_norm=0.0, clipped=1.0, kl=9.0, reward=0.0)
    assert health.findings(dead) == []


def test_watch_names_a_sign_once_and_reminds_later():
    watch = health.Watch()
    said = [watch.after(metrics) for metrics in updates(count=health.SILENT_UPDATES + 10, clipped=0.5)]
    assert [index for index, news in enumerate(said) if news] == [4, 4 + health.SILENT_UPDATES]


def test_dead_updates_end_the_run_at_the_limit_in_a_row():
    dead = health.DeadUpdates(3)
    for metrics in [{"frac_reward_zero_std": 1.0}, {"grad_norm": 0.0}, HEALTHY, {"grad_norm": 0.0}, {"reward": 1.0}]:
        dead.after(metrics)
    assert dead.in_a_row == 2
    with pytest.raises(TrainingError, match="last 3 updates taught nothing") as caught:
        dead.after({"frac_reward_zero_std": 1.0, "grad_norm": 0.2})
    assert "trainer.abort_after_dead_updates" in caught.value.hint


def test_updates_that_references_teach_are_not_dead():
    dead = health.DeadUpdates(3)
    for _ in range(9):
        dead.after({"frac_reward_zero_std": 1.0, "sft_loss": 0.7, "grad_norm": 0.2})
    assert dead.in_a_row == 0
    dead.after({"frac_reward_zero_std": 1.0, "sft_loss": 0.0, "grad_norm": 0.0})
    assert dead.in_a_row == 1
    (sentence,) = health.findings(updates(zero_std=1.0, sft_loss=0.7))
    assert "so only the references teach" in sentence
    assert "nothing is learnt" not in sentence


def test_dead_updates_can_be_continued_and_switched_off():
    with pytest.raises(TrainingError):
        health.DeadUpdates(3, in_a_row=2).after({"grad_norm": 0.0})
    never = health.DeadUpdates(0)
    for _ in range(200):
        never.after({"grad_norm": 0.0})
    assert never.in_a_row == 200
