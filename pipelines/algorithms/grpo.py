"""GRPO: group-relative advantages, a clipped policy loss, and KL to the reference (arXiv:2402.03300).

L = L_policy(`trainer.loss`) + `trainer.grpo_beta` * L_KL; advantages by `trainer.advantage`. With the defaults this is
DAPO's token-level loss and asymmetric clip (arXiv:2503.14476) on standardised group advantages.
"""

import mlx.core as mx

from pipelines.algorithms.advantages import Advantages, compute_advantages
from pipelines.algorithms.base import AlgorithmRegistry, Batch, Totals
from pipelines.algorithms.losses import LossOutput, policy_loss
from pipelines.config import TrainerConfig


@AlgorithmRegistry.register("grpo")
class Grpo:
    """Binds `compute_advantages` and `policy_loss` to the configuration."""

    uses_rollouts = True

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config

    def advantages(self, rewards: mx.array, weights: mx.array, group_size: int) -> Advantages:
        return compute_advantages(rewards, group_size, self.config.advantage, weights=weights)

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        return policy_loss(
            logprobs,
            batch.old_logprobs,
            batch.ref_logprobs,
            batch.advantages,
            batch.mask,
            self.config.loss,
            beta=self.config.grpo_beta,
            num_items=totals.items,
            num_rows=totals.rows,
            max_completion_length=totals.budget_tokens,
            entropies=entropies,
        )
