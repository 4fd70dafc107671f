"""One sampled token per row, and its log-probability under the full tempered distribution."""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from pipelines.config import GenerationConfig


class Sampled(NamedTuple):
    """Token ids int32 `[N]` and their log-probabilities float32 `[N]`."""

    tokens: mx.array
    logprobs: mx.array


Sampler = Callable[[mx.array, mx.array], Sampled]


def make_sampler(config: GenerationConfig) -> Sampler:
    """A closure `(logits [N, V], keys [N, 2]) -> Sampled`.

    Temperature 0 is greedy, and its log-probabilities are those of temperature 1. top-p, top-k and min-p narrow
    what may be drawn (mlx-lm's filters); the log-probability stays that of the full tempered distribution,
    which is the one the trainer computes.
    """
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    def narrow(logprobs: mx.array) -> mx.array:
        if 0 < config.top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, config.top_k)
        if config.min_p > 0:
            logprobs = apply_min_p(logprobs, config.min_p)
        if 0 < config.top_p < 1:
            logprobs = apply_top_p(logprobs, config.top_p)
        return logprobs

    def sample(logits: mx.array, keys: mx.array) -> Sampled:
        logits = logits.astype(mx.float32)
        if config.temperature not in (0, 1):
            logits = logits / config.temperature
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        tokens = mx.argmax(logprobs, axis=-1) if config.temperature == 0 else _draw(keys, narrow(logprobs))
        chosen = mx.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
        return Sampled(tokens.astype(mx.int32), chosen)

    return sample


# One key a row: a row draws the same token whatever shares its batch.
_draw = mx.vmap(lambda key, logprobs: mx.random.categorical(logprobs, key=key))
