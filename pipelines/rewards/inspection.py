"""What scores look like from outside: distributions, what follows the length, who agrees with whom, strange rows.

Shapes: N completions, K rewards; NaN where a reward abstained or failed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import correlation
from typing import Any

import numpy as np

from pipelines.rewards.composer import Floats, Scores

TOTAL = "total"
BINS = 10
GOLD_SHOULD_REACH = 0.95
SAME_RANK, LIKE_RANK, AGAINST_RANK = 0.9, 0.5, -0.3
"""Rank correlations from which two rewards are called the same, alike, and opposed."""


@dataclass(frozen=True)
class Distribution:
    """One reward, or the total, over the rows where it has a value; None where that leaves nothing to say."""

    name: str
    count: int
    missing: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    histogram: tuple[int, ...]
    """Counts in BINS equal bins over [0, 1], widened to the range of the values where they leave it."""
    length_correlation: float | None
    """Pearson's r with the number of tokens."""
    undefined: str = ""
    """Why there is no such r."""

    @property
    def edges(self) -> tuple[float, float]:
        """Where the first bin begins and the last one ends."""
        return min(self.low or 0.0, 0.0), max(self.high or 0.0, 1.0)


@dataclass(frozen=True)
class Agreement:
    """Two rewards on the texts where both have a value."""

    first: str
    second: str
    count: int
    pearson: float | None
    rank: float | None
    """Spearman's rho: Pearson's r of the ranks, equal values sharing their mean rank."""
    words: str


@dataclass(frozen=True)
class Strange:
    """A row worth reading, and why."""

    row: int
    why: str


def describe(scores: Scores, lengths: Sequence[int]) -> list[Distribution]:
    """A distribution for every reward and, last, for the total."""
    columns = [scores.values[:, k] for k in range(len(scores.names))]
    return [
        distribution(name, column, lengths)
        for name, column in zip([*scores.names, TOTAL], [*columns, scores.totals], strict=True)
    ]


def distribution(name: str, column: Floats, lengths: Sequence[int]) -> Distribution:
    present = ~np.isnan(column)
    values = column[present].astype(np.float64)
    missing = int(len(column) - len(values))
    if not len(values):
        return Distribution(name, 0, missing, None, None, None, None, (0,) * BINS, None, "it has no value")
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=BINS, range=(min(low, 0.0), max(high, 1.0)))
    tokens = [float(length) for length, here in zip(lengths, present, strict=True) if here]
    mean, std = float(values.mean()), float(values.std())
    histogram = tuple(int(count) for count in counts)
    r, undefined = pearson(values.tolist(), tokens), ""
    if r is None:
        undefined = "its value is the same everywhere" if low == high else "all completions have the same length"
    return Distribution(name, len(values), missing, mean, std, low, high, histogram, r, undefined)


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation of two lists of n numbers; None if one of them is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return max(-1.0, min(1.0, correlation(x, y)))


def agreements(found: Sequence[Scores]) -> list[Agreement]:
    """Every pair of rewards on all these texts, K (K - 1) / 2 of them."""
    names = found[0].names
    values: Floats = np.concatenate([scores.values for scores in found])
    return [_agreement(names[i], names[j], values[:, [i, j]]) for i, j in combinations(range(len(names)), 2)]


def _agreement(first: str, second: str, values: Floats) -> Agreement:
    both = values[~np.isnan(values).any(axis=1)]
    x, y = both[:, 0], both[:, 1]
    rank = pearson(ranks(x), ranks(y))
    if not len(both):
        words = "no text has a value of both"
    elif rank is None:
        words = f"{first if np.ptp(x) == 0 else second} is the same everywhere"
    elif rank >= SAME_RANK:
        words = "they say the same: one would do"
    elif rank >= LIKE_RANK:
        words = "they mostly agree"
    else:
        words = "each says its own" if rank > AGAINST_RANK else "they pull against each other"
    return Agreement(first, second, len(both), pearson(x.tolist(), y.tolist()), rank, words)


def ranks(values: Floats) -> list[float]:
    """1 for the smallest of n values; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return [float(last[i] - (counts[i] - 1) / 2) for i in place]


def row_records(scores: Scores) -> list[dict[str, Any]]:
    """One object a row: its total, its rewards (None: abstained or failed), and what the rewards said about it."""
    failed: dict[int, dict[str, Any]] = {}
    for failure in scores.failures:
        failed.setdefault(failure.row, {})[failure.name] = {"failed": failure.error}
    return [
        {
            "row": row,
            "total": number(scores.totals[row]),
            "rewards": {name: number(value) for name, value in zip(scores.names, values, strict=True)},
            "reasons": {**scores.details[row], **failed.get(row, {})},
        }
        for row, values in enumerate(scores.values)
    ]


def strangest(records: Sequence[Mapping[str, Any]], most: int, *, low_gold: Collection[int]) -> list[Strange]:
    """The rows most worth reading: failures, gold that scores low, rewards that disagree, unusual totals.

    `records` are `row_records` with `thinking_tokens` and `answer_tokens`; `low_gold` are rows that should score more.
    """
    totals = [record["total"] for record in records if record["total"] is not None]
    lengths = [_tokens(record) for record in records]
    usual = (_middle(totals), _middle(lengths))
    judged = [(*_strange(record, usual, low=record["row"] in low_gold), record["row"]) for record in records]
    judged.sort(key=lambda item: (-item[0], item[2]))
    return [Strange(row, why) for _, why, row in judged[:most]]


def _strange(
    record: Mapping[str, Any], usual: tuple[tuple[float, float], tuple[float, float]], *, low: bool
) -> tuple[float, str]:
    """How strange, and why in words; what counts most is said."""
    failed = [name for name, said in record["reasons"].items() if "failed" in said]
    if failed:
        return 5.0, f"{' and '.join(failed)} failed"
    total = record["total"]
    if total is None:
        return 4.0, "no reward has a value"
    if low:
        return 4.0 - total, f"gold, yet it scores {total:.3g}"
    (mean, std), (usual_length, spread) = usual
    values = sorted((value, name) for name, value in record["rewards"].items() if value is not None)
    (least, worst), (high, best) = values[0], values[-1]
    found = [
        (high - least, f"rewards disagree: {best} {high:.3g}, {worst} {least:.3g}"),
        (_far(total, mean, std), f"its total is unusual: {total:.3g}, the mean is {mean:.3g}"),
        (_far(_tokens(record), usual_length, spread), f"its length is unusual: {_tokens(record)} tokens"),
    ]
    score, why = max(found, key=lambda item: item[0])
    return (score, why) if score > 0 else (0.0, "like the others")


def _far(value: float, mean: float, std: float) -> float:
    """Distance from the mean, 1 at four standard deviations; nothing within one."""
    deviations = abs(value - mean) / std if std > 0 else 0.0
    return deviations / 4 if deviations > 1 else 0.0


def _middle(values: Sequence[float]) -> tuple[float, float]:
    return (float(np.mean(values)), float(np.std(values))) if values else (0.0, 0.0)


def _tokens(record: Mapping[str, Any]) -> int:
    return record["thinking_tokens"] + record["answer_tokens"]


def number(value: np.float32) -> float | None:
    """Six digits are what a float32 holds; None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(f"{value:.6g}")
