"""The reference policy of the KL term: the base under the adapter, or a frozen copy."""

import mlx.core as mx
from mlx import nn

from pipelines.algorithms.base import Batch
from pipelines.config import ModelConfig, TrainerConfig
from pipelines.models.layers import LayerStack
from pipelines.models.load import load
from pipelines.models.logprobs import Adjust, score, split_head, spots
from pipelines.models.lora import adapters_off


class Reference:
    """Log-probabilities of completions under the reference, without gradient."""

    def __init__(self, model: nn.Module, *, shares_base: bool) -> None:
        self.model = model
        self.shares_base = shares_base
        with adapters_off(model):  # nothing learns then, and no gradient is tried
            self.stack = LayerStack(model, split_head(model))

    def logprobs(self, batch: Batch, temperature: float, adjust: Adjust | None = None) -> mx.array:
        """Float32 `[n, C]` of the active tokens, of the distribution that the policy's own are of."""
        if self.shares_base:
            with adapters_off(self.model):
                return self._evaluated(batch, temperature, adjust)
        return self._evaluated(batch, temperature, adjust)

    def _evaluated(self, batch: Batch, temperature: float, adjust: Adjust | None) -> mx.array:
        hidden = self.stack.run(batch.tokens, prefix=batch.prefix).hidden
        at = spots(batch.tokens, batch.starts, batch.completions, batch.mask)
        scored = score(self.stack.split, hidden, at, temperature, adjust=adjust)
        mx.eval(scored.logprobs)
        return scored.logprobs


def make_reference(model: nn.Module, trainer: TrainerConfig, config: ModelConfig, *, uses_kl: bool) -> Reference | None:
    """None when `grpo_beta` is 0: a reference nobody reads is not loaded."""
    if not uses_kl or trainer.grpo_beta == 0:
        return None
    if config.use_lora:
        return Reference(model, shares_base=True)
    frozen = load(config.ref_model_path or config.model_path).model
    frozen.freeze()
    return Reference(frozen, shares_base=False)
