"""Signs that learning is dead or out of hand, read from the metrics of the last updates and said in plain sentences."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from pipelines.errors import TrainingError

Metrics = Mapping[str, float]
Check = Callable[[Sequence[Metrics]], str | None]

UPDATES = 5
"""How many updates in a row must show a sign; one alone may be chance."""

CONSTANT_UPDATES = 10
HISTORY_UPDATES = 100
SILENT_UPDATES = 100
"""A sign that was named is not named again for so many updates."""

TRUNCATED_FRACTION = 0.2
FALLEN = 0.5
"""A mean reward below so much of the best that is remembered has fallen, whatever the task."""
KL_NATS = 1.0
"""Per token. A policy this far from its reference has mostly forgotten it."""

LENGTH_CORRELATION = 0.5
LENGTH_GROWTH = 1.5
"""Completions so many times as long as they were, while the longer ones earn more, are probably paid for length."""

ENTROPY_NATS = 1e-3
ENTROPY_GROWTH_NATS = 1.0


def all_groups_equal(recent: Sequence[Metrics]) -> str | None:
    """Every group of the last updates had one reward: all advantages are exactly 0."""
    shares = _last(recent, "frac_reward_zero_std", UPDATES)
    if not shares or min(shares) < 1:
        return None
    rewards = [metrics["reward"] for metrics in recent if "reward" in metrics]
    if rewards and max(rewards[-UPDATES:]) < FALLEN * max(rewards):
        way_out = (
            f"the mean reward has fallen from {max(rewards):.3g} to {rewards[-1]:.3g}: if samples.jsonl shows text "
            "that falls apart, lower the learning rate and begin again with --fresh"
        )
    else:
        way_out = (
            "look at the rewards with `grpo inspect-rewards`, change the task's difficulty, or raise "
            "generation.temperature"
        )
    taught = "only the references teach" if "sft_loss" in recent[-1] else "nothing is learnt"
    return (
        f"in each of the last {UPDATES} updates all completions of a prompt got the same reward, so {taught}; {way_out}"
    )


def no_reward(recent: Sequence[Metrics]) -> str | None:
    """No completion of the last updates was scored: every reward abstained on every one, or failed."""
    scored = ["reward" in metrics for metrics in recent[-UPDATES:] if "rewards/failures" in metrics]
    if len(scored) < UPDATES or any(scored):
        return None
    return (
        f"in the last {UPDATES} updates no reward scored any completion, so nothing is learnt; "
        "look with `grpo inspect-rewards` at why they abstain"
    )


def constant_reward(recent: Sequence[Metrics]) -> str | None:
    """The mean reward has not moved at all."""
    rewards = _last(recent, "reward", CONSTANT_UPDATES)
    if not rewards or max(rewards) != min(rewards):
        return None
    return (
        f"the mean reward has been exactly {rewards[-1]:.4g} for {CONSTANT_UPDATES} updates; "
        "a reward that gives everything the same number teaches nothing (see `grpo inspect-rewards`)"
    )


def zero_gradient(recent: Sequence[Metrics]) -> str | None:
    """The gradient is exactly 0, not merely small, or no token had one though rewards differed."""
    norms = _last([{"grad_norm": 0.0, **metrics} for metrics in recent if _could_learn(metrics)], "grad_norm", UPDATES)
    if not norms or max(norms) > 0:
        return None
    return f"the gradient was exactly zero in the last {UPDATES} updates: the weights do not move"


def truncation(recent: Sequence[Metrics]) -> str | None:
    """Too many completions end at the length limit, where their reward says little."""
    shares = _last(recent, "completions/clipped_ratio", UPDATES)
    if not shares or fmean(shares) <= TRUNCATED_FRACTION:
        return None
    earlier = recent[0].get("completions/clipped_ratio", 1.0)
    if earlier < TRUNCATED_FRACTION / 2:
        way_out = (
            f"{len(recent) - 1} updates ago it was {earlier:.0%}: see in samples.jsonl whether a reward pays for "
            "length, or text falls apart because the learning rate is too high"
        )
    else:
        way_out = "raise data.max_gen_len, or reward shorter completions"
    return (
        f"{fmean(shares):.0%} of the completions of the last {UPDATES} updates were cut off at the length limit; "
        + way_out
    )


def length_pays(recent: Sequence[Metrics]) -> str | None:
    """Within groups the longer completions earn more, and completions have grown."""
    correlations = _last(recent, "reward_length_correlation", UPDATES)
    first = _last(recent[:UPDATES], "completions/mean_length", UPDATES)
    last = _last(recent[UPDATES:], "completions/mean_length", UPDATES)
    if not correlations or not first or not last or fmean(correlations) <= LENGTH_CORRELATION:
        return None
    before, now = fmean(first), fmean(last)
    if now <= LENGTH_GROWTH * before:
        return None
    return (
        f"completions have grown from {before:.0f} to {now:.0f} tokens, and the longer ones of a group earn more "
        f"(correlation {fmean(correlations):.2f}): see in samples.jsonl and with `grpo inspect-rewards` whether a "
        "reward pays for length alone"
    )


def kl_runaway(recent: Sequence[Metrics]) -> str | None:
    """The policy has left its reference."""
    values = _last(recent, "kl", UPDATES)
    if not values or fmean(values) <= KL_NATS:
        return None
    return (
        f"the KL to the reference has reached {fmean(values):.3g} nats per token; "
        "lower trainer.learning_rate or raise trainer.grpo_beta"
    )


def entropy_collapse(recent: Sequence[Metrics]) -> str | None:
    """The policy has stopped exploring."""
    values = _last(recent, "entropy", UPDATES)
    if not values or not fmean(values) < ENTROPY_NATS:  # NaN is the next check's
        return None
    return (
        f"the entropy has fallen to {fmean(values):.2g} nats per token: all samples of a prompt are alike; "
        "raise generation.temperature or trainer.loss.entropy_coef"
    )


def entropy_explosion(recent: Sequence[Metrics]) -> str | None:
    """The policy drifts towards noise, measured from the oldest updates that are remembered."""
    values = _last(recent, "entropy", UPDATES)
    first = _last(recent[: 2 * UPDATES], "entropy", UPDATES)
    if not values or not first or fmean(values) <= fmean(first) + ENTROPY_GROWTH_NATS:
        return None
    return (
        f"the entropy has risen from {fmean(first):.3g} to {fmean(values):.3g} nats per token: samples turn to noise; "
        "lower trainer.learning_rate or trainer.loss.entropy_coef"
    )


CHECKS: tuple[Check, ...] = (
    all_groups_equal,
    no_reward,
    constant_reward,
    zero_gradient,
    truncation,
    length_pays,
    kl_runaway,
    entropy_collapse,
    entropy_explosion,
)


def findings(recent: Sequence[Metrics]) -> list[str]:
    """All that is wrong with the last updates, oldest first in `recent`; empty when nothing is."""
    return [sentence for check in CHECKS if (sentence := check(recent)) is not None]


class Watch:
    """Says each sign when it appears, then leaves it alone for a while."""

    def __init__(self) -> None:
        self._recent: deque[Metrics] = deque(maxlen=HISTORY_UPDATES)
        self._updates = 0
        self._said_at: dict[Check, int] = {}

    def after(self, metrics: Metrics) -> list[str]:
        """What there is to say after an update."""
        self._recent.append(metrics)
        self._updates += 1
        recent = list(self._recent)
        due = [check for check in CHECKS if self._updates >= self._said_at.get(check, -SILENT_UPDATES) + SILENT_UPDATES]
        news = [(check, sentence) for check in due if (sentence := check(recent)) is not None]
        self._said_at |= {check: self._updates for check, _ in news}
        return [sentence for _, sentence in news]


class DeadUpdates:
    """Counts updates in a row that taught nothing: no gradient, one of exactly 0, or every group equal.

    Where references teach beside the rewards, equal groups alone are no reason.
    """

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self.limit = limit
        self.in_a_row = in_a_row

    def after(self, metrics: Metrics) -> None:
        """Count one update; TrainingError when `limit` of them in a row were dead (0 = never)."""
        silent = metrics.get("frac_reward_zero_std", 0) >= 1 and "sft_loss" not in metrics
        dead = silent or metrics.get("grad_norm", 0) == 0
        self.in_a_row = self.in_a_row + 1 if dead else 0
        if self.limit and self.in_a_row >= self.limit:
            raise TrainingError(
                f"the last {self.in_a_row} updates taught nothing: all completions of each prompt got the same reward, "
                "or none at all, or the gradient was exactly zero",
                hint="look at samples.jsonl and `grpo inspect-rewards`; the limit is trainer.abort_after_dead_updates",
            )


def _could_learn(metrics: Metrics) -> bool:
    """Whether an update took a step, or had rewards that it could have learnt from."""
    return "grad_norm" in metrics or metrics.get("frac_reward_zero_std", 1) < 1


def _last(recent: Sequence[Metrics], name: str, count: int) -> list[float]:
    """The last `count` values of a metric; none at all if there are fewer."""
    values = [metrics[name] for metrics in recent if name in metrics]
    return values[-count:] if len(values) >= count else []
