"""The rows of one update as ragged numpy, and how they become padded micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from pipelines.algorithms.base import Batch, Totals

LOGIT_BYTES = 2**28
"""Float32 logits of a micro-batch stay below this when `micro_batch_tokens` is auto."""
MOST_TOKENS = 2048
"""More tokens than this in a micro-batch gain no speed."""


@dataclass(frozen=True)
class Sequences:
    """Every row that enters the loss of one update; lists have one array per row."""

    prompts: list[np.ndarray]
    completions: list[np.ndarray]  # EOS included where there is one
    advantages: np.ndarray  # [N] float32
    silent: np.ndarray  # [N] bool, rows that count as rows but have no active token
    sampler_logprobs: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def teach(self) -> bool:
        """Whether there is an active token at all; AdamW's momentum would move the weights even without one."""
        return not self.silent.all()

    def totals(self, budget_tokens: int) -> Totals:
        """The denominators of the update."""
        items = sum(len(c) for c, silent in zip(self.completions, self.silent, strict=True) if not silent)
        return Totals(items, len(self), budget_tokens)

    def lengths(self) -> np.ndarray:
        """Tokens of prompt and completion together, `[N]`."""
        return np.array([len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)])

    def batch(self, rows: np.ndarray) -> Batch:
        """The rows as padded arrays; old and reference log-probabilities are left empty."""
        prompts = [self.prompts[row] for row in rows]
        completions = [self.completions[row] for row in rows]
        sampler = self.sampler_logprobs
        mask = _padded([np.full(len(self.completions[row]), not self.silent[row]) for row in rows], np.bool_)
        return Batch(
            tokens=_padded([np.concatenate(pair) for pair in zip(prompts, completions, strict=True)], np.int32),
            starts=mx.array(np.array([len(p) for p in prompts], np.int32)),
            completions=_padded(completions, np.int32),
            mask=mask,
            advantages=mx.array(self.advantages[rows].astype(np.float32)),
            sampler_logprobs=None if sampler is None else _padded([sampler[row] for row in rows], np.float32),
            old_logprobs=None,
            ref_logprobs=None,
        )


def micro_batches(sequences: Sequences, most_tokens: int) -> Iterator[np.ndarray]:
    """Row indices, longest rows first, so that rows of one length share a batch and its padding is small.

    A micro-batch has at most `most_tokens` padded tokens, and always at least one row.
    """
    lengths = sequences.lengths()
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, most_tokens // int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def automatic_tokens(vocabulary: int) -> int:
    """`micro_batch_tokens: auto`: as many as keep the float32 logits within LOGIT_BYTES."""
    return max(1, min(MOST_TOKENS, LOGIT_BYTES // (4 * vocabulary)))


def _padded(rows: list[np.ndarray], dtype: type) -> mx.array:
    width = max(map(len, rows))
    out = np.zeros((len(rows), width), dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return mx.array(out)
