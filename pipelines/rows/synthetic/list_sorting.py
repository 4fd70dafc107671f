"""Sorting a list of numbers, by taking what comes next again and again."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

from pydantic import Field

from pipelines.config import Section
from pipelines.rows.synthetic.base import Example, NumberedTask, thought
from pipelines.rows.synthetic.draws import Draw, multiset

DIRECTIONS = {"ascending": "smallest to largest", "descending": "largest to smallest"}


class ListSorting(NumberedTask):
    """A difficulty of d gives d + 2 numbers. The same numbers are never asked twice, in whatever order."""

    name = "list_sorting"
    checked_by = "exact_match"
    hardest = 8

    class Options(Section):
        order: Literal["ascending", "descending", "either"] = "ascending"
        """From smallest to largest, from largest to smallest, or now one and now the other."""
        largest: int = Field(default=99, ge=9, le=9999)
        """Numbers are from 0 to this one."""

    settings: Options

    @property
    def size(self) -> int:
        return comb(self.settings.largest + self._count, self._count)

    def example(self, index: int, draw: Draw) -> Example:
        numbers = draw.shuffled(multiset(index, self._count))
        order = draw.pick(list(DIRECTIONS)) if self.settings.order == "either" else self.settings.order
        answer = sorted(numbers, reverse=order == "descending")
        prompt = f"Sort these numbers from {DIRECTIONS[order]}: {listed(numbers)}"
        return Example(prompt, thought(_steps(numbers, answer), listed(answer)), {"numbers": numbers, "order": order})

    @property
    def _count(self) -> int:
        return self.difficulty + 2


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _steps(numbers: Sequence[int], answer: Sequence[int]) -> str:
    """What is taken, then what is left: `3: 9 5; 5: 9; 9`."""
    left, steps = list(numbers), list[str]()
    for number in answer:
        left.remove(number)
        steps.append(f"{number}: {' '.join(map(str, left))}" if left else str(number))
    return "; ".join(steps)
