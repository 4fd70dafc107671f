"""Rewards for what an answer says, measured against the reference: the same answer, or a similar text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pipelines.config import Section
from pipelines.rewards.answers import marked, same_answer
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext, split_regions
from pipelines.rewards.equivalence import LONGEST_SECONDS, MathVerify, asked, same_formula
from pipelines.rewards.registry import RewardRegistry
from pipelines.rewards.similarity import jaccard, rouge_l, tfidf
from pipelines.rewards.spelling import plain
from pipelines.rewards.words import words

METHODS = {"tfidf": tfidf, "jaccard": jaccard, "rouge_l": rouge_l}


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
    Formulas that differ as texts are given to math-verify where it is installed (`equivalence.py`).
    """

    quick = True
    time_limit_seconds = LONGEST_SECONDS + BaseReward.time_limit_seconds

    class Config(Section):
        require_mark: bool = False
        r"""Accept an answer only where it is marked by \boxed{...}, #### or "answer is"."""
        math_verify: MathVerify = "auto"
        """Ask math-verify about formulas that differ as texts: auto where it is installed, always, or never."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        reference = reference_of(context)
        if reference is None:
            return None
        if self.settings.require_mark and marked(context.answer) is None:
            return {"reward": 0.0, "reason": "the answer is not marked"}
        if same_answer(context.answer, reference):
            return 1.0
        if asked(self.settings.math_verify) and same_formula(context.answer, reference, context.prompt_text):
            return {"reward": 1.0, "reason": "the same formula, says math-verify"}
        return 0.0


@RewardRegistry.register("semantic_similarity")
class SemanticSimilarity(BaseReward):
    """How like the reference's answer the answer reads, in [0, 1]; abstains without a reference.

    Equal texts score 1 whatever their length. An answer shorter than both min_length tokens and the reference is
    scaled by tokens / min_length. With m and n words in answer and reference, the length penalty multiplies by
    min(m, n) / max(m, n), the verbosity penalty by 1 - strength * (m - n) where m > n, at least 0. The first 16,000
    characters of each text are compared.
    """

    quick = True

    class Config(Section):
        method: Literal["tfidf", "jaccard", "rouge_l"] = "tfidf"
        """Weighted word and character n-grams, shared words, or longest common subsequence of words."""
        min_length: int = Field(0, ge=0)
        """Shorter answers, in tokens, are scaled down unless the reference is as short."""
        apply_length_penalty: bool = False
        """Whether any difference in length costs."""
        apply_verbosity_penalty: bool = False
        """Whether words beyond the reference's number cost."""
        verbosity_penalty_strength: float = Field(0.01, ge=0)
        """What each word beyond the reference's number takes away, as a fraction."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        reference, answer = reference_of(context), context.answer
        if reference is None:
            return None
        if not answer.strip():
            return {"reward": 0.0, "reason": "no answer"}
        if answer.strip() == reference.strip() or plain(answer) == plain(reference) != "":
            return {"reward": 1.0, "similarity": 1.0}
        similarity = METHODS[self.settings.method](answer, reference)
        factor = self._factor(context, reference)
        return {"reward": similarity * factor, "similarity": similarity, "length_factor": factor}

    def _factor(self, context: RewardContext, reference: str) -> float:
        keys, factor = self.settings, 1.0
        short = context.answer_tokens < keys.min_length
        if not (short or keys.apply_length_penalty or keys.apply_verbosity_penalty):
            return factor
        mine, wanted = len(words(context.answer)), len(words(reference))
        if short and mine < wanted:
            factor *= context.answer_tokens / keys.min_length
        if keys.apply_length_penalty and mine != wanted:
            factor *= min(mine, wanted) / max(mine, wanted)
        if keys.apply_verbosity_penalty:
            factor *= max(0.0, 1.0 - keys.verbosity_penalty_strength * max(0, mine - wanted))
        return factor
