"""Completions and what is kept of how they were sampled, gathered from the device as they are decoded."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Rollouts:
    """N = B x G completions, group by group, padded on the right with zeros."""

    prompts: list[np.ndarray]
    group_size: int
    tokens: np.ndarray  # [N, C] int32
    lengths: np.ndarray  # [N] int32, EOS counted
    logprobs: np.ndarray  # [N, C] float32, of the sampler
    finish_reasons: list[str]  # "stop" (an EOS id or a stop text) or "length"
    seconds: float
    forced: np.ndarray | None = None  # [N, C] bool, tokens that were not sampled; None without a thinking budget
    shift_ids: np.ndarray | None = None  # [N, C, K] int32, logits that were biased; None without a bias
    shift_values: np.ndarray | None = None  # [N, C, K] float32, and by how much
    drawn_logprobs: np.ndarray | None = None  # [N, C] float32, after top-k, min-p and top-p; None unless recorded

    def completion(self, row: int) -> np.ndarray:
        """The token ids of one row, EOS included where it was sampled."""
        return self.tokens[row, : self.lengths[row]]

    def prompt(self, row: int) -> np.ndarray:
        """The prompt that row answers."""
        return self.prompts[row // self.group_size]


Finished = Callable[[np.ndarray, Rollouts], None]
"""(rows, the same rows as rollouts of groups of one)"""


class Step(NamedTuple):
    """A token of every row that is decoding, `[N]`, and what `Rollouts` keeps of it."""

    tokens: mx.array
    logprobs: mx.array
    stopped: mx.array | None  # completed a stop text
    forced: mx.array | None
    shift_ids: mx.array | None
    shift_values: mx.array | None
    drawn_logprobs: mx.array | None


class Window(NamedTuple):
    """Some steps of the rows that were decoding when they were launched; not computed yet, perhaps."""

    rows: np.ndarray
    starts: np.ndarray  # each row's tokens before the first step
    steps: list[Step]

    def read(self) -> dict[str, np.ndarray]:
        """What there is of `Step`, each `[rows, steps]`; waits for the device."""
        fields = zip(Step._fields, zip(*self.steps, strict=True), strict=True)
        return {name: np.array(mx.stack(list(values), axis=1)) for name, values in fields if values[0] is not None}


class Written:
    """What has been decoded of all N rows."""

    def __init__(self, rows: int, max_tokens: int, eos: np.ndarray) -> None:
        self.max_tokens = max_tokens
        self.eos = eos
        self.fields: dict[str, np.ndarray] = {"tokens": np.zeros((rows, max_tokens), np.int32)}
        self.fields["logprobs"] = np.zeros((rows, max_tokens), np.float32)
        self.lengths = np.full(rows, max_tokens, np.int32)
        self.stopped = np.zeros(rows, bool)
        self.ended = np.zeros(rows, bool)  # stopped, or as long as may be

    def add(self, window: Window) -> np.ndarray:
        """Write one window; the rows that have ended in it. Those that had ended before are passed over."""
        going = ~self.ended[window.rows]
        rows, starts = window.rows[going], window.starts[going]
        steps = {name: values[going] for name, values in window.read().items()}
        stops = np.isin(steps["tokens"], self.eos) | steps.pop("stopped", False)
        positions = starts[:, None] + np.arange(stops.shape[1])
        for name, values in steps.items():
            if name not in self.fields:
                shape = (len(self.lengths), self.max_tokens, *values.shape[2:])
                self.fields[name] = np.zeros(shape, values.dtype)
            self.fields[name][rows[:, None], positions] = values
        stopped = np.asarray(stops.any(axis=1))
        self.lengths[rows[stopped]] = starts[stopped] + stops[stopped].argmax(axis=1) + 1
        self.stopped[rows[stopped]] = True
        self.ended[rows] = stopped | (starts + stops.shape[1] == self.max_tokens)
        return rows[self.ended[rows]]

    def part(self, rows: np.ndarray, prompts: list[np.ndarray]) -> Rollouts:
        """Rows that have ended, each a group of its own: tokens and reasons, nothing of how they were sampled."""
        return Rollouts(
            prompts=prompts,
            group_size=1,
            tokens=self.fields["tokens"][rows],
            lengths=self.lengths[rows],
            logprobs=self.fields["logprobs"][rows],
            finish_reasons=["stop" if stopped else "length" for stopped in self.stopped[rows]],
            seconds=0.0,
        )

    def rollouts(self, prompts: list[np.ndarray], group_size: int, started: float) -> Rollouts:
        """As wide as the longest row, zeros after the end of each."""
        width = int(self.lengths.max(initial=1))
        padding = np.arange(width)[None] >= self.lengths[:, None]
        fields = {name: values[:, :width] for name, values in self.fields.items()}
        for values in fields.values():
            values[padding] = 0
        return Rollouts(
            prompts=prompts,
            group_size=group_size,
            lengths=self.lengths,
            finish_reasons=["stop" if stopped else "length" for stopped in self.stopped],
            seconds=time.perf_counter() - started,
            **fields,
        )
