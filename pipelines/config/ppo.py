"""`trainer.ppo`: the learned value head and its advantage estimate, read by `algorithm: ppo` only."""

from pydantic import Field

from pipelines.config.section import Section


class PpoConfig(Section):
    """Settings of algorithm ppo."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""

    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Lambda of the generalised advantage estimate: 0 trusts the value head, 1 the returns."""

    value_coef: float = Field(default=0.5, ge=0)
    """Weight of the value loss, from which the model learns too (0 = the values stay 0)."""

    value_clip: float = Field(default=0.2, ge=0)
    """How far a value may move from its old estimate before the loss is clipped (0 = no clipping)."""

    value_learning_rate: float = Field(default=1e-4, gt=0)
    """Step size of the value head, constant; the model's own comes from the schedule."""
