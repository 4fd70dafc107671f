"""Benchmarks whose answers are programs: run against the row's tests in the sandbox, and reported as pass@k."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.base import Verdict
from pipelines.evaluation.file_benchmark import OTHER_FORMAT, FileBenchmark, FileConfig
from pipelines.evaluation.records import Records, proportion
from pipelines.evaluation.statistics import pass_at_k
from pipelines.rewards.code import SandboxKeys, judge_program, read_test, sandbox
from pipelines.rewards.context import RewardContext
from pipelines.rows.records import BadRowError
from pipelines.sandbox.base import Test

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_THREADS = 8


class CodeConfig(FileConfig, SandboxKeys):
    """Keys of every benchmark that runs programs."""

    k: list[int] = Field(default=[1], min_length=1)
    """For which k pass@k is told; each at most `samples`."""

    timeout_seconds: float = Field(default=10.0, gt=0)
    """Wall clock of one test, and of loading the program."""

    @model_validator(mode="after")
    def _has_samples(self) -> Self:
        if not 1 <= min(self.k) <= max(self.k) <= self.samples:
            raise ValueError(f"k is {self.k} with {self.samples} samples; pass@k takes at least k of them")
        return self


def checked(cases: Sequence[Any]) -> tuple[Any, ...]:
    """The tests of a row, each of which can be run; BadRowError otherwise, before anything is generated."""
    try:
        for case in cases:
            read_test(case)
    except DataError as error:
        raise BadRowError(error.message, hint=OTHER_FORMAT) from error
    return tuple(cases)


class CodeBenchmark(FileBenchmark):
    """Right is a program that passes all tests of its row. Where the sandbox fails, scoring ends: that is no answer."""

    Config: ClassVar[type[CodeConfig]] = CodeConfig
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    settings: CodeConfig

    def tests(self, context: RewardContext) -> list[Test]:
        """The tests of the row that was asked."""
        return [read_test(case) for case in context.test_cases]

    @abstractmethod
    def program(self, context: RewardContext) -> str:
        """The program of an answer; empty if there is none."""

    def verdict(self, context: RewardContext) -> Verdict:
        program = self.program(context)
        if not program.strip():
            return Verdict(False, None, context.reference_completion, reason="no code in the answer")
        found = judge_program(program, self.tests(context), self.settings.limits, self.settings.min_isolation)
        reasons = ["the program holds a null character"] if found is None else list(filter(None, found.reasons))
        return Verdict(not reasons, program, context.reference_completion, reason=reasons[0] if reasons else "")

    def conditions(self, config: ExperimentConfig) -> dict[str, Any]:  # noqa: ARG002 - every one runs programs
        return sandbox()

    def metrics(self, records: Records) -> dict[str, Any]:
        right: dict[int, list[bool]] = {}
        for record in records:
            right.setdefault(record["item"], []).append(record["correct"])
        found = super().metrics(records)
        for k in self.settings.k:
            found |= proportion(f"pass@{k}", {item: pass_at_k(len(of), sum(of), k) for item, of in right.items()})
        return found
