"""Scores as tables: each benchmark once, every model a line, beside the model that its run began with."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.evaluation.records import own
from pipelines.monitoring.charts import COLOURS, interval, number
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.reports.runs import Run
from pipelines.reports.scores import Benchmark, Score

SCORED = ("model", "accuracy", "", "95 %", "items", "points", "95 %", "better", "worse", "also")
"""A score by itself, then against the starting model on the same items; what nobody fills is left out."""


def score_tables(runs: Sequence[Run], found: Sequence[Benchmark], seed: int) -> Html:
    """All of them; how to come by a score if there is none."""
    if not found:
        return tag("p", "None yet: grpo eval --baseline scores the newest checkpoint.", class_="dim")
    return joined(_table(runs, one, seed) for one in found)


def _table(runs: Sequence[Run], one: Benchmark, seed: int) -> Html:
    rows = [_line(one, score, seed) for score in one.scores]
    used = [i for i, column in enumerate(SCORED) if column == "model" or any(row[i] for row in rows)]
    numbers = [place for place, i in enumerate(used) if SCORED[i] not in ("model", "", "also")]
    shown = table([SCORED[i] for i in used], [[row[i] for i in used] for row in rows], numbers)
    return joined([tag("h3", one.title), shown, *_between(runs, one, seed)])


def _line(one: Benchmark, score: Score, seed: int) -> list[str]:
    found, against = score.stored.metrics, one.against(score, one.base(score.run), seed)
    accuracy = ["", "", ""]
    if score.accuracy is not None:
        colour = score.run.colour if score.run else COLOURS - 1
        drawn = interval(found["low"], score.accuracy, found["high"], colour)
        accuracy = [f"{100 * score.accuracy:.1f} %", drawn, score.interval]
    compared = ["", "", "", ""]
    if against is not None:
        points, low, high = (f"{100 * value:+.1f}" for value in (against.difference, against.low, against.high))
        compared = [points, f"{low} to {high}", str(against.wins), str(against.losses)]
    also = ", ".join(f"{name} {number(value)}" for name, value in own(found).items())
    return [score.model, *accuracy, str(found.get("n", "")), *compared, also]


def _between(runs: Sequence[Run], one: Benchmark, seed: int) -> list[Html]:
    """The newest checkpoint of every further run against that of the first."""
    first = one.newest(runs[0])
    said: list[Html] = []
    for run in runs[1:]:
        score = one.newest(run)
        found = None if score is None else one.against(score, first, seed)
        if found is not None:
            points, low, high = (f"{100 * value:+.1f}" for value in (found.difference, found.low, found.high))
            sure = "" if found.low > 0 or found.high < 0 else ": no difference that these items can show"
            said.append(tag("p", f"{run.name} against {runs[0].name}: {points} points, 95 % {low} to {high}{sure}"))
    return said
