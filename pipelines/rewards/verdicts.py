"""What scores say against their rewards: a verdict for each adversarial text, a warning for each sign of trouble."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.rewards.battery import ATTACKS, CONSTANT
from pipelines.rewards.composer import Floats, Scores
from pipelines.rewards.context import RewardContext
from pipelines.rewards.inspection import GOLD_SHOULD_REACH, TOTAL, Distribution, number, pearson, ranks

HIGH_SHARE = 0.5
"""A text that deserves nothing scores high when its total is above this share of what gold gets on average."""
NOTHING_SHARE = 0.05
"""Up to this share of gold it earns nothing to speak of."""
LITTLE_SHARE = 0.25
"""Up to this share of gold it earns a little."""
LENGTH_CORRELATION = 0.7
"""From this |r| on half of a reward's variance is length (r squared)."""
LENGTH_SPREAD = 0.05
"""A standard deviation below this moves nothing, whatever it follows."""
LENGTH_ROWS = 8
"""With fewer rows such an r comes by chance."""
LENGTH_CONTROL = 0.5
"""Below this |rank correlation| with length on gold and adversarial texts, a reward does not follow the length."""
ABOUT_LENGTH = frozenset({"length_penalty", "soft_overlong"})
"""Rewards that follow the length because that is what they are for; the total is still watched."""
BEST_TEXT, MOST_ERROR = 300, 300


@dataclass(frozen=True)
class Attack:
    """One kind of adversarial text and what it earns, row by row of the gold completions that it was made of."""

    name: str
    about: str
    rows: int
    total: float | None
    """Mean of the totals."""
    high_share: float | None
    """Share of rows whose total is above HIGH_SHARE of gold's mean."""
    rewards: dict[str, float | None]
    """Mean of each reward."""
    best: dict[str, Any] | None
    """The row that earns most: row, total, prompt, generated."""
    high: bool
    by: str
    """The reward that pays most for it, where it scores high."""
    verdict: str


def judge(
    name: str, scores: Scores, contexts: Sequence[RewardContext], rows: Sequence[int], level: float | None
) -> Attack:
    """What one attack got; `rows` are the numbers of its rows, `level` the mean total of gold."""
    mean = mean_total(scores)
    rewards = {each: _mean(scores.values[:, k]) for k, each in enumerate(scores.names)}
    present = scores.totals[~np.isnan(scores.totals)]
    share = None
    if level is not None and level > 0 and len(present):
        share = float(np.mean(present > HIGH_SHARE * level + 1e-6))
    high = mean is not None and level is not None and mean > max(HIGH_SHARE * level, 0) + 1e-6
    weighted = {each: w * (rewards[each] or 0) for each, w in zip(scores.names, scores.weights, strict=True)}
    by = max(weighted, key=lambda each: weighted[each]) if high else ""
    about = " ".join((ATTACKS[name].__doc__ or "").split())
    best = _best(scores, contexts, rows)
    words = _words(name, mean, share, level, high=high)
    return Attack(name, about, len(contexts), mean, share, rewards, best, high, by, words)


def _words(name: str, mean: float | None, share: float | None, level: float | None, *, high: bool) -> str:
    if mean is None:
        return "no reward has a value for it"
    if level is None or level <= 0:
        return "gold earns nothing to compare with"
    if high:
        return "as good as gold" if mean >= GOLD_SHOULD_REACH * level else f"pays {mean / level:.0%} of gold"
    if share:
        return f"{'right' if name == CONSTANT else 'pays'} on {share:.0%} of the rows"
    if mean <= NOTHING_SHARE * level:
        return "earns nothing"
    return f"{'a little' if mean <= LITTLE_SHARE * level else 'some'}: {mean / level:.0%} of gold"


def _best(scores: Scores, contexts: Sequence[RewardContext], rows: Sequence[int]) -> dict[str, Any] | None:
    if np.isnan(scores.totals).all():
        return None
    best = int(np.nanargmax(scores.totals))
    context = contexts[best]
    return {
        "row": rows[best],
        "total": number(scores.totals[best]),
        "prompt": context.prompt_text[:BEST_TEXT],
        "generated": context.generated_text[:BEST_TEXT],
    }


