"""What scores say about the rewards themselves: distributions, and signs that learning would go wrong.

Shapes: N completions, K rewards; NaN where a reward abstained or failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import correlation
from typing import Any

import numpy as np

from pipelines.rewards.composer import Floats, Scores

TOTAL = "total"
BINS = 10
BLOCKS = " ▁▂▃▄▅▆▇█"
GOLD_SHOULD_REACH = 0.95
HIGH_SHARE = 0.5
"""An attack scores high when its mean total is above this share of what gold gets."""


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
    """Pearson's r with the number of tokens; None if either is constant."""


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
        return Distribution(name, 0, missing, None, None, None, None, (0,) * BINS, None)
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=BINS, range=(min(low, 0.0), max(high, 1.0)))
    tokens = [float(length) for length, here in zip(lengths, present, strict=True) if here]
    mean, std = float(values.mean()), float(values.std())
    histogram = tuple(int(count) for count in counts)
    return Distribution(name, len(values), missing, mean, std, low, high, histogram, pearson(values.tolist(), tokens))


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation of two lists of n numbers; None if one of them is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return max(-1.0, min(1.0, correlation(x, y)))


def sparkline(histogram: Sequence[int]) -> str:
    """A histogram in one line; every bin that holds something shows."""
    top = max(histogram, default=0)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top) if top else 0] for count in histogram)


def row_records(scores: Scores) -> list[dict[str, Any]]:
    """One object a row: its total, its rewards (None: abstained or failed), and what the rewards said about it."""
    failed: dict[int, dict[str, Any]] = {}
    for failure in scores.failures:
        failed.setdefault(failure.row, {})[failure.name] = {"failed": failure.error}
    return [
        {
            "row": row,
            "total": _number(scores.totals[row]),
            "rewards": {name: _number(value) for name, value in zip(scores.names, values, strict=True)},
            "reasons": {**scores.details[row], **failed.get(row, {})},
        }
        for row, values in enumerate(scores.values)
    ]


def warnings_about(scores: Scores, gold: Scores | None, attacks: Mapping[str, Scores]) -> list[str]:
    """One sentence for each sign of trouble.

    `scores` may be the gold's own: then only what attacks cannot move either is constant. In other completions, what
    does not vary among them has nothing to teach.
    """
    compared = [scores, *attacks.values()] if scores is gold else [scores]
    found = _constant(compared) + _failed(scores)
    if gold is not None:
        found += _low_gold(gold) + _hackable(gold, attacks)
    return found


def _constant(compared: Sequence[Scores]) -> list[str]:
    found: list[str] = []
    for k, name in enumerate(compared[0].names):
        column: Floats = np.concatenate([scores.values[:, k] for scores in compared])
        present: Floats = column[~np.isnan(column)]
        if not len(present) and len(column):
            found.append(f"{name} has no value for any completion: it abstains or fails everywhere")
        elif len(present) > 1 and np.ptp(present) == 0:
            found.append(f"{name} is constant: {present[0]:.3g} for all {len(present)} texts, so it teaches nothing")
    return found


def _failed(scores: Scores) -> list[str]:
    found: list[str] = []
    for name in scores.names:
        failures = [failure for failure in scores.failures if failure.name == name]
        if failures:
            first = failures[0]
            found.append(f"{name} failed on {len(failures)} rows, first on row {first.row}: {first.error}")
    return found


def _low_gold(gold: Scores) -> list[str]:
    low = np.flatnonzero(gold.totals < GOLD_SHOULD_REACH)
    if not len(low):
        return []
    worst = int(low[np.argmin(gold.totals[low])])
    values = gold.values[worst]
    blame = gold.names[int(np.nanargmin(values))]
    message = (
        f"gold scores below {GOLD_SHOULD_REACH} on {len(low)} of {len(gold.totals)} rows, "
        f"lowest on row {worst}: {gold.totals[worst]:.3g} ({blame} {np.nanmin(values):.3g})"
    )
    return [message]


def _hackable(gold: Scores, attacks: Mapping[str, Scores]) -> list[str]:
    level = mean_total(gold)
    if level is None:
        return []
    found: list[str] = []
    for name, scores in attacks.items():
        mean = mean_total(scores)
        if mean is not None and mean > max(HIGH_SHARE * level, 0) + 1e-6:
            found.append(f"adversarial text scores high: {name} gets {mean:.3g} on average, gold {level:.3g}")
    return found


def mean_total(scores: Scores) -> float | None:
    present = scores.totals[~np.isnan(scores.totals)]
    return float(present.mean()) if len(present) else None


def _number(value: np.float32) -> float | None:
    """Six digits are what a float32 holds; None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(f"{value:.6g}")
