"""How long the rows of a split are: quantiles, a histogram, the longest examples."""

from typing import Any

import numpy as np

from pipelines.tokens.dataset import TokenDataset

QUANTILES = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
HISTOGRAM_BINS = 10
SHOWN_LONGEST = 3


def summarise(dataset: TokenDataset) -> dict[str, Any]:
    """Token lengths of prompts and of completions that exist, as plain JSON."""
    return {
        "prompt_tokens": _lengths(dataset.prompts.lengths(), dataset),
        "completion_tokens": _lengths(dataset.completions.lengths(), dataset),
    }


def longer_than(dataset: TokenDataset, most_tokens: int) -> int:
    """Completions, their EOS counted, of more tokens than that."""
    return int((dataset.completions.lengths() > most_tokens).sum())


def _lengths(lengths: np.ndarray, dataset: TokenDataset) -> dict[str, Any]:
    present = lengths[lengths > 0]
    if not len(present):
        return {}
    longest = np.argsort(-lengths, kind="stable")[:SHOWN_LONGEST]
    return {
        **{name: int(np.quantile(present, q, method="higher")) for name, q in QUANTILES.items()},
        "mean": round(float(present.mean()), 1),
        "histogram": _histogram(present),
        "longest": [{"source": dataset.row(int(i)).source, "tokens": int(lengths[i])} for i in longest],
    }


def _histogram(lengths: np.ndarray) -> list[dict[str, int]]:
    """Equal ranges of whole numbers, `from` and `to` inclusive, from the shortest to the longest."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // HISTOGRAM_BINS)
    starts = range(low, high + 1, width)
    counts = np.bincount((lengths - low) // width, minlength=len(starts))
    return [
        {"from": start, "to": start + width - 1, "rows": int(rows)} for start, rows in zip(starts, counts, strict=True)
    ]
