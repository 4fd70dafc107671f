"""`exact_match`: is the answer the reference's answer, by the same comparison as the reward of that name?"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.errors import DataError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig, Sources, Verdict
from pipelines.evaluation.completions import Prompt, prompts_of
from pipelines.rewards.answers import final_number, marked, same_answer
from pipelines.rewards.content import reference_of
from pipelines.rewards.context import RewardContext
from pipelines.rewards.equivalence import MathVerify, asked, same_formula


class ExactMatch(BaseEvaluator):
    """The run's validation rows that have a reference completion, with exactly the prompts training would see."""

    class Config(EvaluatorConfig):
        """Keys of exact_match."""

        math_verify: MathVerify = "auto"
        """Ask math-verify about formulas that differ as texts: auto where it is installed, always, or never."""

    settings: Config

    def items(self, sources: Sources) -> Sequence[Prompt]:
        dataset = sources.validation()
        prompts = [prompt for prompt in prompts_of(dataset, range(len(dataset))) if prompt.row.completion]
        if not prompts:
            raise DataError(
                "there is no validation row with a completion to compare with",
                hint="set data.val_path, or data.val_fraction to set rows aside from the training rows",
            )
        return prompts

    def verdict(self, context: RewardContext) -> Verdict:
        expected = reference_of(context) or ""
        right = same_answer(context.answer, expected)
        if not right and asked(self.settings.math_verify):
            right = same_formula(context.answer, expected, context.prompt_text)
        return Verdict(right, read(context.answer, expected), read(expected, expected))


def read(answer: str, reference: str) -> str:
    """What the comparison sees in an answer: its number if the reference gives one, else what a mark holds, or all."""
    number = final_number(answer) if final_number(reference) else None
    return str(number.value) + number.unit if number else (marked(answer) or answer)
