"""Writing letters backwards."""

from __future__ import annotations

from string import ascii_lowercase

from pipelines.rows.synthetic.base import Example, NumberedTask, thought
from pipelines.rows.synthetic.draws import Draw

LETTERS = len(ascii_lowercase)


class StringReversal(NumberedTask):
    """A difficulty of d gives d + 3 letters; never a palindrome, for which the question would be the answer."""

    name = "string_reversal"
    checked_by = "exact_match"
    hardest = 12

    @property
    def size(self) -> int:
        """26**n texts of n letters, less the 26**ceil(n / 2) palindromes."""
        return LETTERS**self._front * (LETTERS**self._back - 1)

    def example(self, index: int, draw: Draw) -> Example:  # noqa: ARG002 - a text has one order only
        front, back = divmod(index, LETTERS**self._back - 1)
        start = _letters(front, self._front)
        mirrored = _number(start[: self._back])
        text = start + _letters(back + (back >= mirrored), self._back)[::-1]
        answer = text[::-1]
        prompt = f"Write these letters in reverse order: {text}"
        return Example(prompt, thought(f"{' '.join(text)}, {' '.join(answer)}", answer), {"text": text})

    @property
    def _back(self) -> int:
        return (self.difficulty + 3) // 2

    @property
    def _front(self) -> int:
        return self.difficulty + 3 - self._back


def _letters(number: int, count: int) -> str:
    """The number in base 26, as so many letters."""
    letters = ""
    for _ in range(count):
        number, digit = divmod(number, LETTERS)
        letters = ascii_lowercase[digit] + letters
    return letters


def _number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * LETTERS + ascii_lowercase.index(letter)
    return number
