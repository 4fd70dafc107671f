"""GRPO: group-relative advantages, a clipped policy loss, and KL to the reference (arXiv:2402.03300).

L = L_policy(`trainer.loss`) + `trainer.grpo_beta` * L_KL; advantages by `trainer.advantage`. With the defaults this is
DAPO's token-level loss and asymmetric clip (arXiv:2503.14476) on standardised group advantages.
"""

import mlx.core as mx

from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm, Batch, Totals
from pipelines.algorithms.importance import DEFAULT_CORRECTION, configured_correction
from pipelines.algorithms.losses import LossOutput, policy_loss
from pipelines.config import LossConfig


@AlgorithmRegistry.register("grpo")
class Grpo(BaseAlgorithm):
    """Binds `compute_advantages` and `policy_loss` to the configuration."""

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        correction = configured_correction(self.config.loss)
        return policy_loss(
            logprobs,
            batch.old_logprobs,
            batch.ref_logprobs,
            batch.advantages,
            batch.mask,
            self._whole(),
            beta=self.config.grpo_beta,
            num_items=totals.items,
            num_rows=totals.rows,
            max_completion_length=totals.budget_tokens,
            entropies=entropies,
            weights=batch.weights,
            entropy_threshold=totals.entropy_threshold,
            sampler_logprobs=None if correction is None else batch.drawn_logprobs,
            correction=correction or DEFAULT_CORRECTION,
        )

    def _whole(self) -> LossConfig:
        """`trainer.loss`; bnpo averages over a batch, which is the whole update here: so does dapo, in any split."""
        loss = self.config.loss
        return loss.model_copy(update={"type": "dapo"}) if loss.type == "bnpo" else loss
