"""PPO: advantages of single tokens from a learned value head, a clipped policy loss and a clipped value loss
(arXiv:1707.06347; per-token KL in the reward as in RLHF, arXiv:1909.08593).

r_t = -`trainer.grpo_beta` KL_t + [t is the completion's last token] reward
A   = GAE(r, V; gamma, lambda) (arXiv:1506.02438), whitened over the tokens of the update; R = A + V before that
L   = L_policy(`trainer.loss`, A) + `value_coef` * 1/(2 M) sum max((V - R)^2, (V_old + clamp(V - V_old) - R)^2)

No completion is compared with another, so a prompt needs only one. The KL is paid by the reward and not by the loss.
"""

from typing import ClassVar

import mlx.core as mx

from pipelines.algorithms.advantages import Advantages
from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm, Batch, Recorded, TokenAdvantages, Totals
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.kl import token_kl
from pipelines.algorithms.loss_metrics import Metrics, masked_mean
from pipelines.algorithms.losses import LossOutput
from pipelines.algorithms.value import explained_variance, gae, value_loss, whitened
from pipelines.config import TrainerConfig


@AlgorithmRegistry.register("ppo")
class Ppo(BaseAlgorithm):
    """Settings are those of `trainer.ppo`; `trainer.advantage` plays no part, except for how rewards are summed."""

    uses_values: ClassVar[bool] = True
    compares_completions: ClassVar[bool] = False

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__(config)
        self.policy = Grpo(config.model_copy(update={"grpo_beta": 0.0}))

    def advantages(self, rewards: mx.array, weights: mx.array, group_size: int) -> Advantages:  # noqa: ARG002
        """The weighted mean of the rewards that did not abstain; a completion without any is NaN, and to be dropped."""
        present = mx.where(mx.isnan(rewards), 0.0, weights)  # [N, K]
        total = (mx.where(mx.isnan(rewards), 0.0, rewards) * present).sum(axis=1)
        weight = present.sum(axis=1)
        unscored = weight == 0
        return Advantages(mx.where(unscored, mx.nan, total / mx.where(unscored, 1.0, weight)), unscored)

    def token_advantages(self, recorded: Recorded) -> TokenAdvantages:
        """Rewards of tokens, their advantages and returns; a completion without a score teaches nothing."""
        unscored = mx.isnan(recorded.rewards)[:, None]
        mask = recorded.mask & ~unscored
        kl = self._kl(recorded)
        final = _last_active(mask)
        rewards = mx.where(final, recorded.rewards[:, None], 0.0) - self.config.grpo_beta * kl
        advantages, returns = gae(rewards, recorded.values, mask, self.config.ppo.gamma, self.config.ppo.gae_lambda)
        returns = mx.where(recorded.mask & unscored, recorded.values, returns)  # nothing to correct there
        return TokenAdvantages(whitened(advantages, mask), returns, self._metrics(recorded, returns, kl))

    def loss(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> LossOutput:
        """GRPO's policy term without its KL, and the value loss."""
        if batch.values is None or batch.old_values is None or batch.returns is None:
            raise ValueError("ppo needs values and returns")
        policy = self.policy.loss(logprobs, entropies, batch, totals)
        ppo = self.config.ppo
        value = value_loss(
            batch.values,
            batch.old_values,
            batch.returns,
            batch.mask,
            ppo.value_clip,
            totals.items,
            weights=batch.weights,
        )
        metrics = {"policy_loss": mx.stop_gradient(policy.loss)} | policy.metrics
        metrics |= {"value_loss": mx.stop_gradient(value.loss), "critic/vf_clipfrac": value.clipped}
        return LossOutput(policy.loss + ppo.value_coef * value.loss, metrics)

    def _kl(self, recorded: Recorded) -> mx.array:
        """KL `[N, C]` of each token, 0 without a reference and outside the mask."""
        if recorded.ref_logprobs is None:
            return mx.zeros(recorded.mask.shape)
        new, ref = (mx.where(recorded.mask, array, 0.0) for array in (recorded.logprobs, recorded.ref_logprobs))
        return token_kl(new, ref, mx.ones_like(new), self.config.loss.kl_estimator, bias_correction=False)

    def _metrics(self, recorded: Recorded, returns: mx.array, kl: mx.array) -> Metrics:
        mask = recorded.mask.astype(mx.float32)
        values = mx.where(recorded.mask, recorded.values, 0.0)
        found = {
            "critic/values/mean": masked_mean(values, mask),
            "critic/returns/mean": masked_mean(returns, mask),
            "critic/vf_explained_var": explained_variance(values, returns, mask),
        }
        return found if recorded.ref_logprobs is None else found | {"kl": masked_mean(kl, mask)}


def _last_active(mask: mx.array) -> mx.array:
    """`[N, C]` bool: the last active token of each row that has one."""
    later = mx.cumsum(mask.astype(mx.int32), axis=1, reverse=True)
    return mask & (later == 1)
