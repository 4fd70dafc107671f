"""SFT: teacher forcing on prompt and reference completion.

L = -(1/M) sum_it m_it log p(y_it | x_i, y_i<t), M = all reference tokens of the update, EOS among them.
"""

import mlx.core as mx

from pipelines.algorithms.advantages import Advantages
from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm, Batch, Totals
from pipelines.algorithms.losses import LossOutput


@AlgorithmRegistry.register("sft")
class Sft(BaseAlgorithm):
    """Cross-entropy per token; rewards and advantages play no part."""

    uses_rollouts = False

    def advantages(self, rewards: mx.array, weights: mx.array, group_size: int) -> Advantages:  # noqa: ARG002
        raise TypeError("sft has no rewards to turn into advantages")

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        factor = batch.mask if batch.weights is None else batch.mask * batch.weights
        loss = -(mx.where(batch.mask, logprobs, 0.0) * factor).sum() / totals.items
        entropy = mx.where(batch.mask, entropies, 0.0).sum() / mx.maximum(batch.mask.sum(), 1)
        return LossOutput(loss, {"entropy": mx.stop_gradient(entropy)})
