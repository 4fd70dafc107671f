"""Reward for programs: run the answer's code against the row's tests, in the sandbox.

A row's tests are texts (asserts, an expression that must be true, or code that defines `check(candidate)`) or objects:
`{"input": text, "expected": text}` for standard input and output, `{"input": arguments, "expected": value}` for a call,
`{"check": code, "entry_point": name}` as in HumanEval.
"""

from __future__ import annotations

import ast
import builtins
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import Field

from pipelines.config import RewardConfig, Section
from pipelines.errors import DataError, SandboxError
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.code_extraction import extract_code
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry
from pipelines.sandbox.base import AssertTest, CallTest, CheckTest, Level, Limits, StdioTest, Test, Verdicts
from pipelines.sandbox.isolation import TooWeakError, at_least, available
from pipelines.sandbox.supervisor import run_tests

FUNCTION_KEYS = ("function", "fn_name", "entry_point")
SHOWN_REASONS = 20
START_SECONDS = 60.0
"""Room for starting the sandbox on a busy machine, on top of what the tests may take; both attempts have it."""
_BUILTINS = frozenset(vars(builtins))


def score_code(completion: str, test_cases: Sequence[Any]) -> float:
    """Fraction of the tests that the completion's program passes; 0 without a program. SandboxError, DataError."""
    tests = [read_test(case) for case in test_cases]
    verdicts = judge_code(completion, tests) if tests else None
    return sum(verdicts.passed) / len(tests) if verdicts else 0.0


def judge_code(
    completion: str, tests: Sequence[Test], limits: Limits | None = None, minimum: Level = "basic"
) -> Verdicts | None:
    """The verdicts on a completion's program, None if it has none; as in `judge_program`."""
    code = extract_code(completion, wanted_names(tests))
    return judge_program(code, tests, limits, minimum) if code else None


def judge_program(
    code: str, tests: Sequence[Test], limits: Limits | None = None, minimum: Level = "basic"
) -> Verdicts | None:
    """The verdicts on a program, None for a text that can be none. A failure of the sandbox is tried again once."""
    if "\0" in code:
        return None
    limits = limits or Limits()
    try:
        return run_tests(code, tests, limits, isolation=at_least(minimum))
    except TooWeakError:
        raise
    except SandboxError:
        return run_tests(code, tests, limits, isolation=at_least(minimum))


def read_test(case: object) -> Test:
    """One entry of `test_cases` as a test. DataError for what is none."""
    if isinstance(case, str):
        return _read_text(case)
    if isinstance(case, Mapping):
        fields = cast("Mapping[str, Any]", case)
        for key in ("check", "test"):
            if isinstance(fields.get(key), str):
                return _read_check(fields[key], fields.get("entry_point"))
        expected = next((key for key in ("expected", "expected_output", "output") if key in fields), None)
        if "input" in fields and expected:
            return _read_pair(fields, fields[expected])
    raise DataError(
        f"test_cases holds {json.dumps(case, default=repr)[:120]}, which is no test",
        hint='a test is a text, {"input": ..., "expected": ...}, or {"check": ..., "entry_point": ...}',
    )


def _read_text(given: str) -> Test:
    text = textwrap.dedent(given).strip()
    tree = _parsed(text)
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        return AssertTest(f"assert (\n{text}\n)")
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    acts = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)]
    called = any(isinstance(node, ast.Name) and node.id == "check" for one in acts for node in ast.walk(one))
    return CheckTest(text) if "check" in defined and not called else AssertTest(text)


def _read_check(text: str, entry_point: object) -> Test:
    text = textwrap.dedent(text).strip()
    _parsed(text)
    return CheckTest(text, entry_point if isinstance(entry_point, str) else None)


def _read_pair(fields: Mapping[str, Any], expected: Any) -> Test:
    given = fields["input"]
    function = next((fields[key] for key in FUNCTION_KEYS if isinstance(fields.get(key), str)), None)
    if isinstance(given, str) and function is None:
        return StdioTest(given, expected if isinstance(expected, str) else json.dumps(expected))
    if isinstance(given, Mapping):
        return CallTest((), expected, dict(cast("Mapping[str, Any]", given)), function)
    arguments = tuple(cast("list[Any]", given)) if isinstance(given, list | tuple) else (given,)
    return CallTest(arguments, expected, {}, function)


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"a test is not Python: {error}: {text.strip()[:120]!r}", hint="correct test_cases") from error


