"""The reward code_execution: forms of tests, what it says beside its number, and when it abstains."""

import pytest

from pipelines.config import RewardConfig
from pipelines.errors import ConfigError, DataError, SandboxError
from pipelines.rewards import RewardContext, RewardRegistry, code
from pipelines.rewards.code import read_test, sandbox_used, score_code
from pipelines.sandbox.base import AssertTest, CallTest, CheckTest, StdioTest
from pipelines.sandbox.isolation import TooWeakError, available

DOUBLE = "```python\ndef double(n):\n    return 2 * n\n```"
PASSING, FAILING = "assert double(2) == 4", "assert double(2) == 5"


def context(completion=DOUBLE, tests=(PASSING, FAILING)):
    return RewardContext(generated_text=completion, test_cases=tests)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("assert f(1) == 2", AssertTest("assert f(1) == 2")),
        ("f(1) == 2", AssertTest("assert (\nf(1) == 2\n)")),
        ("x = 1\nassert f(x) == 2", AssertTest("x = 1\nassert f(x) == 2")),
        ("\n    x = 1\n    assert f(x) == 2\n", AssertTest("x = 1\nassert f(x) == 2")),
        ("def check(candidate):\n    assert candidate(1)", CheckTest("def check(candidate):\n    assert candidate(1)")),
        ({"input": "3\n", "expected": "6"}, StdioTest("3\n", "6")),
        ({"input": "3\n", "expected": 6}, StdioTest("3\n", "6")),
        ({"input": [1, 2], "expected": 3}, CallTest((1, 2), 3)),
        ({"input": 7, "expected": None, "fn_name": "f"}, CallTest((7,), None, {}, "f")),
        ({"input": {"n": 7}, "expected": 14}, CallTest((), 14, {"n": 7})),
        ({"check": "def check(c): pass", "entry_point": "f"}, CheckTest("def check(c): pass", "f")),
    ],
)
def test_forms_of_a_test(case, expected):
    assert read_test(case) == expected


@pytest.mark.parametrize("case", [5, None, {"input": 1}, {"expected": 1}, [], "assert f(", "def"])
def test_what_is_no_test_is_an_error_of_the_data(case):
    with pytest.raises(DataError):
        read_test(case)


def test_the_fraction_of_tests_passed():
    assert score_code(DOUBLE, [PASSING, FAILING, "double('a') == 'aa'", "double(1)"]) == 0.75
    assert score_code("no code at all", [PASSING]) == 0.0
    assert score_code(DOUBLE, []) == 0.0


@pytest.mark.parametrize(
    ("case", "score"),
    [
        ({"input": [3], "expected": 6}, 1.0),
        ({"input": {"n": 3}, "expected": 6, "function": "double"}, 1.0),
        ({"input": [3], "expected": 6, "function": "treble"}, 0.0),
        ({"input": [0.15], "expected": 0.30000000000000004}, 1.0),
        ({"input": [[1]], "expected": [1, 1]}, 1.0),
        ({"check": "def check(candidate):\n    assert candidate(2) == 4", "entry_point": "double"}, 1.0),
        ("def check(candidate):\n    assert candidate(2) == 5", 0.0),
        ("def check(candidate):\n    assert candidate(2) == 4\ncheck(double)", 1.0),
    ],
)
def test_forms_of_a_test_at_work(case, score):
    assert score_code(DOUBLE, [case]) == score


def test_a_method_of_a_solution_class():
    text = "```python\nclass Solution:\n    def double(self, n):\n        return 2 * n\n```"
    call = {"input": [3], "expected": 6}
    check = {"check": "def check(candidate):\n    assert candidate(3) == 6", "entry_point": "Solution().double"}
    assert score_code(text, [call, call | {"fn_name": "double"}, check]) == 1.0


def test_each_test_has_its_reason():
    result = RewardRegistry.create("code_execution").compute(context())
    assert result["reward"] == 0.5
    assert (result["passed"], result["tests"]) == (1, 2)
    assert result["test 1"] == "passed"
    assert result["test 2"] == f"{FAILING}: AssertionError"
    assert result["isolation"] in ("basic", "medium", "strong")


