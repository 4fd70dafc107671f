"""`mbpp`: short programming tasks, each with a few asserts.

Rows are those of J. Austin et al., Program Synthesis with Large Language Models, 2021: `text` (or `prompt`), `code`,
`test_list`, and `test_setup_code` (or `test_imports`), which runs before each test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pipelines.evaluation.code_benchmark import CodeBenchmark, CodeConfig, checked
from pipelines.evaluation.file_benchmark import OTHER_FORMAT, Asked, Fields, text_of
from pipelines.rewards.code import answer_of, wanted_names
from pipelines.rewards.code_extraction import extract_code
from pipelines.rewards.context import RewardContext
from pipelines.rows.records import BadRowError

BEGIN, DONE = "[BEGIN]", "[DONE]"
"""Around a program in the paper's plain prompt."""


class Mbpp(CodeBenchmark):
    """The task with its tests below it; in plain text as the paper asks."""

    class Config(CodeConfig):
        """Keys of mbpp."""

        hub: str | None = "google-research-datasets/mbpp"
        """Name of a data set on the Hugging Face hub, fetched once."""

        hub_subset: str | None = "full"
        """Subset of that data set."""

        instruction: str = "Answer with the whole program in one code block."
        """What is said below the tests in chat."""

    settings: Config
    delimiter = ""

    def asked(self, record: Fields) -> Asked:
        task, code, tests = text_of(record, "text", "prompt").strip(), text_of(record, "code"), _tests(record)
        shown = "Your code should pass these tests:\n\n" + "\n".join(tests)
        setup = _setup(record)
        cases = checked([f"{setup}\n{test}" if setup else test for test in tests])
        if self.chat:
            question = f"{task}\n\n{shown}\n\n{self.settings.instruction}"
            return Asked(question, f"```python\n{code.strip()}\n```", cases)
        question = f"You are an expert Python programmer, and here is your task: {task} {shown}\n{BEGIN}\n"
        return Asked(question, f"{code.strip()}\n{DONE}", cases)

    def program(self, context: RewardContext) -> str:
        if not self.chat and "```" not in context.generated_text:
            return context.generated_text
        text = answer_of(context) if self.chat else context.generated_text
        return extract_code(text, wanted_names(self.tests(context)))

    @property
    def stops(self) -> Sequence[str]:
        return super().stops if self.settings.until is not None or self.chat else (DONE,)


def _tests(record: Fields) -> list[str]:
    tests = record.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in cast("list[Any]", tests)):
        raise BadRowError("test_list is no list of asserts", hint=OTHER_FORMAT)
    return cast("list[str]", tests)


def _setup(record: Fields) -> str:
    name = "test_imports" if record.get("test_imports") else "test_setup_code"
    lines = record.get(name) or ""
    if isinstance(lines, str):
        return lines
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in cast("list[Any]", lines)):
        raise BadRowError(f"{name} is neither a text nor a list of texts", hint=OTHER_FORMAT)
    return "\n".join(cast("list[str]", lines))
