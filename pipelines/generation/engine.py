"""The rollout engine: all rows of an update decoded together, prompts computed once per group.

Prompts are left-padded for mlx-lm's batch caches, which give each row its own positions and mask. After the
prompt pass the cache is copied to the group's rows; rows that finished leave the batch at the next check.
More rows than `generation.rollout_batch_size` are decoded one batch after the other, which changes no sample.
"""

import time
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines.config import GenerationConfig
from pipelines.errors import DataError
from pipelines.generation.caches import check_batching, prefill
from pipelines.generation.sampling import Sampler, make_sampler
from pipelines.generation.width import rows_at_once
from pipelines.models.modes import evaluating

CHECK_EVERY = 4
"""Decoding steps between two looks at which rows have finished (each look waits for the device)."""


@dataclass(frozen=True)
class Rollouts:
    """N = B x G completions, group by group, padded on the right with zeros."""

    prompts: list[np.ndarray]
    group_size: int
    tokens: np.ndarray  # [N, C] int32
    lengths: np.ndarray  # [N] int32, EOS counted
    logprobs: np.ndarray  # [N, C] float32, of the sampler
    finish_reasons: list[str]  # "stop" (an EOS id) or "length"
    seconds: float

    def completion(self, row: int) -> np.ndarray:
        """The token ids of one row, EOS included where it was sampled."""
        return self.tokens[row, : self.lengths[row]]

    def prompt(self, row: int) -> np.ndarray:
        """The prompt that row answers."""
        return self.prompts[row // self.group_size]


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    *,
    group_size: int,
    sampling: GenerationConfig,
    eos_ids: frozenset[int],
    max_tokens: int,
    seeds: np.ndarray,
) -> Rollouts:
    """Sample `group_size` completions of at most `max_tokens` tokens for every prompt.

    seeds: uint32 `[N, 2]`, one key a row; token t of a row is drawn with (key[0], key[1] + t).
    At most `sampling.rollout_batch_size` rows are decoded at a time. Dropout is off, in a model that trains too.
    Raises DataError for an empty prompt and ModelError for a model whose caches cannot be batched.
    """
    started = time.perf_counter()
    rows = len(prompts) * group_size
    if seeds.shape != (rows, 2) or seeds.dtype != np.uint32:
        raise ValueError(f"{rows} rows need uint32 seeds of shape ({rows}, 2), not {seeds.dtype} {seeds.shape}")
    if any(len(prompt) == 0 for prompt in prompts):
        raise DataError("a prompt without tokens cannot be continued", hint="remove empty prompts from the data")
    written = _Written(rows, max_tokens, np.array(sorted(eos_ids), np.int32))
    sampler = make_sampler(sampling)
    with evaluating(model):
        width = rows_at_once(model, prompts, group_size, max_tokens, sampling)
        if min(width, rows) > 1:
            check_batching(model)
        for first in range(0, rows, width):
            chunk = np.arange(first, min(first + width, rows))
            asked, members = np.unique(chunk // group_size, return_inverse=True)
            decoder = _Decoder(model, sampler, chunk, seeds[chunk])
            decoder.read([prompts[prompt] for prompt in asked], members)
            _decode(decoder, written)
    return written.rollouts(prompts, group_size, started)


def _decode(decoder: "_Decoder", written: "_Written") -> None:
    """Advance the decoder's rows, and drop those that finished, until none is left."""
    position = 0
    while position < written.max_tokens and decoder.active.size:
        window = range(position, min(position + CHECK_EVERY, written.max_tokens))
        tokens, logprobs = decoder.advance(window, more=window.stop < written.max_tokens)
        decoder.keep(~written.add(decoder.active, window, tokens, logprobs))
        position = window.stop


class _Written:
    """What has been decoded of all N rows."""

    def __init__(self, rows: int, max_tokens: int, eos: np.ndarray) -> None:
        self.max_tokens = max_tokens
        self.eos = eos
        self.tokens = np.zeros((rows, max_tokens), np.int32)
        self.logprobs = np.zeros((rows, max_tokens), np.float32)
        self.lengths = np.full(rows, max_tokens, np.int32)
        self.stopped = np.zeros(rows, bool)

    def add(self, rows: np.ndarray, window: range, tokens: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
        """Write one window of tokens; which of the rows have ended in it, bool `[rows]`."""
        self.tokens[rows, window.start : window.stop] = tokens
        self.logprobs[rows, window.start : window.stop] = logprobs
        ends = np.isin(tokens, self.eos)
        finished = np.asarray(ends.any(axis=1))
        self.lengths[rows[finished]] = window.start + ends[finished].argmax(axis=1) + 1
        self.stopped[rows[finished]] = True
        return finished

    def rollouts(self, prompts: list[np.ndarray], group_size: int, started: float) -> Rollouts:
        """As wide as the longest row, zeros after the end of each."""
        width = int(self.lengths.max(initial=1))
        tokens, logprobs = self.tokens[:, :width], self.logprobs[:, :width]
        padding = np.arange(width)[None] >= self.lengths[:, None]
        tokens[padding], logprobs[padding] = 0, 0.0
        reasons = ["stop" if stopped else "length" for stopped in self.stopped]
        return Rollouts(prompts, group_size, tokens, self.lengths, logprobs, reasons, time.perf_counter() - started)


class _Decoder:
    """The rows still decoding: their cache, last logits and keys."""

    def __init__(self, model: nn.Module, sampler: Sampler, rows: np.ndarray, seeds: np.ndarray) -> None:
        self.model = model
        self.sampler = sampler
        self.active = rows
        self.keys = mx.array(seeds)

    def read(self, prompts: list[np.ndarray], members: np.ndarray) -> None:
        """Compute each prompt once, and give every row the cache of its own: row i continues prompt members[i]."""
        logits, self.cache = prefill(self.model, prompts)
        self._select(mx.array(members))
        self.logits = logits[mx.array(members)]  # [N, V]

    def advance(self, window: range, *, more: bool) -> tuple[np.ndarray, np.ndarray]:
        """Sample a token in every active row at each position; ids and log-probabilities `[active, window]`.

        Unless there is `more` to come, the model does not read the last of them.
        """
        tokens, logprobs = [], []
        for t in window:
            sampled = self.sampler(self.logits, self.keys + mx.array([0, t], mx.uint32))
            tokens.append(sampled.tokens)
            logprobs.append(sampled.logprobs)
            if more or t + 1 < window.stop:
                self.logits = self.model(sampled.tokens[:, None], cache=self.cache)[:, -1]
            mx.async_eval(self.logits, sampled)
        return np.array(mx.stack(tokens, axis=1)), np.array(mx.stack(logprobs, axis=1))

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows that finished."""
        self.active = self.active[mask]
        if mask.all() or not self.active.size:
            return
        rows = mx.array(np.flatnonzero(mask))
        self._select(rows)
        self.logits, self.keys = self.logits[rows], self.keys[rows]

    def _select(self, rows: mx.array) -> None:
        for layer in self.cache:
            layer.filter(rows)
