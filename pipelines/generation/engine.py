"""The rollout engine: all rows of an update decoded together, prompts computed once per group.

Prompts are left-padded for mlx-lm's batch caches, which give each row its own positions and mask. After the
prompt pass the cache is copied to the group's rows; rows that finished leave the batch at the next check.
"""

import time
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines.config import GenerationConfig
from pipelines.errors import DataError, ModelError
from pipelines.generation.sampling import make_sampler

CHECK_EVERY = 8
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
    """
    started = time.perf_counter()
    rows = len(prompts) * group_size
    decoder = _Decoder(model, prompts, group_size=group_size, sampling=sampling, eos_ids=eos_ids, seeds=seeds)
    tokens = np.zeros((rows, max_tokens), np.int32)
    logprobs = np.zeros((rows, max_tokens), np.float32)
    lengths = np.full(rows, max_tokens, np.int32)
    stopped = np.zeros(rows, bool)
    position = 0
    while position < max_tokens and decoder.active.size:
        width = min(CHECK_EVERY, max_tokens - position)
        new_tokens, new_logprobs = decoder.advance(position, width)
        window = slice(position, position + width)
        tokens[decoder.active, window] = new_tokens
        logprobs[decoder.active, window] = new_logprobs
        ends = np.isin(new_tokens, decoder.eos)
        finished = np.asarray(ends.any(axis=1))
        done = decoder.active[finished]
        lengths[done] = position + ends[finished].argmax(axis=1) + 1
        stopped[done] = True
        decoder.keep(~finished)
        position += width
    width = int(lengths.max(initial=1))
    padding = np.arange(width)[None] >= lengths[:, None]
    tokens, logprobs = tokens[:, :width], logprobs[:, :width]
    tokens[padding], logprobs[padding] = 0, 0.0
    reasons = ["stop" if stop else "length" for stop in stopped]
    return Rollouts(prompts, group_size, tokens, lengths, logprobs, reasons, time.perf_counter() - started)


class _Decoder:
    """The rows still decoding: their cache, last logits and keys."""

    def __init__(
        self,
        model: nn.Module,
        prompts: list[np.ndarray],
        *,
        group_size: int,
        sampling: GenerationConfig,
        eos_ids: frozenset[int],
        seeds: np.ndarray,
    ) -> None:
        rows = len(prompts) * group_size
        if seeds.shape != (rows, 2):
            raise ValueError(f"{rows} rows need seeds of shape ({rows}, 2), not {seeds.shape}")
        self.model = model
        self.sampler = make_sampler(sampling)
        self.eos = np.array(sorted(eos_ids), np.int32)
        self.active = np.arange(rows)
        self.keys = mx.array(seeds)
        tokens, padding = left_padded(prompts)
        self.cache = batch_cache(model, padding)
        logits = model(mx.array(tokens), cache=self.cache)[:, -1]  # [B, V]
        members = mx.array(np.repeat(np.arange(len(prompts)), group_size))
        self._select(members)
        self.logits = logits[members]  # [N, V]

    def advance(self, position: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample `steps` tokens in every active row; ids and log-probabilities `[active, steps]`."""
        tokens, logprobs = [], []
        for t in range(position, position + steps):
            sampled = self.sampler(self.logits, self.keys + mx.array([0, t], mx.uint32))
            tokens.append(sampled.tokens)
            logprobs.append(sampled.logprobs)
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


def left_padded(prompts: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Token ids int32 `[B, P]` aligned at the right, and the padding of each row."""
    if any(len(prompt) == 0 for prompt in prompts):
        raise DataError("a prompt without tokens cannot be continued", hint="remove empty prompts from the data")
    width = max(len(prompt) for prompt in prompts)
    padding = [width - len(prompt) for prompt in prompts]
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padding[row] :] = prompt
    return tokens, padding


def batch_cache(model: nn.Module, padding: list[int]) -> list[Any]:
    """mlx-lm's batch form of the model's own caches; ModelError for architectures that cannot be batched."""
    from mlx_lm.models.cache import (
        BatchKVCache,
        BatchRotatingKVCache,
        KVCache,
        RotatingKVCache,
        make_prompt_cache,
    )

    batched: list[Any] = []
    for layer in make_prompt_cache(model):
        if type(layer) is KVCache:
            batched.append(BatchKVCache(padding))
        elif type(layer) is RotatingKVCache and layer.keep == 0:
            batched.append(BatchRotatingKVCache(layer.max_size, padding))
        else:
            raise ModelError(
                f"rollouts cannot batch this model's {type(layer).__name__}",
                hint="use a model with standard or sliding-window attention caches",
            )
    return batched
