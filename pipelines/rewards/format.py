"""Reward for the shape of a completion: one think block, then an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from pipelines.config import Section
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.lengths import ramp
from pipelines.rewards.registry import RewardRegistry

WELL_FORMED = "one think block, then an answer"
PARTIAL_CREDIT = {
    "empty": 0.0,
    "no tags": 0.1,
    "several, nested or misplaced tags": 0.2,
    "half a block": 0.3,
    "no answer": 0.3,
}
FLOOR = 0.3
"""What a well-formed block earns whatever its length; the other 0.7 are for the lengths."""


def structure(context: RewardContext) -> str:
    """Name the shape: WELL_FORMED or a key of PARTIAL_CREDIT. A tag opened by the prompt counts as opened."""
    opening, closing = context.think_tags
    text = context.generated_text
    if not text.replace(opening, "").replace(closing, "").strip():
        return "empty"
    opens, closes = text.count(opening) + context.thinking_opened, text.count(closing)
    if opens + closes == 0:
        return "no tags"
    if opens + closes == 1:
        return "half a block"
    begins = context.thinking_opened or text.lstrip().startswith(opening)
    if opens > 1 or closes > 1 or not begins:
        return "several, nested or misplaced tags"
    return WELL_FORMED if text.rpartition(closing)[2].strip() else "no answer"


@RewardRegistry.register("format_structure", aliases=("tag_structure",))
class FormatStructure(BaseReward):
    """0.3 + 0.7 * thinking * answer for one well-formed block, otherwise the partial credit of its shape; in [0, 1].

    thinking, piecewise linear in the number of thinking tokens: 0 at none, 1/2 at min_think_length, 1 from
    think_length_target_min to think_length_target_max, 0 at twice the latter. With no target_min it is 1 from
    min_think_length on. answer: tokens / min_answer_length, at most 1.
    """

    quick = True

    class Config(Section):
        min_think_length: int = Field(1, ge=0)
        """Below this many thinking tokens the credit falls to 0 in proportion."""
        min_answer_length: int = Field(1, ge=0)
        """An answer shorter than this many tokens is credited in proportion."""
        think_length_target_min: int | None = Field(None, ge=0)
        """From this many thinking tokens on the credit is full; null: from min_think_length."""
        think_length_target_max: int | None = Field(None, ge=1)
        """Above this many thinking tokens the credit falls; null: never."""

        @model_validator(mode="after")
        def _in_order(self) -> FormatStructure.Config:
            low = self.think_length_target_min
            low = self.min_think_length if low is None else low
            high = self.think_length_target_max
            if low < self.min_think_length or (high is not None and high < low):
                raise ValueError("min_think_length <= think_length_target_min <= think_length_target_max must hold")
            return self

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        shape = structure(context)
        if shape != WELL_FORMED:
            return {"reward": PARTIAL_CREDIT[shape], "shape": shape}
        tokens = context.thinking_tokens if context.thinking.strip() else 0
        credit = self._thinking(tokens) * ramp(context.answer_tokens, 0, self.settings.min_answer_length)
        return {"reward": FLOOR + (1 - FLOOR) * credit, "shape": shape, "thinking_tokens": tokens}

    def _thinking(self, tokens: int) -> float:
        least, high = self.settings.min_think_length, self.settings.think_length_target_max
        low = self.settings.think_length_target_min or least
        if high is not None and tokens > high:
            return 1.0 - ramp(tokens, high, 2 * high)
        if low == least:
            return ramp(tokens, 0, least)
        return (ramp(tokens, 0, least) + ramp(tokens, least, low)) / 2
