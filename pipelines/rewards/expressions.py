r"""Arithmetic as people write it, read and computed exactly: whole numbers, + - * / and parentheses, nothing else.

    sum = product {(+ | -) product}      product = factor {(* | /) factor}      factor = number | - factor | ( sum )

Signs that look different and mean these are read too: a cross or \times, a division sign or \div, \frac{...}{...}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 1000
"""Characters of an expression; longer ones are refused unread. So no number has more digits, nor any result."""
DEEPEST = 50
"""Parentheses and minus signs within each other."""

_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_COMMANDS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": ""}
_SIGNS = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"})
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_ALLOWED = re.compile(r"[0-9\-+*/() ]*")


class NotArithmeticError(ValueError):
    """A text that is no such expression, or has no value."""


@dataclass(frozen=True)
class Expression:
    """The numbers that were written, in order, and the exact value."""

    numbers: tuple[int, ...]
    value: Fraction


def evaluate(text: str) -> Expression:
    """The expression that the whole text is. Raises NotArithmeticError."""
    if len(text) > LONGEST:
        raise NotArithmeticError(f"longer than {LONGEST} characters")
    plain = with_plain_signs(text)
    if not _ALLOWED.fullmatch(plain):
        raise NotArithmeticError("more than numbers, + - * / and parentheses")
    reader = _Reader(_TOKEN.findall(plain))
    value = reader.sum(0)
    if reader.next:
        raise NotArithmeticError(f"{reader.next!r} is out of place")
    return Expression(tuple(reader.numbers), value)


def with_plain_signs(text: str) -> str:
    """The same with the signs of a keyboard."""
    text, found = text.translate(_SIGNS), 1
    while found:  # the innermost fractions first
        text, found = _FRACTION.subn(r"((\1)/(\2))", text)
    for command, sign in _COMMANDS.items():
        text = text.replace(command, sign)
    return text.strip()


class _Reader:
    """Recursive descent, a method a rule of the grammar."""

    def __init__(self, tokens: list[str]) -> None:
        self.numbers: list[int] = []
        self._left = tokens[::-1]

    @property
    def next(self) -> str:
        return self._left[-1] if self._left else ""

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while self.next in ("+", "-"):
            sign = 1 if self._left.pop() == "+" else -1
            value += sign * self._product(depth)
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while self.next in ("*", "/"):
            divides = self._left.pop() == "/"
            factor = self._factor(depth)
            if divides and factor == 0:
                raise NotArithmeticError("division by zero")
            value = value / factor if divides else value * factor
        return value

    def _factor(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise NotArithmeticError(f"nested deeper than {DEEPEST}")
        sign = self.next
        if sign.isdigit():
            self.numbers.append(int(self._left.pop()))
            return Fraction(self.numbers[-1])
        if sign not in ("-", "("):
            raise NotArithmeticError(f"{sign!r} is out of place" if sign else "it ends too early")
        self._left.pop()
        if sign == "-":
            return -self._factor(depth + 1)
        value = self.sum(depth + 1)
        if self.next != ")":
            raise NotArithmeticError("a parenthesis is not closed")
        self._left.pop()
        return value
