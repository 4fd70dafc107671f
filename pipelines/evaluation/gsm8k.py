r"""`gsm8k`: word problems whose answers are whole numbers, read strictly and leniently.

Rows are those of K. Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021: `{"question": ..., "answer":
"... #### 18"}`. Both readings and their comparison are lm-evaluation-harness's (tasks gsm8k and gsm8k_cot, version 3):
strict takes the first number behind its mark, lenient the last number of all; commas, `$` and a full stop at the end
do not count, and the rest is compared as text. `18.00` is not `18` there, and so not here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pipelines.evaluation.base import Verdict
from pipelines.evaluation.file_benchmark import Asked, Fields, FileBenchmark, FileConfig, text_of
from pipelines.evaluation.gsm8k_examples import EXAMPLES
from pipelines.rewards.context import RewardContext
from pipelines.rows.records import BadRowError

MARK = "#### "
STRICT = re.compile(r"#### (-?[0-9.,]+)")
STRICT_SENTENCE = re.compile(r"The answer is (-?[0-9.,]+).")
LENIENT = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_NOT_COMPARED = re.compile(r"[,$]")

INSTRUCTION = "Reason step by step. End with a line that holds #### and the final number, such as: #### 42"


class Gsm8k(FileBenchmark):
    """Zero-shot, with the eight examples of Wei et al., or with examples from a file of solved rows."""

    class Config(FileConfig):
        """Keys of gsm8k."""

        own_examples: ClassVar[int] = len(EXAMPLES)

        hub: str | None = "openai/gsm8k"
        """Name of a data set on the Hugging Face hub, fetched once."""

        hub_subset: str | None = "main"
        """Subset of that data set."""

        instruction: str = INSTRUCTION
        """What is said below a chat question that is asked without examples."""

    settings: Config

    def asked(self, record: Fields) -> Asked:
        question, answer = text_of(record, "question"), text_of(record, "answer")
        _, mark, number = answer.rpartition(MARK)
        if not mark:
            raise BadRowError("the answer does not end with #### and a number", hint='such as "3 + 4 = 7\\n#### 7"')
        return Asked(self._prompted(question), answer, meta={"number": number.strip()})

    def examples(self, seed: int) -> list[Asked]:
        if not self._in_sentences:
            return super().examples(seed)
        return [Asked(self._prompted(question), answer) for question, answer in EXAMPLES]

    def verdict(self, context: RewardContext) -> Verdict:
        strict = (STRICT_SENTENCE if self._in_sentences else STRICT).findall(context.answer)
        lenient = LENIENT.findall(context.answer)
        expected = compared(context.meta["number"])
        found = strict[0] if strict else None
        return Verdict(
            found is not None and compared(found) == expected,
            found,
            context.meta["number"],
            also={"lenient": float(bool(lenient) and compared(lenient[-1]) == expected)},
        )

    @property
    def stops(self) -> Sequence[str]:
        if self.settings.until is not None or self.chat:
            return super().stops
        return ("Q:" if self._in_sentences else "Question:", "</s>", "<|im_end|>")

    @property
    def _in_sentences(self) -> bool:
        """Whether the examples are those of the paper, which end with "The answer is 6."."""
        return bool(self.settings.few_shot) and self.settings.few_shot_path is None

    def _prompted(self, question: str) -> str:
        if self.chat:
            return question if self.settings.few_shot else f"{question}\n\n{self.settings.instruction}".strip()
        return f"Q: {question}\nA:" if self._in_sentences else f"Question: {question}\nAnswer:"


def compared(number: str) -> str:
    """A number as it is compared: without commas, `$`, and a full stop at its end."""
    return _NOT_COMPARED.sub("", number.strip()).removesuffix(".")
