"""Reward for Countdown: does the expression use the given numbers and make the target?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pipelines.config import Section
from pipelines.rewards.answers import last_line, marked
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.expressions import LONGEST, NotArithmeticError, evaluate, with_plain_signs
from pipelines.rewards.registry import RewardRegistry

_AROUND = " \t\r\n$`*_."
_FENCES = re.compile(r"\\[()\[\]]")
_WHOLE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Puzzle:
    """The numbers, what they should make, and whether all of them must be used."""

    numbers: tuple[int, ...]
    target: int
    use_all: bool = True


def puzzle_of(meta: Mapping[str, Any]) -> Puzzle | None:
    """The puzzle in `meta`, None if there is none. Raises TypeError for values of other types: the data are wrong."""
    if "numbers" not in meta or "target" not in meta:
        return None
    numbers, target, use_all = meta["numbers"], meta["target"], meta.get("use_all", True)
    listed = list(cast("Sequence[object]", numbers)) if isinstance(numbers, (list, tuple)) else []
    if not listed or not all(type(number) is int and number >= 0 for number in listed):
        raise TypeError(f"meta.numbers must be a list of whole numbers that are not negative, not {numbers!r:.80}")
    if type(target) is not int or type(use_all) is not bool:
        raise TypeError(
            f"meta.target must be a whole number and meta.use_all a boolean, not {target!r:.40}, {use_all!r:.40}"
        )
    return Puzzle(tuple(cast("list[int]", listed)), target, use_all)


def expression_in(answer: str, target: int) -> str:
    r"""What a mark (\boxed, ####, "answer is") or else the last line claims, without `target =` or `= target`."""
    claimed = marked(answer)
    if claimed is None:
        claimed = last_line(answer) or answer
    claimed = _FENCES.sub("", claimed).strip(_AROUND)
    sides = claimed.split("=") if len(claimed) <= LONGEST else []
    if len(sides) == 2:
        for side, other in (sides, sides[::-1]):
            if _is(other, target):
                return side.strip(_AROUND)
    return claimed


def _is(text: str, number: int) -> bool:
    text = with_plain_signs(text)
    return _WHOLE.fullmatch(text) is not None and int(text) == number


@RewardRegistry.register("countdown")
class Countdown(BaseReward):
    """1 if the answer is an expression of `meta.numbers` that makes `meta.target`, else 0; abstains without these two.

    Each number may stand as often as it is given, and must, unless `meta.use_all` is false. The value is computed
    exactly, with fractions on the way; nothing is executed.
    """

    quick = True

    class Config(Section):
        """Nothing to set: the row says what counts."""

    def compute(self, context: RewardContext) -> RewardResult:
        puzzle = puzzle_of(context.meta)
        if puzzle is None:
            return None
        reason = fault(expression_in(context.answer, puzzle.target), puzzle)
        return {"reward": 0.0, "reason": reason} if reason else {"reward": 1.0}


def fault(expression: str, puzzle: Puzzle) -> str:
    """Why an expression does not solve the puzzle, or ""."""
    try:
        found = evaluate(expression)
    except NotArithmeticError as error:
        return f"no expression: {error}"
    used, given = Counter(found.numbers), Counter(puzzle.numbers)
    if too_often := used - given:
        return f"{next(iter(too_often))} is used more often than it is given"
    if puzzle.use_all and (unused := given - used):
        return f"{next(iter(unused))} is not used"
    return "" if found.value == puzzle.target else f"it makes {found.value}"
