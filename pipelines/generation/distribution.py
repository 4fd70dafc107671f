"""The distribution that tokens are sampled from: a model's logits, penalised and shifted, before the temperature.

The sampler and the trainer call the same functions, so that the ratio of their probabilities is 1 on-policy.
"""

import mlx.core as mx
import numpy as np

RECENT_TOKENS = 20
"""How far the repetition penalty looks back: the default of mlx-lm's processor."""


def adjust(
    logits: mx.array,
    *,
    shift_ids: mx.array | None = None,
    shift_values: mx.array | None = None,
    recent: mx.array | None = None,
    penalty: float | None = None,
) -> mx.array:
    """Logits `[M, V]` float32 with the repetition penalty, and then the biases, applied.

    recent int32 `[M, 20]`: tokens that came before, repeated where there were fewer (None: no penalty);
    shift_ids int32 and shift_values float32 `[M, K]`: logits to move and by how much; an id may occur twice.
    Differentiable in the logits.
    """
    if recent is not None and penalty is not None:
        logits = logits * _penalty_factors(logits, recent, penalty)
    if shift_ids is not None and shift_values is not None:
        logits = logits.at[mx.arange(logits.shape[0])[:, None], shift_ids].add(shift_values)
    return logits


def recent_tokens(prompt: np.ndarray, completion: np.ndarray) -> np.ndarray:
    """int32 `[C, 20]`: the tokens before each one of a completion, the prompt's last among them; see `last_tokens`."""
    padded = np.concatenate([last_tokens(prompt), completion.astype(np.int32)])
    return np.lib.stride_tricks.sliding_window_view(padded, RECENT_TOKENS)[: len(completion)]


def last_tokens(prompt: np.ndarray) -> np.ndarray:
    """int32 `[20]`: the end of a prompt; a shorter one has its first token repeated, which changes no penalty."""
    end = prompt[-RECENT_TOKENS:].astype(np.int32)
    return np.concatenate([np.repeat(end[:1], RECENT_TOKENS - len(end)), end])


def _penalty_factors(logits: mx.array, recent: mx.array, penalty: float) -> mx.array:
    """`[M, V]`: what mlx-lm's processor multiplies each logit by; a constant to the gradient.

    Found by giving the processor the signs of the logits. Its own gradient counts a token twice that occurred twice.
    """
    from mlx_lm.sample_utils import make_repetition_penalty

    processor = make_repetition_penalty(penalty, RECENT_TOKENS)
    signs = mx.where(logits < 0, -1.0, 1.0)
    penalised = mx.vmap(lambda tokens, row: processor(tokens, row[None])[0])(recent, signs)
    return mx.stop_gradient(penalised * signs)
