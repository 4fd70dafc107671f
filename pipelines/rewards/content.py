"""Rewards for what an answer says: is it the reference's answer?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.config import Section
from pipelines.rewards.answers import marked, same_answer
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext, split_regions
from pipelines.rewards.registry import RewardRegistry


def reference_of(context: RewardContext) -> str | None:
    """The reference answer; the reference completion behind its thinking if there is no separate one; else None."""
    if context.reference_answer and context.reference_answer.strip():
        return context.reference_answer
    completion = context.reference_completion or ""
    return split_regions(completion, context.think_tags)[1] or None


@RewardRegistry.register("exact_match")
class ExactMatch(BaseReward):
    r"""1 if the answer equals the reference's answer, else 0; abstains without a reference.

    Numbers are compared exactly, read from \boxed{...}, `#### ...`, "the answer is ...", or a last line with one
    number; other answers as text (Unicode, case, white space and surrounding punctuation ignored). See `answers.py`.
    """

    class Config(Section):
        require_mark: bool = False
        r"""Accept an answer only where it is marked by \boxed{...}, #### or "answer is"."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        reference = reference_of(context)
        if reference is None:
            return None
        if self.settings.require_mark and marked(context.answer) is None:
            return {"reward": 0.0, "reason": "the answer is not marked"}
        return 1.0 if same_answer(context.answer, reference) else 0.0
