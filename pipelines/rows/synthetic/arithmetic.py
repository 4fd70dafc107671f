"""The built-in task: sums, differences and products, worked digit by digit in `<think>`, then the answer alone.

Every step of the working is a small table look-up with its carry written out, and has a fixed width
(`7+8=15,4+3+1=08`), so that a character-level model of half a million parameters can learn it.
`python -m pipelines.rows.synthetic.arithmetic data/arithmetic` writes the bundled files again, byte for byte.
"""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pipelines.rows.synthetic.base import Example, Task, refuse_scarcity

Operation = Literal["addition", "subtraction", "multiplication"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
SYMBOLS: dict[Operation, str] = {"addition": "+", "subtraction": "-", "multiplication": "*"}

SHARES: dict[Operation, float] = {"addition": 0.45, "subtraction": 0.35, "multiplication": 0.2}

SEED = 20_240
TRAIN_PROBLEMS: dict[Operation, int] = {"addition": 2_700, "subtraction": 2_700, "multiplication": 660}
"""Bounded by what exists: 4,095 unordered sums, 4,095 differences and 720 products of two-digit numbers.
Products, of which there are so few, stand in the training rows both ways round: 47*6 and 6*47."""
VAL_PROBLEMS: dict[Operation, int] = {"addition": 230, "subtraction": 230, "multiplication": 40}


class Arithmetic(Task):
    """A difficulty of d gives operands of d digits; the multiplier always has one."""

    name = "arithmetic"
    checked_by = "exact_match"
    hardest = 9

    def splits(self, train_rows: int, val_rows: int, seed: int) -> dict[str, Iterator[Example]]:
        _mix(train_rows + val_rows, self.difficulty)

        @cache
        def problems() -> dict[str, list[Problem]]:
            return synthetic_splits(train_rows, val_rows, self.difficulty, seed)

        def examples(split: str) -> Iterator[Example]:
            yield from map(example, problems()[split])

        return {"train": examples("train"), "val": examples("val")}


class Problem(NamedTuple):
    """Two operands in the order they are asked; the left one is the larger in a subtraction."""

    operation: Operation
    left: int
    right: int

    @property
    def identity(self) -> tuple[str, int, int]:
        """What makes two problems the same one: 47+38 is 38+47."""
        if self.operation == "subtraction":
            return self
        return self.operation, min(self.left, self.right), max(self.left, self.right)


def worked(problem: Problem) -> tuple[str, str]:
    """The prompt and its completion: `47+38=?` and `<think>7+8=15,4+3+1=08</think>85`.

    A product is worked through the digits of its larger factor, whichever stands first.
    """
    operation, left, right = problem
    factors = (max(left, right), min(left, right)) if operation == "multiplication" else (left, right)
    steps = {"addition": _add, "subtraction": _subtract, "multiplication": _multiply}[operation](*factors)
    answer = {"addition": left + right, "subtraction": left - right, "multiplication": left * right}[operation]
    return f"{left}{SYMBOLS[operation]}{right}=?", f"<think>{','.join(steps)}</think>{answer}"


def distinct_problems(operation: Operation, digits: int, seed: int) -> Iterator[Problem]:
    """Every problem with operands of so many digits once, in an order that only the seed decides.

    Multiplication takes a multiplier of one digit from 2 to 9.
    """
    draw = random.Random(f"{seed}:{operation}:{digits}")
    low, high = 10 ** (digits - 1), 10**digits - 1
    seen: set[tuple[str, int, int]] = set()
    while len(seen) < pool_size(operation, digits):
        left = draw.randint(low, high)
        right = draw.randint(2, 9) if operation == "multiplication" else draw.randint(low, high)
        if operation == "subtraction":
            left, right = max(left, right), min(left, right)
        problem = Problem(operation, left, right)
        if problem.identity not in seen:
            seen.add(problem.identity)
            yield problem


def pool_size(operation: Operation, digits: int) -> int:
    """How many distinct problems exist: n(n+1)/2 unordered pairs of n numbers, or their products with 2..9."""
    numbers = 9 * 10 ** (digits - 1)
    if operation != "multiplication":
        return numbers * (numbers + 1) // 2
    return numbers * 8 if digits > 1 else 36 + 8  # one digit: 2..9 among themselves, unordered, and 1 with each


def bundled_splits() -> dict[str, list[Problem]]:
    """The shipped train and validation problems; no problem is in both, whichever way round."""
    splits = _splits(TRAIN_PROBLEMS, VAL_PROBLEMS, digits=2, seed=SEED)
    products = [problem for problem in splits["train"] if problem.operation == "multiplication"]
    splits["train"] += [problem._replace(left=problem.right, right=problem.left) for problem in products]
    random.Random(SEED).shuffle(splits["train"])
    return splits


def synthetic_splits(train_rows: int, val_rows: int, digits: int, seed: int) -> dict[str, list[Problem]]:
    """So many distinct problems with operands of so many digits; DataError if there are not enough of them."""
    val, both = _mix(val_rows, digits), _mix(train_rows + val_rows, digits)
    train: dict[Operation, int] = {operation: both[operation] - val[operation] for operation in OPERATIONS}
    return _splits(train, val, digits, seed)


def _mix(rows: int, digits: int) -> dict[Operation, int]:
    """How many problems of each operation; where an operation has too few, the others step in."""
    mix: dict[Operation, int] = {}
    remaining = sorted(OPERATIONS, key=lambda operation: pool_size(operation, digits))
    available = sum(pool_size(operation, digits) for operation in OPERATIONS)
    refuse_scarcity(rows, available, f"arithmetic of difficulty {digits}")
    while remaining:
        share = SHARES[remaining[0]] / sum(SHARES[operation] for operation in remaining)
        operation = remaining.pop(0)
        wanted = round((rows - sum(mix.values())) * share)
        mix[operation] = min(wanted, pool_size(operation, digits))
    short = rows - sum(mix.values())  # the last one ran dry: an earlier one has room
    for operation in OPERATIONS:
        extra = min(short, pool_size(operation, digits) - mix[operation])
        mix[operation], short = mix[operation] + extra, short - extra
    return mix


def _splits(
    train: Mapping[Operation, int], val: Mapping[Operation, int], digits: int, seed: int
) -> dict[str, list[Problem]]:
    splits: dict[str, list[Problem]] = {"train": [], "val": []}
    for operation in OPERATIONS:
        problems = distinct_problems(operation, digits, seed)
        splits["val"] += islice(problems, val[operation])
        splits["train"] += islice(problems, train[operation])
    for problems in splits.values():
        random.Random(seed).shuffle(problems)
    return splits


def example(problem: Problem) -> Example:
    """The row, less what every row has."""
    return Example(*worked(problem), {"operation": problem.operation})


def write_bundled(directory: Path) -> None:
    """Write `train.jsonl` and `val.jsonl` into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, problems in bundled_splits().items():
        lines = "".join(json.dumps(example(problem)._asdict()) + "\n" for problem in problems)
        (directory / f"{split}.jsonl").write_text(lines, encoding="ascii", newline="\n")


def _digits(number: int) -> list[int]:
    """Units first."""
    return [int(digit) for digit in reversed(str(number))]


def _add(left: int, right: int) -> list[str]:
    """Units first; from the second place on, the carry of the place below is added, also when it is 0."""
    steps, carry = [], 0
    for place, (a, b) in enumerate(zip(_digits(left), _digits(right), strict=True)):
        total = a + b + carry
        steps.append(f"{a}+{b}{f'+{carry}' if place else ''}={total:02d}")
        carry = total // 10
    return steps


def _subtract(left: int, right: int) -> list[str]:
    """A digit that is too small borrows ten from the place above: `12-8=4,5-3-1=1` for 52-38."""
    steps, borrow, top = [], 0, len(str(left)) - 1
    for place, (a, b) in enumerate(zip(_digits(left), _digits(right), strict=True)):
        lent = a + 10 if a < b + borrow else a
        shown = f"{lent:02d}" if place < top else f"{lent}"
        steps.append(f"{shown}-{b}{f'-{borrow}' if place else ''}={lent - b - borrow}")
        borrow = int(lent > a)
    return steps


def _multiply(left: int, right: int) -> list[str]:
    """One product a digit, then the carry of the place below: `7*6=42,4*6=24,24+4=28` for 47*6."""
    steps, carry = [], None
    for digit in _digits(left):
        product = digit * right
        steps.append(f"{digit}*{right}={product:02d}")
        if carry is not None:
            steps.append(f"{product:02d}+{carry}={product + carry:02d}")
            product += carry
        carry = product // 10
    return steps


if __name__ == "__main__":
    write_bundled(Path(sys.argv[1]))
