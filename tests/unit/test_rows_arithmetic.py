"""The built-in task: every step of every row is right, and the shipped files are what the generator writes."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bundled import bundled
from pipelines.errors import DataError
from pipelines.rows.synthetic.arithmetic import (
    OPERATIONS,
    Problem,
    distinct_problems,
    pool_size,
    synthetic_splits,
    worked,
    write_bundled,
)

COMPUTE = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def evaluate(expression: str) -> int:
    """Left to right, as the steps are written; the leading zeros of `07-3` are not Python."""
    total, *rest = re.split(r"([-+*])", expression)
    value = int(total)
    for symbol, operand in zip(rest[::2], rest[1::2], strict=True):
        value = COMPUTE[symbol](value, int(operand))
    return value


def check(prompt: str, completion: str) -> None:
    thinking, answer = re.fullmatch(r"<think>(.+)</think>(\d+)", completion).groups()
    assert evaluate(prompt.removesuffix("=?")) == int(answer)
    for step in thinking.split(","):
        left, right = step.split("=")
        assert evaluate(left) == int(right), step


def test_known_workings():
    assert worked(Problem("addition", 47, 38)) == ("47+38=?", "<think>7+8=15,4+3+1=08</think>85")
    assert worked(Problem("subtraction", 52, 38)) == ("52-38=?", "<think>12-8=4,5-3-1=1</think>14")
    assert worked(Problem("multiplication", 47, 6)) == ("47*6=?", "<think>7*6=42,4*6=24,24+4=28</think>282")
    assert worked(Problem("multiplication", 6, 47)) == ("6*47=?", "<think>7*6=42,4*6=24,24+4=28</think>282")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_every_step_is_right(operation, digits):
    problems = distinct_problems(operation, digits, seed=3)
    for _, problem in zip(range(400), problems, strict=False):
        check(*worked(problem))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("digits", [1, 2])
def test_the_pool_is_drawn_whole_and_once(operation, digits):
    problems = list(distinct_problems(operation, digits, seed=0))
    assert len(problems) == len({problem.identity for problem in problems}) == pool_size(operation, digits)


def test_shipped_rows_are_right_disjoint_and_short():
    found: dict[str, set[tuple[str, ...]]] = {}
    for split in ("train", "val"):
        rows = [json.loads(line) for line in (bundled("arithmetic") / f"{split}.jsonl").read_bytes().splitlines()]
        for row in rows:
            check(row["prompt"], row["completion"])
            assert len(row["completion"]) <= 28 + len("<think></think>9999")
        asked = [re.split(r"([-+*])", row["prompt"].removesuffix("=?")) for row in rows]
        found[split] = {(s, a, b) if s == "-" else (s, *sorted((a, b))) for a, s, b in asked}
        assert len({row["prompt"] for row in rows}) == len(rows)
        mix = Counter(row["meta"]["operation"] for row in rows)
        assert set(mix) == set(OPERATIONS)
    assert len(found["val"]) == 500
    assert len(found["train"]) >= 5000
    assert not found["train"] & found["val"]


def test_shipped_files_are_what_the_generator_writes(tmp_path: Path):
    write_bundled(tmp_path)
    for name in ("train.jsonl", "val.jsonl"):
        assert (tmp_path / name).read_bytes() == (bundled("arithmetic") / name).read_bytes()


@given(train=st.integers(1, 3000), val=st.integers(0, 900), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=15)
def test_synthetic_splits_have_the_asked_sizes_and_share_nothing(train, val, seed):
    splits = synthetic_splits(train, val, 2, seed)
    assert {name: len(problems) for name, problems in splits.items()} == {"train": train, "val": val}
    identities = [problem.identity for problems in splits.values() for problem in problems]
    assert len(set(identities)) == train + val


def test_more_rows_than_problems_is_refused():
    everything = sum(pool_size(operation, 1) for operation in OPERATIONS)
    assert len(synthetic_splits(everything - 10, 10, 1, 0)["train"]) == everything - 10
    with pytest.raises(DataError, match=f"only {everything} problems"):
        synthetic_splits(everything, 1, 1, 0)
