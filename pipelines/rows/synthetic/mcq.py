"""Multiple choice: which number is divisible by 7?"""

from __future__ import annotations

from math import comb
from string import ascii_uppercase

from pydantic import Field

from pipelines.config import Section
from pipelines.rows.synthetic.base import Example, NumberedTask, thought
from pipelines.rows.synthetic.draws import Draw, subset

DIVISORS = range(3, 10)


class Mcq(NumberedTask):
    """A difficulty of d gives numbers of d + 1 digits, one of which the divisor divides.

    The same choice of numbers is never asked twice for a divisor, in whatever order.
    """

    name = "mcq"
    checked_by = "mcq_accuracy"
    hardest = 6

    class Options(Section):
        choices: int = Field(default=4, ge=2, le=10)
        """How many numbers there are to choose from."""

    settings: Options

    @property
    def size(self) -> int:
        return sum(self._multiples(divisor) * self._wrong_sets(divisor) for divisor in DIVISORS)

    def example(self, index: int, draw: Draw) -> Example:
        divisor, right, wrong = self._numbers(index)
        numbers = draw.shuffled([right, *wrong])
        letters = ascii_uppercase[: len(numbers)]
        options = "\n".join(f"{letter}) {number}" for letter, number in zip(letters, numbers, strict=True))
        prompt = f"Which number is divisible by {divisor}?\n{options}"
        letter = letters[numbers.index(right)]
        meta = {"options": list(map(str, numbers)), "correct_letters": [letter], "divisor": divisor}
        return Example(prompt, thought(", ".join(_divided(number, divisor) for number in numbers), letter), meta)

    def _numbers(self, index: int) -> tuple[int, int, list[int]]:
        """The divisor, its multiple and the other numbers: the index counts through all of them."""
        divisor = DIVISORS[0]
        while index >= (size := self._multiples(divisor) * self._wrong_sets(divisor)):
            index, divisor = index - size, divisor + 1
        place, wrong = divmod(index, self._wrong_sets(divisor))
        right = (self._below // divisor + 1 + place) * divisor
        skipped = self._below - self._below // divisor
        others = [_not_divisible(skipped + number, divisor) for number in subset(wrong, self.settings.choices - 1)]
        return divisor, right, others

    @property
    def _below(self) -> int:
        """The largest number that is too short."""
        return 10**self.difficulty - 1

    def _multiples(self, divisor: int) -> int:
        return (10 * self._below + 9) // divisor - self._below // divisor

    def _wrong_sets(self, divisor: int) -> int:
        return comb(9 * (self._below + 1) - self._multiples(divisor), self.settings.choices - 1)


def _not_divisible(index: int, divisor: int) -> int:
    """1, 2, 4, 5, 7, ... for 3: the index-th number that the divisor does not divide."""
    return index + index // (divisor - 1) + 1


def _divided(number: int, divisor: int) -> str:
    """`63=7*9` or `65=7*9+2`."""
    quotient, remainder = divmod(number, divisor)
    return f"{number}={divisor}*{quotient}" + (f"+{remainder}" if remainder else "")
