"""The metrics of runs as charts, in the order in which somebody asks: does it learn, what does it write, is it well."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines.monitoring.charts import Line, lines
from pipelines.monitoring.names import METRICS
from pipelines.monitoring.page import Html, joined, tag
from pipelines.reports.runs import Run

GROUPS = (
    ("Does it learn?", (r"eval/.+/accuracy", "reward", "rewards/.+/mean", "reward_std", "sft_loss", "loss")),
    (
        "What does it write?",
        (
            "completions/mean_length",
            "completions/mean_thinking_length",
            "completions/mean_answer_length",
            "completions/clipped_ratio",
            "reward_length_correlation",
            "frac_reward_zero_std",
            "rewards/failures",
        ),
    ),
    (
        "Is it well?",
        (
            "kl",
            "entropy",
            "grad_norm",
            "learning_rate",
            "clip_ratio/region_mean",
            "mismatch_kl",
            "critic/vf_explained_var",
        ),
    ),
    (
        "How fast?",
        (
            "time/step_seconds",
            "rollout/tokens_per_second",
            "update/tokens_per_second",
            "memory/peak_gb",
        ),
    ),
)
"""Headings, and patterns of the metrics below each; every other metric stands under `REST`."""

UNITS = ("tokens", "nats per token", "nats", "s", "tokens/s", "GB", "count", "fraction", "L2 norm", "epochs")
"""Those that say something which the name does not."""

REST = "Everything else that was logged"
HIDDEN = re.compile(r"eval/.+/(?!accuracy$).+|rewards/.+/std|completions/(min|max)_length|num_tokens|epoch")
"""Ends of intervals, and what says nothing that another chart does not."""


def curves(runs: Sequence[Run]) -> Html:
    """All charts; those of `REST` are folded away."""
    names = list(dict.fromkeys(name for run in runs for name in run.series if not _repeats_reward(run, name)))
    taken: set[str] = set()
    parts: list[Html] = []
    for heading, patterns in GROUPS:
        found = [name for pattern in patterns for name in names if re.fullmatch(pattern, name)]
        shown = [chart for name in found if (chart := _chart(runs, name))]
        taken |= set(found)
        if shown:
            parts += [tag("h3", heading), tag("div", *shown, class_="charts")]
    rest = [name for name in names if name not in taken and not HIDDEN.fullmatch(name)]
    others = [chart for name in rest if (chart := _chart(runs, name))]
    if others:
        parts.append(tag("details", tag("summary", REST), tag("div", *others, class_="charts")))
    return joined(parts)


def _chart(runs: Sequence[Run], name: str) -> Html:
    """A metric of all runs that logged it; no chart of failures where there were none."""
    drawn = list(_lines(runs, name))
    if name == "rewards/failures" and not any(any(line.values) for line in drawn):
        return Html("")
    unit, meaning = _explained(name)
    caption = f"{name}, {unit}" if unit in UNITS else name
    return lines(drawn, caption, meaning)


def _repeats_reward(run: Run, name: str) -> bool:
    """Whether a component is the whole reward."""
    return re.fullmatch("rewards/.+/mean", name) is not None and run.series[name] == run.series.get("reward")


def _lines(runs: Sequence[Run], name: str) -> Iterator[Line]:
    for run in runs:
        steps, values = run.series.get(name, ([], []))
        if steps:
            yield Line(run.name, steps, values, run.colour, _ends(run, name, steps))


def _ends(run: Run, name: str, steps: Sequence[int]) -> list[tuple[float, float]]:
    """The intervals of an accuracy."""
    around = [run.series.get(name.removesuffix("accuracy") + end, ([], [])) for end in ("low", "high")]
    if not name.endswith("/accuracy") or any(found != steps for found, _ in around):
        return []
    return list(zip(around[0][1], around[1][1], strict=True))


def _explained(name: str) -> tuple[str, str]:
    """Unit and meaning of a metric."""
    exact = [metric for metric in METRICS if metric.name == name]
    found = exact or [metric for metric in METRICS if metric.pattern.fullmatch(name)]
    return (found[0].unit, found[0].meaning) if found else ("", "")
