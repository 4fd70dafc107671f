"""How sure a score is: an interval for one accuracy, and for the difference of two on the same items; pass@k.

Everything here is a pure function of numbers, one an item: an accuracy's are 1 or 0 for one answer, the mean over k
samples otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
ROWS_AT_ONCE = 1_000
"""Resamples drawn together, so that memory stays at a few megabytes for a thousand items."""


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The mean of b - a over the items, its interval, and on how many items b is better, worse, equal."""

    difference: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion p = successes / n, with z the normal quantile of the confidence:

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    E. B. Wilson, JASA 22 (1927); it keeps its coverage near 0 and 1 and for small n, where p -+ z sqrt(p(1-p)/n)
    does not. `successes` may be a sum of fractions (means over samples of an item): such values vary less than
    p(1-p), so the interval is then wider than needed, never narrower. ValueError for n < 1 or successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n or not 0 < confidence < 1:
        raise ValueError(f"no interval for {successes} of {n} at confidence {confidence}")
    p, z = successes / n, NormalDist().inv_cdf((1 + confidence) / 2)
    spread = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    # At p = 0 and p = 1 one end is the estimate itself; rounding must not carry it past.
    return Interval(max(0.0, min(p, (centre - spread) / scale)), min(1.0, max(p, (centre + spread) / scale)))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Paired:
    """The mean of b - a with a percentile interval: items are drawn with replacement, always both scores of an item.

    The ends are the (1 - c)/2 and (1 + c)/2 quantiles of the resampled means (B. Efron and R. Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 13; paired for two systems on one test set: P. Koehn, EMNLP 2004). Pairing
    removes what items differ in difficulty, so it is tighter than two separate intervals. Swapping a and b with the
    same seed negates the result. ValueError for no items or unequal lengths.
    """
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)  # [n]
    if differences.ndim != 1 or len(a) != len(b) or not len(differences):
        raise ValueError(f"a pair of scores for every item is needed, not {len(a)} and {len(b)}")
    means = _resampled_means(differences, seed, resamples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    ties = len(differences) - wins - losses
    return Paired(float(differences.mean()), float(low), float(high), wins, losses, ties)


def bootstrap(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of sum(values) / sum(weights), a mean without weights; items are drawn with replacement.

    The same drawing as in `paired_bootstrap`. ValueError for no items or unequal lengths.
    """
    over = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)  # [n]
    if not len(values) or len(over) != len(values):
        raise ValueError(f"a weight for every item is needed, not {len(over)} for {len(values)}")
    top = _resampled_means(np.asarray(values, dtype=np.float64), seed, resamples)
    ratios = top / _resampled_means(over, seed, resamples)  # the same seed draws the same items
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples is right, estimated from n of which c are: 1 - C(n-c, k) / C(n, k).

    Unbiased; computed as 1 - prod (1 - k/i) for i = n-c+1 .. n, which neither overflows nor cancels. M. Chen et al.,
    Evaluating Large Language Models Trained on Code, 2021, section 2.1. ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"no pass@{k} from {n} samples of which {c} are right")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    chunks = [min(ROWS_AT_ONCE, resamples - start) for start in range(0, resamples, ROWS_AT_ONCE)]
    drawn = (random.integers(0, len(values), size=(rows, len(values))) for rows in chunks)
    return np.concatenate([values[indices].mean(axis=1) for indices in drawn])
