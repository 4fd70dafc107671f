"""Reward for rows of reasoning-gym: what the package's own scorer says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from pipelines.config import Section
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry
from pipelines.rows.synthetic.reasoning_gym import INSTALL, PACKAGE, is_installed, score


@RewardRegistry.register("reasoning_gym")
class ReasoningGym(BaseReward):
    """The score of the row's data set for the answer, usually from 0 to 1; abstains on rows of other sources."""

    class Config(Section):
        outside_sandbox: bool = Field(False, validate_default=True)
        """Accept that some scorers of the package evaluate the answer as Python, in the process that scores."""

        @field_validator("outside_sandbox")
        @classmethod
        def _accepted(cls, accepted: bool) -> bool:
            if not accepted:
                raise ValueError(
                    "some scorers of reasoning-gym evaluate a model's answer as Python, outside the sandbox:"
                    " set it to true to accept that, or use exact_match where one answer is right"
                )
            return accepted

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        place = context.meta.get(PACKAGE)
        if place is None:
            return None
        if not is_installed():
            raise ModuleNotFoundError(f"the row is of reasoning-gym, which is not installed: {INSTALL}")
        found, reason = score(context.answer, place)
        return {"reward": found, "reason": reason} if reason else found
