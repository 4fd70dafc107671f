"""Log-probabilities of completions under a model: one causal pass, logits only where completions are.

Sequences are right-padded, so a causal mask is enough and positions start at 0 in every row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
from mlx import nn

from pipelines.models.modes import evaluating


class Scored(NamedTuple):
    """Per completion token, float32 `[N, C]`; padding holds numbers without meaning."""

    logprobs: mx.array
    entropies: mx.array


@dataclass(frozen=True)
class SplitModel:
    """A model as hidden states and head: `head(body(tokens))` are its logits."""

    body: Callable[[mx.array], mx.array]
    head: Callable[[mx.array], mx.array]


def split_head(model: nn.Module) -> SplitModel:
    """Take the LM head apart from the rest, so that logits are computed only where they are needed.

    The split is tried on a short input and used only if it reproduces the model's own logits;
    an architecture with scaling or capping after the head is evaluated whole instead.
    """
    whole = SplitModel(body=model, head=lambda logits: logits)
    inner = getattr(model, "model", None)
    if inner is None:
        return whole
    if "lm_head" in model:
        split = SplitModel(body=inner, head=lambda hidden: model["lm_head"](hidden))  # noqa: PLW0108 - looked up when called
    elif hasattr(getattr(inner, "embed_tokens", None), "as_linear"):
        split = SplitModel(body=inner, head=lambda hidden: inner.embed_tokens.as_linear(hidden))  # noqa: PLW0108
    else:
        return whole
    probe = mx.array([[0, 1, 2]])
    with evaluating(model):
        same = mx.array_equal(split.head(split.body(probe)), model(probe)).item()
    return split if same else whole


def completion_logprobs(
    split: SplitModel, tokens: mx.array, starts: mx.array, completions: mx.array, temperature: float = 1.0
) -> Scored:
    """log softmax(logits / temperature) at each completion token, in float32 whatever the model's dtype.

    tokens `[N, T]` prompt and completion, right-padded; starts `[N]` prompt lengths; completions `[N, C]`.
    The logits that predict completion token t of row i stand at position starts[i] - 1 + t.
    """
    hidden = split.body(tokens)  # [N, T, H]
    positions = starts[:, None] - 1 + mx.arange(completions.shape[1])[None]  # [N, C]
    positions = mx.minimum(positions, tokens.shape[1] - 1)
    hidden = mx.take_along_axis(hidden, positions[..., None], axis=1)  # [N, C, H]
    logits = split.head(hidden).astype(mx.float32)
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = mx.logsumexp(logits, axis=-1)  # [N, C]
    chosen = mx.take_along_axis(logits, completions[..., None], axis=-1)[..., 0]
    frozen = mx.stop_gradient(logits - normaliser[..., None])
    entropies = -(mx.exp(frozen) * frozen).sum(axis=-1)
    return Scored(chosen - normaliser, entropies)
