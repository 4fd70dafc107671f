"""Reward for showing the required steps of a solution."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import Field

from pipelines.config import Section
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry
from pipelines.rewards.words import words

MAX_READ = 100_000
"""Characters of a completion that are searched for steps."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE = re.compile(r"[\n;!?\u3002\uff01\uff1f]|\.(?=\s|$)")


@RewardRegistry.register("steps_coverage")
class StepsCoverage(BaseReward):
    """The fraction of `meta.required_steps` present in the completion, in [0, 1]; abstains without such steps.

    A step is present if one sentence holds all its numbers and at least `threshold` of its words, where words that
    differ in their ending ("multiply", "multiplied") are the same. Steps beyond the required ones cost nothing.
    """

    quick = True

    class Config(Section):
        threshold: float = Field(0.75, gt=0, le=1)
        """The share of a step's words that must be found in one sentence."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        steps = required_steps(context.meta)
        if not steps:
            return None
        text = _THOUSANDS.sub("", f"{context.thinking}\n{context.answer}"[:MAX_READ])
        sentences = [set(words(sentence)) for sentence in _SENTENCE.split(text)]
        missing = [step for step in steps if not self._present(step, sentences)]
        return {"reward": 1.0 - len(missing) / len(steps), "missing": missing}

    def _present(self, step: str, sentences: Sequence[set[str]]) -> bool:
        wanted = set(words(_THOUSANDS.sub("", step)))
        if not wanted:
            return True
        numbers = {word for word in wanted if any(character.isdigit() for character in word)}
        vocabulary = set[str]().union(*sentences)
        spellings = {word: {other for other in vocabulary if alike(word, other)} for word in wanted}
        return any(
            numbers <= sentence
            and sum(not spellings[word].isdisjoint(sentence) for word in wanted)
            >= self.settings.threshold * len(wanted)
            for sentence in sentences
        )


def alike(one: str, other: str) -> bool:
    """Equal, or of nearly one length with a common beginning of three letters and three quarters of the shorter."""
    if one == other:
        return True
    if abs(len(one) - len(other)) > 3:
        return False
    shared = max(3, math.ceil(0.75 * min(len(one), len(other))))
    return len(one) >= shared and one[:shared] == other[:shared]


def required_steps(meta: Mapping[str, Any]) -> list[str]:
    """The steps as texts. Raises TypeError if they are no list: the data set is wrong, not the completion."""
    steps = meta.get("required_steps")
    if steps is None:
        return []
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise TypeError(f"meta.required_steps must be a list of texts, not {type(steps).__name__}")
    return [str(step) for step in cast("Sequence[object]", steps)]
