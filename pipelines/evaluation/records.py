"""What scoring leaves behind: a verdict, a record of each completion, and the numbers that records reduce to.

A record is a plain dict, a line of the per-item JSONL. Metrics are computed from records alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.evaluation.statistics import wilson

Record = dict[str, Any]
Records = Sequence[Mapping[str, Any]]

STANDARD = ("accuracy", "low", "high", "n", "samples", "mean_length", "truncation_rate", "format_rate")
"""Metrics that every benchmark may have; any other is its own, `<name>_low` and `<name>_high` being its interval."""


@dataclass(frozen=True)
class Verdict:
    """Whether a completion is right, what was read from it as its answer, and what was expected."""

    correct: bool
    extracted: str | None
    expected: str | None
    also: Mapping[str, float] = field(default_factory=dict[str, float])
    """Other readings of the same completion, by name and in [0, 1]: their means are metrics of these names."""
    reason: str = ""
    """Why it is wrong, where that can be told."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of its record, as JSON knows them."""


def by_item(records: Records) -> dict[int, float]:
    """The score of each item: the mean over its samples of `score`, or of `correct` where there is no score."""
    return means(records, lambda record: record.get("score", record.get("correct")))


def metrics(records: Records) -> dict[str, Any]:
    """What the records can tell: accuracy, other readings, how the completions look.

    Accuracies come with Wilson's 95 % interval over the n items. `mean_length` is in tokens, end-of-text counted;
    `truncation_rate` is the fraction that reached the length limit; `format_rate` the fraction with one well-formed
    think block and an answer.
    """
    n, count = len({record["item"] for record in records}), len(records)
    found: dict[str, Any] = {}
    if "correct" in records[0]:
        found |= proportion("accuracy", by_item(records), interval=("low", "high"))
    found |= {"n": n, "samples": count // n}
    if "finish_reason" in records[0]:
        found |= {
            "mean_length": sum(record["tokens"] for record in records) / count,
            "truncation_rate": sum(record["finish_reason"] == "length" for record in records) / count,
            "format_rate": sum(record["well_formed"] for record in records) / count,
        }
    for name in records[0].get("also", ()):
        found |= proportion(name, means(records, lambda record, name=name: record["also"][name]))
    return found


def proportion(name: str, scores: Mapping[int, float], interval: tuple[str, str] | None = None) -> dict[str, float]:
    """The mean of items' scores in [0, 1] under a name, with Wilson's interval under two more."""
    low, high = interval or (f"{name}_low", f"{name}_high")
    total, n = sum(scores.values()), len(scores)
    ends = wilson(total, n)
    return {name: total / n, low: ends.low, high: ends.high}


def own(found: Mapping[str, Any]) -> dict[str, float]:
    """Of some metrics the numbers that only this benchmark has, without their intervals."""
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float)
        and name not in STANDARD
        and not (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in found)
    }


def means(records: Records, read: Callable[[Mapping[str, Any]], float | None]) -> dict[int, float]:
    """For each item the mean over its samples of what is read of their records; None is left out."""
    values: dict[int, list[float]] = {}
    for record in records:
        value = read(record)
        if value is not None:
            values.setdefault(record["item"], []).append(value)
    return {item: sum(some) / len(some) for item, some in values.items()}
