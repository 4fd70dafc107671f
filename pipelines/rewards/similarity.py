"""How alike two texts are, in [0, 1]: weighted n-grams, shared words, or the longest common subsequence of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.rewards.words import words

MAX_COMPARED = 16_000
"""Characters of each text that are compared; a difference behind them is not seen. Two such texts have fewer distinct
characters than 2**15, so that a run of four is one integer."""

CHARACTER_BITS, WORD_BITS = 15, 31
ALONE = (math.log(1.5) + 1) ** 2
"""Squared idf of what only one of two documents has: idf = ln((1 + 2) / (1 + df)) + 1. It is 1 for what both have."""

Integers = npt.NDArray[np.int64]


def tfidf(one: str, other: str) -> float:
    """Mean of two cosines of TF-IDF vectors: over word 1-2-grams and over character 2-4-grams.

    What scikit-learn's TfidfVectorizer gives when fitted on the two texts (smoothed idf, l2 norm), as sorted integers
    and without the cost of fitting two vectorizers a row. A kind of n-gram that neither text has is left out.
    """
    one, other = (text[:MAX_COMPARED].casefold()[:MAX_COMPARED] for text in (one, other))
    mine, yours = _numbered(words(one), words(other))
    kinds = [(_runs(mine, (1, 2), WORD_BITS), _runs(yours, (1, 2), WORD_BITS))]
    mine, yours = _coded(" ".join(one.split()), " ".join(other.split()))
    kinds.append((_runs(mine, (2, 3, 4), CHARACTER_BITS), _runs(yours, (2, 3, 4), CHARACTER_BITS)))
    cosines = [_cosine(mine, yours) for mine, yours in kinds if len(mine) or len(yours)]
    return sum(cosines) / len(cosines) if cosines else 0.0


def jaccard(one: str, other: str) -> float:
    """Words that both texts have over words that either has."""
    mine, yours = set(words(one[:MAX_COMPARED])), set(words(other[:MAX_COMPARED]))
    return len(mine & yours) / len(mine | yours) if mine or yours else 0.0


def rouge_l(one: str, other: str) -> float:
    """F1 of the longest common subsequence of words: 2 * lcs / (m + n)."""
    mine, yours = words(one[:MAX_COMPARED]), words(other[:MAX_COMPARED])
    return 2 * common_subsequence(mine, yours) / (len(mine) + len(yours)) if mine or yours else 0.0


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, one bit a word of `one` (Hyyro 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & full
    return len(one) - row.bit_count()


def _numbered(one: Sequence[str], other: Sequence[str]) -> tuple[Integers, Integers]:
    """Words as numbers from 1 on, the same number for the same word."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(word, len(known) + 1) for word in (*one, *other)]
    both = np.array(numbers, dtype=np.int64)
    return both[: len(one)], both[len(one) :]


def _coded(one: str, other: str) -> tuple[Integers, Integers]:
    """Characters as numbers from 1 on that fit into CHARACTER_BITS: their code points, or ranks where these do not."""
    codes = np.frombuffer((one + other).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    if len(codes) and codes.max() + 1 >= 1 << CHARACTER_BITS:
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return codes[: len(one)] + 1, codes[len(one) :] + 1


def _runs(numbers: Integers, sizes: tuple[int, ...], bits: int) -> Integers:
    """Each run of neighbours of every size as one integer; runs of different sizes differ, since no number is 0."""
    runs, found = numbers, [numbers] if 1 in sizes else []
    for size in range(2, sizes[-1] + 1):
        runs = runs[:-1] << bits | numbers[size - 1 :]
        if size in sizes:
            found.append(runs)
    return np.concatenate(found)


def _cosine(one: Integers, other: Integers) -> float:
    """Cosine of the counts of two documents' runs, each weighted by its idf. Counts are exact, whatever their order."""
    both = np.concatenate([one << 1, other << 1 | 1])  # a run of both documents becomes two neighbours 2r, 2r + 1
    both.sort()
    changes = np.flatnonzero(both[1:] != both[:-1])
    runs = np.append(both[changes], both[-1])
    counts = np.append(changes, len(both) - 1) - np.append(-1, changes)
    from_other = runs & 1
    first = np.flatnonzero((runs[1:] - runs[:-1] == 1) & (from_other[:-1] == 0))
    mine, yours = counts[first], counts[first + 1]
    dot = int(mine @ yours)
    if not dot:
        return 0.0
    squares = counts * counts
    all_yours = int(squares @ from_other)
    all_mine = int(squares.sum()) - all_yours
    shared = int(mine @ mine), int(yours @ yours)
    norms = (shared[0] + ALONE * (all_mine - shared[0])) * (shared[1] + ALONE * (all_yours - shared[1]))
    return min(1.0, dot / math.sqrt(norms))