def warnings_about(
    scores: Scores,
    distributions: Sequence[Distribution],
    gold: Scores | None,
    attacks: Sequence[Attack],
    attacked: Sequence[Scores],
    *,
    control: Mapping[str, float | None] | None = None,
) -> list[str]:
    """One sentence for each sign of trouble.

    `scores` may be the gold's own: then only what attacks cannot move either is constant. In other completions, what
    does not vary among them has nothing to teach. And there a length may go with being right without earning anything:
    `control` are the `length_ranks` on gold and adversarial texts, where what follows the length must follow it too.
    """
    compared = [scores, *attacked] if scores is gold else [scores]
    found = _constant(compared) + _failed(scores) + _follows_length(distributions, control or {})
    if gold is not None:
        found += _low_gold(gold, attacked) + _hackable(attacks, mean_total(gold))
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
            first, rows = failures[0], "1 row" if len(failures) == 1 else f"{len(failures)} rows"
            found.append(f"{name} failed on {rows}, first on row {first.row}: {first.error[:MOST_ERROR]}")
    return found


def length_ranks(found: Sequence[Scores], lengths: Sequence[int]) -> dict[str, float | None]:
    """Spearman's rho of each reward and the total with the length in tokens over all these texts."""
    columns: Floats = np.concatenate([np.column_stack([scores.values, scores.totals]) for scores in found])
    tokens = np.asarray(lengths, np.float32)
    names = [*found[0].names, TOTAL]
    present = [~np.isnan(columns[:, k]) for k in range(len(names))]
    return {
        name: pearson(ranks(columns[here, k]), ranks(tokens[here]))
        for k, (name, here) in enumerate(zip(names, present, strict=True))
    }


def _follows_length(distributions: Sequence[Distribution], control: Mapping[str, float | None]) -> list[str]:
    found: list[str] = []
    for each in distributions:
        if each.name == TOTAL and len(distributions) == 2:
            continue  # the only reward is the total
        if re.sub(r"_\d+$", "", each.name) in ABOUT_LENGTH or each.count < LENGTH_ROWS:
            continue
        rank = control.get(each.name)
        if rank is not None and abs(rank) < LENGTH_CONTROL:
            continue
        r = each.length_correlation
        if r is not None and abs(r) >= LENGTH_CORRELATION and (each.std or 0) >= LENGTH_SPREAD:
            pays = "longer" if r > 0 else "shorter"
            found.append(f"{each.name} follows the length: r = {r:.2f} over {each.count} rows, {pays} texts earn more")
    return found


def low_gold(gold: Scores, attacked: Sequence[Scores]) -> list[int]:
    """The rows of gold whose total is below GOLD_SHOULD_REACH of the most that these rewards could give them."""
    weights, best = _within_reach(gold, attacked)
    most = (weights * best).sum(axis=1) / np.maximum(weights.sum(axis=1), np.finfo(np.float32).tiny)
    return np.flatnonzero(gold.totals < GOLD_SHOULD_REACH * most - 1e-6).tolist()


def _within_reach(gold: Scores, attacked: Sequence[Scores]) -> tuple[Floats, Floats]:
    """The weights `[N, K]` of the rewards that have a value, and the most `[K]` that each reward gives.

    That is 1, but 0 for a penalty: a reward that is below 0 on some of these texts and above 0 on none.
    """
    values: Floats = np.concatenate([scores.values for scores in (gold, *attacked)])
    penalty = (values < 0).any(axis=0) & ~(values > 0).any(axis=0)
    weights: Floats = np.where(np.isnan(gold.values), np.float32(0), gold.weights)
    return weights, np.where(penalty, np.float32(0), np.float32(1))


def _low_gold(gold: Scores, attacked: Sequence[Scores]) -> list[str]:
    low = low_gold(gold, attacked)
    if not low:
        return []
    worst = min(low, key=lambda row: gold.totals[row])
    weights, best = _within_reach(gold, attacked)
    values, most = gold.values[worst], float(np.average(best, weights=weights[worst]))
    blame = int(np.nanargmax(weights[worst] * (best - values)))
    message = (
        f"gold scores below {GOLD_SHOULD_REACH * most:.3g} on {len(low)} of {len(gold.totals)} rows, "
        f"lowest on row {worst}: {gold.totals[worst]:.3g} ({gold.names[blame]} {values[blame]:.3g})"
    )
    return [message]


def _hackable(attacks: Sequence[Attack], level: float | None) -> list[str]:
    return [
        f"adversarial text scores high: {attack.name} gets {attack.total:.3g} on average, gold {level:.3g}"
        for attack in attacks
        if attack.high
    ]


def mean_total(scores: Scores) -> float | None:
    """The mean of the totals that there are."""
    return _mean(scores.totals)


def _mean(column: Floats) -> float | None:
    present = column[~np.isnan(column)]
    return float(present.mean()) if len(present) else None