def wanted_names(tests: Sequence[Test]) -> frozenset[str]:
    """Names that the tests use and do not define: what the answer's program has to bring."""
    wanted: set[str] = set()
    for test in tests:
        if isinstance(test, CallTest | CheckTest):
            name = test.function if isinstance(test, CallTest) else test.entry_point
            wanted |= {name.partition("()")[0]} if name else set()
        if isinstance(test, AssertTest):
            nodes = [node for node in ast.walk(ast.parse(test.code.strip())) if isinstance(node, ast.Name)]
            stored = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
            wanted |= {node.id for node in nodes} - stored
    return frozenset(wanted - _BUILTINS or wanted)


class SandboxKeys(Section):
    """What one answer's program may use, and how strong the sandbox must be."""

    timeout_seconds: float = Field(default=5.0, gt=0)
    """Wall clock of one test, and of loading the program."""
    total_seconds: float = Field(default=30.0, gt=0)
    """Wall clock of all tests of one answer."""
    memory_mb: int = Field(default=512, ge=64)
    """Memory that the program may use."""
    output_kb: int = Field(default=1024, ge=1)
    """What a program may print, or one call of its functions; whoever prints more has failed the test."""
    min_isolation: Level = "basic"
    """Refuse to run where the sandbox cannot be at least this: basic, medium or strong."""

    @property
    def limits(self) -> Limits:
        return Limits(
            test_seconds=self.timeout_seconds,
            total_seconds=self.total_seconds,
            memory_mb=self.memory_mb,
            output_kb=self.output_kb,
        )


class CodeExecutionConfig(SandboxKeys):
    """Keys of `code_execution`."""

    all_or_nothing: bool = False
    """1 if every test passes, else 0; without it the fraction of tests that pass."""


@RewardRegistry.register("code_execution")
class CodeExecution(BaseReward):
    """Share of the row's tests that the answer's program passes; one in the thinking does not count.

    Abstains without tests.
    """

    Config = CodeExecutionConfig

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        keys = CodeExecutionConfig.model_validate(self.config)
        self.keys = keys
        self.limits = keys.limits
        self.time_limit_seconds = 2 * (keys.total_seconds + START_SECONDS)

    def compute(self, context: RewardContext) -> RewardResult:
        if not context.test_cases:
            return None
        self.validate_inputs(context)
        tests = [read_test(case) for case in context.test_cases]
        try:
            verdicts = judge_code(answer_of(context), tests, self.limits, self.keys.min_isolation)
        except TooWeakError:
            raise
        except SandboxError as error:
            return {"reward": None, "sandbox_failure": error.message}
        if verdicts is None:
            return {"reward": 0.0, "passed": 0, "tests": len(tests), "reason": "no code in the answer"}
        share = sum(verdicts.passed) / len(tests)
        reasons = {
            f"test {place}": reason or "passed"
            for place, reason in enumerate(verdicts.reasons[:SHOWN_REASONS], start=1)
        }
        reward = float(all(verdicts.passed)) if self.keys.all_or_nothing else share
        counts = {"passed": sum(verdicts.passed), "tests": len(tests), "isolation": verdicts.level}
        return {"reward": reward, **counts, **reasons}


def answer_of(context: RewardContext) -> str:
    """The answer, and the white space before it, which may be its first line's indent."""
    before = context.generated_text.rpartition(context.answer)[0] if context.answer else ""
    return before[len(before.rstrip(" \t")) :] + context.answer


def sandbox_used(rewards: Sequence[RewardConfig]) -> dict[str, Any]:
    """`sandbox()` where these rewards run programs; else empty."""
    if all(RewardRegistry.canonical(reward.name) != "code_execution" for reward in rewards):
        return {}
    return sandbox()


def sandbox() -> dict[str, Any]:
    """`{"sandbox": {"level": .., layer: what it does}}`: how programs are isolated here, for manifests."""
    found = available()
    return {"sandbox": {"level": found.level, **found.layers}}
