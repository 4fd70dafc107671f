"""Rewards for how a text is written: its length, its repetitions, and phrases one does not want to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from pipelines.config import Section
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.format import WELL_FORMED, structure
from pipelines.rewards.lengths import ramp
from pipelines.rewards.registry import RewardRegistry
from pipelines.rewards.words import phrase_hits, repeated_share

THINKING_PHRASES = ["as an ai language model", "i cannot help with"]
ANSWER_PHRASES = ["as an ai language model", "i'm not sure", "i am not sure", "let me think", "hmm"]


@RewardRegistry.register("thinking_quality")
class ThinkingQuality(BaseReward):
    """Length credit - repetition - tag misuse - phrases, at least 0; in [0, 1], 0 without thinking.

    Length credit, piecewise linear in thinking tokens: 0 at none, 1 from target_length_min to target_length_max,
    0 from excessive_length_threshold on. Repetition: repetition_penalty times the share of repeated n-grams.
    """

    quick = True

    class Config(Section):
        target_length_min: int = Field(20, ge=0)
        """From this many thinking tokens on the length credit is full."""
        target_length_max: int = Field(200, ge=1)
        """Above this many thinking tokens the length credit falls."""
        excessive_length_threshold: int = Field(400, ge=1)
        """From this many thinking tokens on there is no length credit."""
        ngram_size: int = Field(3, ge=1)
        """How many words in a row must recur to be a repetition."""
        repetition_penalty: float = Field(0.5, ge=0)
        """Taken away when every n-gram is a repetition, in proportion below."""
        tag_penalty: float = Field(0.2, ge=0)
        """Taken away when the think tags are not one well-formed block."""
        phrases: list[str] = THINKING_PHRASES
        """Phrases, whole words in any case, that cost something."""
        phrase_penalty: float = Field(0.1, ge=0)
        """What each occurrence of a phrase costs."""

        @model_validator(mode="after")
        def _in_order(self) -> ThinkingQuality.Config:
            if not self.target_length_min <= self.target_length_max < self.excessive_length_threshold:
                raise ValueError("target_length_min <= target_length_max < excessive_length_threshold must hold")
            return self

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        if not context.thinking.strip():
            return {"reward": 0.0, "reason": "no thinking"}
        keys, tokens = self.settings, context.thinking_tokens
        credit = ramp(tokens, 0, keys.target_length_min)
        credit -= ramp(tokens, keys.target_length_max, keys.excessive_length_threshold)
        repeated = repeated_share(context.thinking, keys.ngram_size)
        hits = phrase_hits(context.thinking, keys.phrases)
        shape = structure(context)
        penalty = keys.repetition_penalty * repeated + keys.phrase_penalty * len(hits)
        penalty += keys.tag_penalty * (shape not in {WELL_FORMED, "no answer"})
        reasons = {"thinking_tokens": tokens, "length": credit, "repeated": repeated, "phrases": hits, "shape": shape}
        return {"reward": max(0.0, credit - penalty), **reasons}


@RewardRegistry.register("answer_quality")
class AnswerQuality(BaseReward):
    """1 - min(max_penalty, phrase_penalty * hits + repetition_penalty * repeated); in [0, 1].

    0 for an answer that is empty or has fewer than min_length tokens. repeated: the share of repeated n-grams.
    """

    quick = True

    class Config(Section):
        max_penalty: float = Field(1.0, ge=0, le=1)
        """The most that all penalties together take away."""
        phrases: list[str] = ANSWER_PHRASES
        """Phrases, whole words in any case, that cost something."""
        phrase_penalty: float = Field(0.25, ge=0)
        """What each occurrence of a phrase costs."""
        repetition_penalty: float = Field(1.0, ge=0)
        """Taken away when every n-gram is a repetition, in proportion below."""
        ngram_size: int = Field(3, ge=1)
        """How many words in a row must recur to be a repetition."""
        min_length: int = Field(1, ge=0)
        """An answer with fewer tokens scores 0."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        keys = self.settings
        if not context.answer.strip() or context.answer_tokens < keys.min_length:
            return {"reward": 0.0, "reason": "the answer is empty or too short"}
        hits = phrase_hits(context.answer, keys.phrases)
        repeated = repeated_share(context.answer, keys.ngram_size)
        penalty = keys.phrase_penalty * len(hits) + keys.repetition_penalty * repeated
        return {"reward": 1.0 - min(keys.max_penalty, penalty), "phrases": hits, "repeated": repeated}


@RewardRegistry.register("repetition_penalty")
class RepetitionPenalty(BaseReward):
    """-max_penalty times the share of repeated n-grams in the completion; in [-max_penalty, 0]."""

    quick = True

    class Config(Section):
        ngram_size: int = Field(3, ge=1)
        """How many words in a row must recur to be a repetition."""
        max_penalty: float = Field(1.0, ge=0)
        """The penalty when nearly every n-gram is a repetition."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        repeated = repeated_share(context.generated_text, self.settings.ngram_size)
        return {"reward": -self.settings.max_penalty * repeated, "repeated": repeated}
