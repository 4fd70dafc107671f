"""How alike two texts are, in [0, 1]: weighted n-grams, shared words, or the longest common subsequence of words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.rewards.words import ngrams, words

MAX_COMPARED = 20_000
"""Characters of each text that are compared; a difference behind them is not seen."""


def tfidf(one: str, other: str) -> float:
    """Mean of two cosines of TF-IDF vectors: over word 1-2-grams and over character 2-4-grams.

    What scikit-learn's TfidfVectorizer gives when fitted on the two texts (smoothed idf, l2 norm), as sparse counts
    and without the cost of fitting two vectorizers a row. A kind of n-gram that neither text has is left out.
    """
    one, other = one[:MAX_COMPARED].casefold(), other[:MAX_COMPARED].casefold()
    first, second = words(one), words(other)
    kinds = [
        (_runs(first, (1, 2)), _runs(second, (1, 2))),
        (_runs(" ".join(one.split()), (2, 3, 4)), _runs(" ".join(other.split()), (2, 3, 4))),
    ]
    cosines = [_cosine(mine, yours) for mine, yours in kinds if mine or yours]
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


def _runs(tokens: Sequence[str], sizes: Iterable[int]) -> Counter[str]:
    """How often each run of neighbours occurs, of every size; words stay apart by a space, which none contains."""
    joint = "" if isinstance(tokens, str) else " "
    return Counter(joint.join(run) for size in sizes for run in ngrams(tokens, size))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    """Cosine with idf = ln((1 + 2) / (1 + df)) + 1 over two documents: 1 for what both have, else ln(3/2) + 1."""
    alone = (math.log(1.5) + 1) ** 2
    shared = one.keys() & other.keys()
    dot = sum(one[run] * other[run] for run in shared)
    if not dot:
        return 0.0
    squares = [
        sum(count * count * (1.0 if run in shared else alone) for run, count in counts.items())
        for counts in (one, other)
    ]
    return min(1.0, dot / math.sqrt(squares[0] * squares[1]))
