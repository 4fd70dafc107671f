"""One sampled token per row, and its log-probability under the full tempered distribution."""

from typing import NamedTuple

import mlx.core as mx

from pipelines import backend
from pipelines.config import GenerationConfig
from pipelines.generation import drawing
from pipelines.generation.controls import Steering
from pipelines.generation.distribution import adjust
from pipelines.generation.drawing import Draw


class Sampled(NamedTuple):
    """Token ids int32 `[N]` and their log-probabilities float32 `[N]`: in full, and after narrowing if recorded."""

    tokens: mx.array
    logprobs: mx.array
    drawn_logprobs: mx.array | None = None


class Sampler:
    """`(logits [N, V], keys [N, 2], steering, recent [N, 20] | None) -> Sampled`.

    The repetition penalty comes first, then the biases of the tags, then the temperature. Temperature 0 is greedy, and
    its log-probabilities are those of temperature 1. top-p, top-k and min-p narrow what may be drawn (mlx-lm's
    filters); the log-probability stays that of the full distribution, which is the one the trainer computes.
    `record_drawn`: also that of the narrowed one. A forced token has its full log-probability as both.
    """

    def __init__(self, config: GenerationConfig, *, record_drawn: bool = False, draw: Draw | None = None) -> None:
        self.config = config
        self.record_drawn = record_drawn
        self.draw = draw or drawing.draw()
        self._sample = backend.compiled(self._sampled)

    def __call__(self, logits: mx.array, keys: mx.array, steering: Steering, recent: mx.array | None) -> Sampled:
        known = steering._asdict() | {"recent": recent}
        return Sampled(*self._sample(logits, keys, {name: part for name, part in known.items() if part is not None}))

    def _sampled(self, logits: mx.array, keys: mx.array, known: dict[str, mx.array]) -> tuple[mx.array, ...]:
        """What `Sampled` holds, without what is not recorded; `known` are the parts of the steering, and `recent`."""
        config, forced_ids = self.config, known.get("forced_ids")
        logits = adjust(
            logits.astype(mx.float32),
            **{name: part for name, part in known.items() if name != "forced_ids"},
            penalty=config.repetition_penalty,
        )
        if config.temperature not in (0, 1):
            logits = logits / config.temperature
        if config.top_k or config.min_p or config.top_p < 1:
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)  # what mlx-lm's filters are given
        narrowed = _narrowed(logits, config)
        tokens, normalisers = self.draw(narrowed, None if config.temperature == 0 else keys)
        if forced_ids is not None:
            tokens = mx.where(forced_ids >= 0, forced_ids, tokens)
        drawn = _of(narrowed, tokens) - normalisers
        chosen = drawn if narrowed is logits else _of(logits, tokens)
        if not self.record_drawn:
            return tokens, chosen
        return tokens, chosen, drawn if forced_ids is None else mx.where(forced_ids >= 0, chosen, drawn)


def _narrowed(logprobs: mx.array, config: GenerationConfig) -> mx.array:
    """`-inf` for what top-k, min-p and top-p leave out; the same array where they leave out nothing."""
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    if 0 < config.top_k < logprobs.shape[-1]:
        logprobs = apply_top_k(logprobs, config.top_k)
    if config.min_p > 0:
        logprobs = apply_min_p(logprobs, config.min_p)
    if 0 < config.top_p < 1:
        logprobs = apply_top_p(logprobs, config.top_p)
    return logprobs


def _of(logprobs: mx.array, tokens: mx.array) -> mx.array:
    return mx.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
