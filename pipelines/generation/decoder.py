"""The rows that decode side by side: some leave when they have ended, others take their places."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines.generation.caches import prefill
from pipelines.generation.guide import Guide
from pipelines.generation.rollouts import Step, Window
from pipelines.generation.sampling import Sampler
from pipelines.models.batching import grow_to_at_most

CHECK_EVERY = 4
"""Decoding steps between two looks at which rows have finished (each look waits for the device)."""


class Decoder:
    """The cache of each row, its last logits, its key, and what guides it."""

    logits: mx.array  # [N, V]
    keys: mx.array  # [N, 2] uint32, of the next token
    cache: list[Any]
    guide: Guide

    def __init__(self, model: nn.Module, sampler: Sampler, max_tokens: int, longest_prompt: int) -> None:
        self.model = model
        self.sampler = sampler
        self.max_tokens = max_tokens
        self.positions = longest_prompt + max_tokens
        self._clear()

    def _clear(self) -> None:
        self.rows = np.zeros(0, int)
        self.starts = np.zeros(0, int)  # tokens of each row so far
        self._finished = np.zeros(0, bool)
        self._wasted_tokens = 0

    @property
    def unfinished(self) -> np.ndarray:
        """The rows that go on."""
        return self.rows[~self._finished]

    @property
    def places(self) -> int:
        """That are taken: rows that have finished keep theirs until they are dropped, or nobody else is left."""
        return self.rows.size if self.unfinished.size else 0

    @property
    def room(self) -> int:
        """Steps to the next look: CHECK_EVERY, or fewer where a row may have no more tokens."""
        return min(CHECK_EVERY, self.max_tokens - int(self.starts.max(initial=0)))

    def join(
        self, rows: np.ndarray, prompts: list[np.ndarray], members: np.ndarray, seeds: np.ndarray, guide: Guide
    ) -> None:
        """Take in rows beside those that go on. Each prompt is computed once; row i continues prompt members[i]."""
        logits, cache = prefill(self.model, prompts, self.max_tokens)
        keys = mx.array(seeds)
        if len(members) > len(prompts):
            copies = mx.array(members)
            logits = logits[copies]
            for layer in cache:
                layer.filter(copies)
        if self.unfinished.size:
            self.logits, self.keys = mx.concatenate([self.logits, logits]), mx.concatenate([self.keys, keys])
            self.guide.extend(guide)
            for layer, other in zip(self.cache, cache, strict=True):
                layer.extend(other)
        else:
            self._clear()
            self.logits, self.keys, self.cache, self.guide = logits, keys, cache, guide
        self.rows = np.concatenate([self.rows, rows])
        self.starts = np.concatenate([self.starts, np.zeros(rows.size, int)])
        self._finished = np.concatenate([self._finished, np.zeros(rows.size, bool)])
        grow_to_at_most(self.cache, self.positions)

    def launch(self) -> Window:
        """Begin to sample the next tokens of every row; the model does not read the last if no row may have more."""
        starts, room = self.starts, self.room
        self.starts = starts + room
        more, steps = bool((self.starts < self.max_tokens).any()), []
        for left in reversed(range(room)):
            steps.append(self._step())
            if more or left:
                self.logits = self.model(steps[-1].tokens[:, None], cache=self.cache)[:, -1]
            mx.async_eval(self.logits, steps[-1])
        return Window(self.rows, starts, steps)

    def _step(self) -> Step:
        steering = self.guide.steer()
        sampled = self.sampler(self.logits, self.keys, steering, self.guide.recent)
        self.keys = self.keys + mx.array([0, 1], mx.uint32)
        return Step(
            tokens=sampled.tokens,
            logprobs=sampled.logprobs,
            stopped=self.guide.advance(sampled.tokens),
            forced=None if steering.forced_ids is None else steering.forced_ids >= 0,
            shift_ids=steering.shift_ids,
            shift_values=steering.shift_values,
            drawn_logprobs=sampled.drawn_logprobs,
        )

    def drop(self, finished: np.ndarray) -> None:
        """Leave out rows that have finished, once as many of their tokens were computed for nothing as there are rows.

        Before, it would cost more than it saves: to copy the caches of the others takes about as long as a step. One
        that may have no more tokens leaves as soon as it is known to have finished, since it would hold up the others.
        """
        self._finished |= np.isin(self.rows, finished)
        self._wasted_tokens += CHECK_EVERY * int(self._finished.sum())
        waits = self._wasted_tokens < self.rows.size and self.room
        if waits or self._finished.all() or not self._finished.any():
            return
        rows = mx.array(np.flatnonzero(~self._finished))
        for layer in self.cache:
            layer.filter(rows)
        self.logits, self.keys = self.logits[rows], self.keys[rows]
        self.guide.select(rows)
        self.rows, self.starts = self.unfinished, self.starts[~self._finished]
        self._finished, self._wasted_tokens = np.zeros(rows.size, bool), 0
        grow_to_at_most(self.cache, self.positions)
