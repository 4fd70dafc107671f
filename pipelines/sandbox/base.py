"""What the sandbox is asked and what it answers: tests, limits, verdicts."""

from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["basic", "medium", "strong"]
LEVELS: tuple[Level, ...] = ("basic", "medium", "strong")


@dataclass(frozen=True)
class AssertTest:
    """Python statements, run by the judge with the solution's names in reach; passes if nothing is raised."""

    code: str


@dataclass(frozen=True)
class CallTest:
    """A function of the solution, its arguments, and the value it must return.

    Without a `function` it is the last public one that the solution defines. Lists and tuples compare as equal, since
    the expected value comes from JSON; floats within 1e-9, relative or absolute.
    """

    arguments: tuple[Any, ...]
    expected: Any
    keywords: dict[str, Any] = field(default_factory=dict[str, Any])
    function: str | None = None


@dataclass(frozen=True)
class CheckTest:
    """Code that defines `check(candidate)`, called with the solution's `entry_point` (HumanEval)."""

    code: str
    entry_point: str | None = None


@dataclass(frozen=True)
class StdioTest:
    """A program's standard input and what it must print; white space at the ends of lines and text is no matter."""

    input: str
    expected: str


Test = AssertTest | CallTest | CheckTest | StdioTest


@dataclass(frozen=True)
class Limits:
    """What one answer may use. The clock is the wall's; the processor's is bounded by the same numbers."""

    test_seconds: float = 5.0
    """Of one test, and of loading the solution."""
    total_seconds: float = 30.0
    """Of all tests of one answer."""
    memory_mb: int = 512
    """Address space of the process beyond what the interpreter starts with."""
    file_mb: int = 16
    """Each file it writes, and all of them where they lie in memory."""
    output_kb: int = 1024
    """What a program may print, or one call of its functions."""
    message_kb: int = 16384
    """One value on its way between candidate and judge."""


@dataclass(frozen=True)
class Verdicts:
    """One answer's results, in the order of its tests."""

    passed: tuple[bool, ...]
    reasons: tuple[str, ...]
    """Empty where the test passed."""
    level: Level
    seconds: float
