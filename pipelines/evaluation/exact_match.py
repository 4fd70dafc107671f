"""`exact_match`: is the answer the reference's answer, by the same comparison as the reward of that name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig, Sources, Verdict
from pipelines.evaluation.completions import Prompt, prompts_of
from pipelines.evaluation.file_benchmark import ROW_KEYS, rows_of, there
from pipelines.evaluation.questions import rendered
from pipelines.rewards.answers import final_number, marked, same_answer
from pipelines.rewards.content import reference_of
from pipelines.rewards.context import RewardContext
from pipelines.rewards.equivalence import MathVerify, asked, same_formula
from pipelines.rows.records import row_from


class ExactMatch(BaseEvaluator):
    """Rows that have a reference completion: the run's validation rows, with exactly the prompts training would see,
    or those of a file.
    """

    class Config(EvaluatorConfig):
        """Keys of exact_match."""

        math_verify: MathVerify = "auto"
        """Ask math-verify about formulas that differ as texts: auto where it is installed, always, or never."""

        path: str | None = None
        """File of rows as in a data set, JSONL or a table (null = the run's validation rows)."""

    settings: Config

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.reads = ROW_KEYS if self.settings.path is not None else ()

    def files(self) -> dict[str, Path]:
        return {} if self.settings.path is None else {"items": there(self.settings.path)}

    def items(self, sources: Sources) -> Sequence[Prompt]:
        if self.settings.path is not None:
            return _given(there(self.settings.path), sources)
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


def _given(path: Path, sources: Sources) -> list[Prompt]:
    data = sources.config.data
    row_of = partial(row_from, prompt_key=data.prompt_key, completion_key=data.completion_key)
    rows = [row for _, row in rows_of(path, row_of) if row.completion]
    if not rows:
        raise DataError(f"{path}: no row has a completion to compare with", hint="data.completion_key names its field")
    return rendered(sources.tokenizer, rows, sources.config)


def read(answer: str, reference: str) -> str:
    """What the comparison sees in an answer: its number if the reference gives one, else what a mark holds, or all."""
    number = final_number(answer) if final_number(reference) else None
    return str(number.value) + number.unit if number else (marked(answer) or answer)
