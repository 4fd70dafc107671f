"""Countdown: make a target from a few numbers with + - * / and parentheses."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import comb
from typing import NamedTuple

from pydantic import Field

from pipelines.config import Section
from pipelines.rows.synthetic.base import Example, NumberedTask, thought
from pipelines.rows.synthetic.draws import Draw, multiset

LARGEST_VALUE = 999
"""Of the target, and of every result on the way to it."""


class Operator(NamedTuple):
    """A sign, what it computes, and the outermost signs of its left and right side that need parentheses."""

    sign: str
    compute: Callable[[int, int], int]
    left: str
    right: str


PLUS, MINUS = Operator("+", operator.add, "", ""), Operator("-", operator.sub, "", "+-")
TIMES, OVER = Operator("*", operator.mul, "+-", "+-"), Operator("/", operator.floordiv, "+-", "+-*/")


class Term(NamedTuple):
    """A value, the text that makes it, and the sign that stands outermost in the text."""

    value: int
    text: str
    sign: str = ""

    def within(self, signs: str) -> str:
        """The text, in parentheses if its sign is one of these."""
        return f"({self.text})" if self.sign and self.sign in signs else self.text


class Countdown(NumberedTask):
    """A difficulty of d gives d + 2 numbers. Each set of numbers is asked once, with one target that can be made."""

    name = "countdown"
    checked_by = "countdown"
    hardest = 6

    class Options(Section):
        largest: int = Field(default=50, ge=10, le=100)
        """Numbers are from 1 to this one."""
        use_all: bool = True
        """Whether each number must be used; else some may be left over."""

    settings: Options

    @property
    def size(self) -> int:
        return comb(self.settings.largest + self._count - 1, self._count)

    def example(self, index: int, draw: Draw) -> Example:
        numbers = draw.shuffled([number + 1 for number in multiset(index, self._count)])
        used = self._count if self.settings.use_all else 2 + draw.below(self._count - 1)
        solution, steps = combined(draw.shuffled(numbers)[:used], draw)
        listed = ", ".join(map(str, numbers))
        use = f"{listed} once each" if self.settings.use_all else f"some of {listed} at most once each"
        prompt = f"Use {use}, with + - * / ( ), to make {solution.value}"
        meta = {"numbers": numbers, "target": solution.value, "use_all": self.settings.use_all}
        return Example(prompt, thought(", ".join(steps), solution.text), meta)

    @property
    def _count(self) -> int:
        return self.difficulty + 2


def combined(numbers: Sequence[int], draw: Draw) -> tuple[Term, list[str]]:
    """Two of the numbers become one until one is left; the steps are written as `36-19=17`."""
    terms = [Term(number, str(number)) for number in numbers]
    steps: list[str] = []
    while len(terms) > 1:
        pair = [terms.pop(draw.below(len(terms))) for _ in range(2)]
        left, right = sorted(pair, key=lambda term: -term.value)
        way = draw.pick(_ways(left.value, right.value))
        value = way.compute(left.value, right.value)
        steps.append(f"{left.value}{way.sign}{right.value}={value}")
        terms.append(Term(value, f"{left.within(way.left)}{way.sign}{right.within(way.right)}", way.sign))
    return terms[0], steps


def _ways(a: int, b: int) -> list[Operator]:
    """What gives a whole number from 1 to LARGEST_VALUE, where a >= b: at least one always does."""
    possible = (
        (PLUS, a + b <= LARGEST_VALUE),
        (MINUS, a > b),
        (TIMES, b > 1 and a * b <= LARGEST_VALUE),
        (OVER, b > 1 and a % b == 0),
    )
    return [way for way, allowed in possible if allowed]
