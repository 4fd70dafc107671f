"""`trainer.loss`: how the per-token policy terms are clipped, averaged and regularised."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section

CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
"""A weight per token or one per completion; clamped to its cap, or 0 above it."""


class LossConfig(Section):
    """The policy loss."""

    type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"] = "dapo"
    """How per-token terms are clipped and averaged; gspo is grpo with level sequence."""

    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """Lower clip range of the probability ratio: it may fall to 1 - epsilon."""

    epsilon_high: float = Field(default=0.28, gt=0)
    """Upper clip range of the ratio, up to 1 + epsilon_high. Larger than epsilon keeps rare tokens alive
    (DAPO, arXiv:2503.14476). For cispo it is the absolute cap of the ratio instead: use 5.0 or so there."""

    delta: float | None = Field(default=None, gt=1)
    """Cap of the ratio in the unclipped term as well (null = none); above 1 + epsilon_high to matter."""

    level: Literal["token", "sequence"] = "token"
    """Whether each token has a ratio, or each completion one: its tokens' geometric mean."""

    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL to the reference.
    With d = ref - new: k1 = -d, k2 = d^2/2, k3 = exp(d) - d - 1."""

    kl_bias_correction: bool = False
    """Multiply the KL term by the probability ratio, for an unbiased gradient off-policy."""

    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, which is subtracted from the loss (0 = off)."""

    top_entropy_quantile: float = Field(default=1.0, gt=0, le=1)
    """Learn only from this fraction of tokens, the most uncertain (1.0 = all). Source: arXiv:2506.01939."""

    mask_truncated_completions: bool = False
    """Leave completions cut off at max_gen_len out of the loss. Their reward stays in the group's statistics."""

    sampler_correction: CorrectionMode | None = None
    """Correction for sampling that top_p, top_k or min_p narrowed (null = off).
    Terms are weighed by w = p(token) / p(token as sampled): token = one per token, sequence = their product over the
    completion; truncate = w at most sampler_correction_cap, mask = terms with a larger w count as 0."""

    sampler_correction_cap: float = Field(default=3.0, gt=0)
    """Largest weight that sampler_correction allows."""

    @property
    def sequence_level(self) -> bool:
        """Whether a completion has one ratio: level sequence, or type gspo, which means it."""
        return self.level == "sequence" or self.type == "gspo"
