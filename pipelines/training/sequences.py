"""The rows of one update as ragged numpy, and as padded arrays."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from pipelines.algorithms.base import Batch, Totals
from pipelines.algorithms.regions import region_masks
from pipelines.generation.distribution import adjust, recent_tokens
from pipelines.models.logprobs import Adjust
from pipelines.models.prefix import Prefix, make_prefix
from pipelines.models.tiles import learning_length
from pipelines.training.passes import Pass

Rows = list[np.ndarray]
"""One array a row, as long as its completion."""


@dataclass(frozen=True)
class Adjustments:
    """What was done to the logits of each completion token before it was sampled; the trainer does the same."""

    shift_ids: Rows | None = None  # [C, K] int32, tokens whose logits were shifted
    shift_values: Rows | None = None  # [C, K] float32, by how much
    repetition_penalty: float | None = None

    @property
    def penalised(self) -> bool:
        """Whether tokens that occurred were made less likely."""
        return self.repetition_penalty not in (None, 1)

    @property
    def any(self) -> bool:
        """Whether any logit was touched."""
        return self.shift_ids is not None or self.penalised


@dataclass(frozen=True)
class Sequences:
    """Every row that enters the loss of one update; lists have one array per row."""

    prompts: Rows
    completions: Rows  # EOS included where there is one
    advantages: np.ndarray  # [N] float32
    silent: np.ndarray  # [N] bool, rows that count as rows but have no active token
    thinking: np.ndarray | None = None  # [N] leading tokens of each completion that are thinking; None: none are
    inactive: Rows | None = None  # bool, tokens that the loss passes over, such as those that were forced
    sampler_logprobs: Rows | None = None
    drawn_logprobs: Rows | None = None
    adjustments: Adjustments | None = None
    old_logprobs: Rows | None = None
    ref_logprobs: Rows | None = None
    old_values: Rows | None = None
    token_advantages: Rows | None = None
    returns: Rows | None = None
    entropy_threshold: mx.array | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """What recording the rows gave to log."""

    def __len__(self) -> int:
        return len(self.completions)

    def teach(self, passes: Iterable[Pass]) -> bool:
        """Whether some pass has a token to learn from."""
        return any(one.own(self.active(row), self.region(row)).any() for one in passes for row in range(len(self)))

    def active(self, row: int) -> np.ndarray:
        """Which tokens of a completion the loss looks at, bool `[C]`."""
        if self.silent[row]:
            return np.zeros(len(self.completions[row]), bool)
        return np.ones(len(self.completions[row]), bool) if self.inactive is None else ~self.inactive[row]

    def region(self, row: int) -> np.ndarray:
        """Which tokens of a completion are thinking, bool `[C]`."""
        width, thinking = len(self.completions[row]), 0 if self.thinking is None else self.thinking[row]
        return region_masks([thinking], [width], width).thinking[0]

    def totals(self, budget_tokens: int) -> Totals:
        """The denominators of the update."""
        items = sum(int(self.active(row).sum()) for row in range(len(self)))
        return Totals(items, len(self), budget_tokens, self.entropy_threshold)

    def lengths(self) -> np.ndarray:
        """Tokens of each row that go through the model, `[N]`: the last one is only predicted."""
        return np.array([len(p) + len(c) - 1 for p, c in zip(self.prompts, self.completions, strict=True)])

    def batch(self, rows: np.ndarray, *, shared: bool = False) -> Batch:
        """The rows as padded arrays; `shared`: what their prompts have before the last token is a prefix."""

        def part(arrays: Rows | None, dtype: type = np.float32) -> mx.array | None:
            return None if arrays is None else padded([arrays[row] for row in rows], dtype)

        starts = [1 if shared else len(self.prompts[row]) for row in rows]
        ends = [self.prompts[row][-start:] for row, start in zip(rows, starts, strict=True)]
        read = [np.concatenate((end, self.completions[row][:-1])) for row, end in zip(rows, ends, strict=True)]
        credited = part(self.token_advantages)
        return Batch(
            tokens=padded(read, np.int32, learning_length(max(map(len, read)))),
            starts=mx.array(np.array(starts, np.int32)),
            completions=padded([self.completions[row] for row in rows], np.int32),
            mask=padded([self.active(row) for row in rows], np.bool_),
            thinking=padded([self.region(row) for row in rows], np.bool_),
            advantages=mx.array(self.advantages[rows].astype(np.float32)) if credited is None else credited,
            sampler_logprobs=part(self.sampler_logprobs),
            drawn_logprobs=part(self.drawn_logprobs),
            old_logprobs=part(self.old_logprobs),
            ref_logprobs=part(self.ref_logprobs),
            old_values=part(self.old_values),
            returns=part(self.returns),
            prefix=self._prefix(rows) if shared else None,
        )

    def _prefix(self, rows: np.ndarray) -> Prefix:
        prompts = [self.prompts[row].tobytes() for row in rows]
        different = list(dict.fromkeys(prompts))
        members = np.array([different.index(prompt) for prompt in prompts])
        return make_prefix([self.prompts[rows[prompts.index(prompt)]][:-1] for prompt in different], members)

    def adjust(self, rows: np.ndarray) -> Adjust | None:
        """What `adjustments` did to the logits of these rows, for `models.logprobs`; None if nothing was done."""
        done = self.adjustments
        if done is None:
            return None

        def flat(arrays: list[np.ndarray], dtype: type) -> mx.array:
            whole = padded(arrays, dtype)
            return whole.reshape(-1, whole.shape[-1])  # [n * C, ..]

        known: dict[str, mx.array] = {}
        if done.shift_ids is not None and done.shift_values is not None:
            known["shift_ids"] = flat([done.shift_ids[row] for row in rows], np.int32)
            known["shift_values"] = flat([done.shift_values[row] for row in rows], np.float32)
        if done.penalised:
            recent = [recent_tokens(self.prompts[row], self.completions[row]) for row in rows]
            known["recent"] = flat(recent, np.int32)
        penalty = done.repetition_penalty
        return lambda logits, cells: adjust(logits, **{n: a[cells] for n, a in known.items()}, penalty=penalty)


def padded(rows: Rows, dtype: type, width: int = 0) -> mx.array:
    """`[N, C, ...]` from one array `[C_i, ...]` a row, zeros behind each; C is that of the longest, or `width`."""
    out = np.zeros((len(rows), max(width, *map(len, rows)), *rows[0].shape[1:]), dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return mx.array(out)
