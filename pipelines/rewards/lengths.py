"""Rewards for how long a completion is, in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pipelines.config import Section
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry


def ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, a straight line between; with low == high a step that is 1 at `high`."""
    if value >= high:
        return 1.0
    return max(0.0, (value - low) / (high - low)) if high > low else 0.0


@RewardRegistry.register("length_penalty")
class LengthPenalty(BaseReward):
    """1 while n <= target_length, then (max_length - n) / (max_length - target_length) down to 0; in [0, 1].

    n is a number of tokens. Below min_length the reward is n / min_length, so that saying nothing is not the
    cheapest way to be short.
    """

    quick = True

    class Config(Section):
        target_length: int = Field(256, ge=1)
        """Up to this many tokens nothing is taken away."""
        max_length: int = Field(512, ge=1)
        """From this many tokens on the reward is 0."""
        min_length: int = Field(1, ge=0)
        """Shorter than this, the reward falls to 0 in proportion."""
        region: Literal["all", "thinking", "answer"] = "all"
        """Which tokens are counted."""

        @model_validator(mode="after")
        def _in_order(self) -> LengthPenalty.Config:
            if not self.min_length <= self.target_length < self.max_length:
                raise ValueError("min_length <= target_length < max_length must hold")
            return self

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        keys = self.settings
        counts = {"all": context.length_tokens, "thinking": context.thinking_tokens, "answer": context.answer_tokens}
        length = counts[keys.region]
        reward = min(ramp(length, 0, keys.min_length), 1.0 - ramp(length, keys.target_length, keys.max_length))
        return {"reward": reward, "tokens": length}


@RewardRegistry.register("soft_overlong")
class SoftOverlong(BaseReward):
    """DAPO's overlong shaping (arXiv:2503.14476, eq. 13), in [-1, 0].

    0 while n <= max_length - cache_length, then (max_length - cache_length - n) / cache_length down to -1 at
    max_length; n is the number of tokens of the completion.
    """

    quick = True

    class Config(Section):
        max_length: int = Field(ge=1)
        """At this many tokens the penalty is complete; usually data.max_gen_len."""
        cache_length: int = Field(ge=1)
        """Over how many tokens before max_length the penalty grows."""

        @model_validator(mode="after")
        def _in_order(self) -> SoftOverlong.Config:
            if self.cache_length > self.max_length:
                raise ValueError("cache_length <= max_length must hold")
            return self

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        keys, length = self.settings, context.length_tokens
        return {"reward": -ramp(length, keys.max_length - keys.cache_length, keys.max_length), "tokens": length}