def test_all_or_nothing():
    reward = RewardRegistry.create("code_execution", {"all_or_nothing": True})
    assert reward.compute(context())["reward"] == 0.0
    assert reward.compute(context(tests=(PASSING,)))["reward"] == 1.0


def test_without_tests_it_abstains_and_without_code_it_does_not():
    reward = RewardRegistry.create("code_execution")
    assert reward.compute(context(tests=())) is None
    assert reward.compute(context("I would rather not."))["reward"] == 0.0
    assert reward.compute(context(""))["reward"] == 0.0


def test_the_clock_comes_from_the_configuration():
    reward = RewardRegistry.create("code_execution", {"timeout_seconds": 0.5})
    result = reward.compute(context("def double(n):\n    while True:\n        pass\n", tests=(PASSING,)))
    assert (result["reward"], result["test 1"]) == (0.0, "timed out after 0.5 s")
    assert reward.time_limit_seconds > reward.limits.total_seconds


LIMITED = [
    ("memory_mb", 64, "def f(n):\n    return len(bytearray(200 << 20))\n", "assert f(1) == 200 << 20"),
    ("output_kb", 1, "print('x' * 3000)", {"input": "", "expected": "x" * 3000}),
    ("output_kb", 1, "def f(n):\n    print('x' * 3000)\n    return n\n", "assert f(1) == 1"),
    ("output_kb", 1, "print('x' * 3000)\ndef f(n):\n    return n\n", "assert f(1) == 1"),
    ("total_seconds", 0.4, "import time\ndef f(n):\n    time.sleep(0.3)\n    return n\n", "assert f(1) + f(2) == 3"),
]


@pytest.mark.parametrize(
    ("key", "value", "program", "test"),
    LIMITED,
    ids=["memory", "output", "output of a call", "output of a module", "time"],
)
def test_each_limit_comes_from_the_configuration(key, value, program, test):
    asked = context(program, tests=(test,))
    assert RewardRegistry.create("code_execution").compute(asked)["reward"] == 1.0
    assert RewardRegistry.create("code_execution", {key: value}).compute(asked)["reward"] == 0.0


@pytest.mark.parametrize(
    ("key", "value"), [("timeout_seconds", 0), ("memory_mb", 1), ("min_isolation", "iron"), ("time", 1)]
)
def test_a_wrong_key_or_value_is_named(key, value):
    with pytest.raises(ConfigError, match=f"config.{key}"):
        RewardRegistry.create("code_execution", {key: value})


def failing(times, error):
    """`run_tests` that fails so many times before it works."""
    left = [error] * times
    real = code.run_tests

    def run(*arguments, **keywords):
        if left:
            raise left.pop()
        return real(*arguments, **keywords)

    return run


def test_a_failure_of_the_sandbox_is_tried_again_once(monkeypatch):
    reward = RewardRegistry.create("code_execution")
    monkeypatch.setattr(code, "run_tests", failing(1, SandboxError("no process")))
    assert reward.compute(context())["reward"] == 0.5


def test_a_sandbox_that_goes_on_failing_makes_it_abstain(monkeypatch):
    reward = RewardRegistry.create("code_execution")
    monkeypatch.setattr(code, "run_tests", failing(2, SandboxError("no process")))
    assert reward.compute(context()) == {"reward": None, "sandbox_failure": "no process"}
    assert reward.compute(context())["reward"] == 0.5
    monkeypatch.setattr(code, "run_tests", failing(2, SandboxError("no process")))
    with pytest.raises(SandboxError):
        score_code(DOUBLE, [PASSING])


def test_too_little_isolation_is_loud(monkeypatch):
    def refuse(minimum):
        raise TooWeakError(f"{minimum} is asked for")

    monkeypatch.setattr(code, "at_least", refuse)
    with pytest.raises(TooWeakError, match="strong"):
        RewardRegistry.create("code_execution", {"min_isolation": "strong"}).compute(context())


def test_manifests_are_told_the_isolation_only_where_programs_run():
    assert sandbox_used([RewardConfig(name="exact_match")]) == {}
    found = sandbox_used([RewardConfig(name="exact_match"), RewardConfig(name="code_execution")])["sandbox"]
    assert found["level"] == available().level
    assert {"namespaces", "seccomp", "limits"} <= found.keys()
