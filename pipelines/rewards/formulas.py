r"""Which texts are formulas that `equivalence` may compute with, and how they are spelled for it.

What a model writes goes to a computer algebra system here, so only what it handles in little time is let through: up
to MAX_CHARACTERS, the commands below and no others, no factorials, no words, short numbers, small exponents, none on
top of another, few brackets within brackets. Everything else is compared as text, as without the package.
"""

from __future__ import annotations

import re
from math import prod

MAX_CHARACTERS = 200
MAX_DIGITS = 12
"""Of one number."""
MAX_EXPONENT = 20
MAX_EXPANDED = 24
"""The product of all exponents of what stands in brackets: the degree that multiplying out may come to."""
MAX_DEPTH = 6
MAX_UNKNOWNS = 6

_SPACING = {"left", "right", "displaystyle", "quad", "qquad"}
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi varphi chi psi"
)
_MEANING = (
    "frac dfrac tfrac cfrac sqrt pi cdot times div pm mp infty cup cap in le leq ge geq lt gt ne neq emptyset "
    "varnothing sin cos tan cot sec csc arcsin arccos arctan ln log exp omega Delta Omega lbrace rbrace mathbb "
    + _GREEK
)
COMMANDS = _SPACING | set(_MEANING.split())

_FENCES = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SPELLED = {"\u2212": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u03c0": r"\pi ", "\u221e": r"\infty "}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPACES = re.compile(r"\\[,!;: ]|~")
_ALLOWED = re.compile(r"[A-Za-z0-9\s.,;+\-*/^_()\[\]{}|=<>]*")
_WORD = re.compile(r"[A-Za-z]{3}")
_LETTER = re.compile(r"[A-Za-z]")
_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_POWER = re.compile(r"([)\]}|]?)\s*\^\s*(\{[^{}^]*(?:\{[^{}^]*\}[^{}^]*)*\}|-?\d+(?!\d)|[A-Za-z])(?!\s*\^)")
_SIGN = re.compile(r"[-+*/^=<>|\\\d]")
_OPENING, _CLOSING = "([{", ")]}"


def formula(text: str) -> str | None:
    """The text in LaTeX without fences around it, or None if it is none that may be computed with."""
    text = _bare(text)
    if not text or len(text) > MAX_CHARACTERS:
        return None
    for sign, command in _SPELLED.items():
        text = text.replace(sign, command)
    text = _SPACES.sub(" ", text)
    shape = text.replace(r"\{", "(").replace(r"\}", ")")
    commands = _COMMAND.findall(shape)
    if not COMMANDS.issuperset(commands):
        return None
    without = _COMMAND.sub(" ", shape)
    if not _ALLOWED.fullmatch(without) or _WORD.search(without) or _NUMBER.search(without):
        return None
    if len(set(_LETTER.findall(without))) > MAX_UNKNOWNS or _depth(without) > MAX_DEPTH or not _small_powers(shape):
        return None
    return text


def is_worked(text: str) -> bool:
    """Whether a formula is more than a word (`no`), and more than numbers and signs, which may be a date (`3-5`)."""
    if _LETTER.search(text):
        return bool(_SIGN.search(text))
    return "," in text and any(bracket in text for bracket in _OPENING)


def _bare(text: str) -> str:
    text = text.strip().rstrip(".").rstrip()
    for opening, closing in _FENCES:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
            return text[len(opening) : -len(closing)].strip().rstrip(".")
    return text


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        depth += (sign in _OPENING) - (sign in _CLOSING)
        deepest = max(deepest, depth)
    return deepest


def _small_powers(text: str) -> bool:
    """Every `^` has an exponent without another `^`, whose numbers are small; so is what multiplying out comes to."""
    found = list(_POWER.finditer(text))
    if len(found) != text.count("^"):
        return False
    largest = [max(map(int, re.findall(r"\d+", power[2])), default=1) for power in found]
    degrees = [number for number, power in zip(largest, found, strict=True) if power[1] and number]
    return max(largest, default=0) <= MAX_EXPONENT and prod(degrees) <= MAX_EXPANDED
