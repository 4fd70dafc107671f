"""What a run earned and what it took: the reward by component, the time by what it was spent on."""

from __future__ import annotations

from math import isclose

from pipelines.monitoring.charts import bar, number
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.monitoring.progress import clock_text
from pipelines.reports.runs import Run
from pipelines.rewards.composer import component_names

PARTS = {
    "rollouts": "time/rollout_seconds",
    "rewards": "time/reward_seconds",
    "update": "time/update_seconds",
    "benchmarks": "time/eval_seconds",
}
REST = "all else"
WORTH_NAMING = 0.005
"""A smaller part of the time is not worth a line."""

REWARDS = ("component", "weight", "mean", "change", "weighted", "spread")
TIMES = ("spent on", "time", "share", "", "s per update")
ADDS_UP = 1e-3
"""Parts of a change this near to the whole add up to it."""


def breakdown(run: Run) -> Html:
    """Both tables."""
    return joined([_reward(run), _time(run)])


def seconds(run: Run) -> float:
    """What all updates and evaluations took."""
    return run.total("time/step_seconds") + run.total("time/eval_seconds")


def shares(run: Run) -> dict[str, float]:
    """The parts of that time, for which there is a name and for the rest, that are worth naming."""
    whole = seconds(run)
    parts = {label: run.total(name) for label, name in PARTS.items()}
    parts[REST] = whole - sum(parts.values())
    return {label: part / whole for label, part in parts.items() if whole and part / whole >= WORTH_NAMING}


def _reward(run: Run) -> Html:
    """Each component, and what it gave to the reward; nothing where nothing was rewarded."""
    total = run.change("reward")
    weights = _weights(run)
    if total is None or not weights:
        return Html("")
    whole, rows, given = sum(weights.values()), [], 0.0
    for name, weight in weights.items():
        change = run.change(f"rewards/{name}/mean")
        if change is None:
            rows.append([name, number(weight), "never scored", "", "", ""])
            continue
        share = weight / whole * (change[1] - change[0]) if whole else 0.0
        given += share
        rows.append([name, number(weight), *_moved(change), _signed(share), _spread(run, f"rewards/{name}/std")])
    change = _signed(total[1] - total[0])
    rows.append(["reward", "", *_moved(total), change, _spread(run, "reward_std")])
    words = (
        "Means over the first and the last tenth of the updates. Weighted: what a change was to the reward. Spread: "
        "the standard deviation among the last completions, without which a component teaches nothing."
    )
    if not isclose(given, total[1] - total[0], abs_tol=ADDS_UP):
        words += " The parts do not add up, since a component abstained on some completions."
    if failures := run.total("rewards/failures"):
        words += f" {number(failures)} times a reward failed."
    shown = table(REWARDS, rows, range(1, len(REWARDS)))
    return joined([tag("h3", "The reward by component"), shown, tag("p", words, class_="dim")])


def _weights(run: Run) -> dict[str, float]:
    """The weight of each component under the name that it is logged as."""
    found = run.settings.get("rewards") or []
    names = component_names([str(reward.get("name")) for reward in found])
    return {name: float(reward.get("weight", 1)) for name, reward in zip(names, found, strict=True)}


def _moved(change: tuple[float, float]) -> tuple[str, str]:
    first, last = change
    return f"{number(first)} → {number(last)}", _signed(last - first)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _spread(run: Run, name: str) -> str:
    change = run.change(name)
    return "-" if change is None else number(change[1])


def _time(run: Run) -> Html:
    whole = seconds(run)
    rows = [
        [label, clock_text(share * whole), f"{share:.0%}", bar(share), _each(run, PARTS.get(label, ""))]
        for label, share in shares(run).items()
    ]
    if not rows:
        return Html("")
    rows.append(["all", clock_text(whole), "", "", _each(run, "time/step_seconds")])
    work = {name: total for name in run.series if name.startswith("time/rewards/") and (total := run.total(name)) >= 1}
    told = ", ".join(f"{name.removeprefix('time/rewards/')} {clock_text(total)}" for name, total in work.items())
    words = "Seconds are means of the first and of the last tenth; rewards count as far as they were waited for." + (
        f" Their work, added up over the workers: {told}." * bool(told)
    )
    shown = table(TIMES, rows, (1, 2, 4))
    return joined([tag("h3", "The time by what it was spent on"), shown, tag("p", words, class_="dim")])


def _each(run: Run, name: str) -> str:
    """Seconds of an update, first and last."""
    change = run.change(name)
    return "" if change is None else f"{number(change[0])} → {number(change[1])}"
