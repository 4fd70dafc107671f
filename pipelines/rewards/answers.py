r"""Where the answer is in a text, and when two answers are the same.

Final answer: what the last `\boxed{...}` or `#### ...` holds; else what follows the last "answer is" or "answer:";
else the text itself. A line of words behind `####` that has more text below it is a heading and marks nothing.

A number is read from the answer exactly (fractions, no floats) if it is one, or if it is the only number in its last
line ("so she pays 12 dollars", "5 + 7 = 12"), where it may stand twice but not more often. Several different numbers
are no answer, and neither is a number within a formula: `\sqrt{2}`, `x + 2`, `2\pi`, `(x, 2)` and `2:1` are texts.
A number may touch the words beside it (a unit, a particle) in scripts other than Latin, Greek and Cyrillic, where
`2x` and `2cm` are texts too.

Units: `$5` and `5`, `50%` and `50`, `90^\circ` and `90` are the same number; `$5` and `5%` are not, and a percent is
never divided by 100, so `50%` is not `0.5`. Unit words beside a lone number are ignored only when the reference is a
bare number. Words are not understood: "42 million" is 42 with a unit word, and "forty-two" is a text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pipelines.rewards.spelling import MAX_NORMALISED, WRAPPERS, normalised, plain

MAX_DIGITS = 1000
"""Longer literals are compared as text: exact arithmetic on them costs more than it tells."""
MAX_SEARCHED = 100_000
"""How many characters of the end of a text are searched for marks."""

MAX_MENTIONS = 2
"""A number that stands in the last line more often than this is babble, not an answer."""

CURRENCY = "$€£¥₹"
_LITERAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[+-]?\d{1,3})?|\.\d+(?:e[+-]?\d{1,3})?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]\s?)?(?P<before>[{CURRENCY}]\s?)?(?P<inner>[+-])?"
    rf"(?:(?P<whole>\d+)\s(?=\d+/\d))?(?P<top>{_LITERAL})(?:\s?/\s?(?P<bottom>{_LITERAL}))?"
    rf"(?:\s?(?P<after>[%°{CURRENCY}]))?",
    re.IGNORECASE,
)
_STUCK = r"\d_A-Za-zµÀ-ÖØ-öø-ԯπ"
"""What makes a number part of a word. Other scripts set their words and particles right beside numbers."""
_MYRIADS = "十百千万萬亿億兆"
_IN_TEXT = re.compile(rf"(?<![{_STUCK}.,/^])(?:{_NUMBER.pattern})(?![{_STUCK}{_MYRIADS}/^]|[.,]\d)", re.IGNORECASE)
_PHRASE = re.compile(r"\banswer[*_\"`]*(?:\s+is\b|\s*[:=])\s*:?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_HEADING = re.compile(r"[*_ \t]*(?:\d+[.)][ \t]+[*_]*)?[^\W\d_]{2}")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_QUOTES = WRAPPERS.replace(".", "")
_MINUS = re.compile(rf"\b(?:minus|negative)\s+(?=[{CURRENCY}]?\d)", re.IGNORECASE)

_TIED_BEFORE = re.compile(
    rf"""(?: [\u00d7·÷√±≤≥≠∈^_/] \s* [(\[{{|]?              # a sign that takes what follows
          | \\[A-Za-z]+ \s* [(\[{{|]?                   # a function, such as \log
          | \d \s* [:x] \s*                             # 3:4, 3 x 4
          | (?: \b[A-Za-z] | \d\w* | [)\]}}π] ) \s* [-+*] \s*    # n - 4, 2n + 4
          | \w (?: \s+[-+*]\s+ | [-+*] )                # total - 4, item-4, but not: is -4, is *4*
          | [(\[{{] [^()\[\]{{}}]* , \s* | }} \s* {{       # (n, 4 and \binom{{n}}{{4}}
        ) [{CURRENCY}]? $""",
    re.VERBOSE,
)
_TIED_AFTER = re.compile(
    r"""[)\]}|]? (?: \( | \s* [\u00d7·÷√π^\\] | \s* [:x] \s* \d | \s* [-+*/] \s* (?: \d | [A-Za-z]\b | [(\\√π] ) )
        | \| \w | \s* , [^()\[\]{}]* [)\]}]             # 4 + n, 4\theta, 4 x 3, |4|n, 4, n)""",
    re.VERBOSE,
)
MAX_BESIDE = 40
"""How many characters on either side of a number tell whether it is part of a formula."""


@dataclass(frozen=True)
class Number:
    """An exact value and the sign of its unit: "%", "°", "$" and the like, or "" when none is written."""

    value: Fraction
    unit: str = ""

    def same_as(self, other: Number) -> bool:
        return self.value == other.value and (self.unit == other.unit or not self.unit or not other.unit)


def same_answer(answer: str, reference: str) -> bool:
    """Whether an answer is the reference's: as exact numbers if the reference is one, else as normalised texts."""
    if not reference.strip() or not answer.strip():
        return False
    if answer.strip() == reference.strip():
        return True
    wanted, number = marked(reference), wanted_number(reference)
    if number is not None:
        found = final_number(answer)
        return found is not None and found.same_as(number)
    given = {plain(answer), plain(marked(answer) or answer)}
    return not given.isdisjoint({plain(reference), plain(wanted or reference)} - {""})


def wanted_number(reference: str) -> Number | None:
    """The number a reference is, or that its mark holds; None where it is a text."""
    wanted = marked(reference)
    number = read_number(normalised(reference if wanted is None else wanted))
    return number if number or wanted is None else lone_number(wanted)


def final_number(text: str) -> Number | None:
    """The number a text gives as its answer; None if it gives none or several."""
    answer = marked(text)
    answer = text if answer is None else answer
    return read_number(normalised(answer)) or lone_number(answer)


def marked(text: str) -> str | None:
    r"""What the last mark holds: \boxed{...} and #### before "answer is"; None without a mark."""
    tail = text[-MAX_SEARCHED:].rstrip()
    boxed, hashes = tail.rfind(r"\boxed"), _last_hashes(tail)
    if boxed > hashes:
        return _braced(tail, boxed + len(r"\boxed"))
    if hashes >= 0:
        return tail[hashes:].lstrip("#").strip().partition("\n")[0]
    ends = [phrase.end() for phrase in _PHRASE.finditer(tail)]
    if not ends:
        return None
    line = tail[ends[-1] :].strip().partition("\n")[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0] or None


def _last_hashes(text: str) -> int:
    """Where the last #### is that marks an answer, else -1: words with more text below them are a heading."""
    at = text.rfind("####")
    while at >= 0:
        start = at + len("####")
        if not _HEADING.match(text, start) or text.find("\n", start) < 0:
            return at
        at = text.rfind("####", 0, at)
    return -1


def _braced(text: str, start: int) -> str:
    """The inside of the balanced braces at `start`; up to the end if they are never closed."""
    opening = text.find("{", start)
    if opening < 0 or text[start:opening].strip():
        return text[start:].strip().partition(" ")[0]
    depth = 0
    for position in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[opening + 1 : position].strip()
    return text[opening + 1 :].strip()


def read_number(text: str) -> Number | None:
    """The whole of a normalised text as a number, whatever quotes, emphasis or full stop surround it."""
    text = text.strip(_QUOTES).rstrip(".").strip(_QUOTES)
    if len(text) > MAX_DIGITS:
        return None
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    match = _NUMBER.fullmatch(text)
    return _value(match) if match else None


def lone_number(text: str) -> Number | None:
    """The only number of the last line, behind its last equals sign if it has one; None if there are others.

    A number that is tied to something else by a sign, a command, a ratio or a list of a formula is none of ours.
    """
    line = last_line(text).rpartition("=")[2]
    if len(line) > MAX_NORMALISED:
        return None
    line = _MINUS.sub("-", normalised(line))
    found: list[Number] = []
    for match in _IN_TEXT.finditer(line):
        number = None if _in_formula(line, match) else _value(match)
        if number is None or len(found) == MAX_MENTIONS or (found and not number.same_as(found[0])):
            return None
        found.append(number)
    return found[0] if found else None


def last_line(text: str) -> str:
    """The last line that has a letter or a digit, so that a closing fence is none; "" without one."""
    lines = text[-MAX_SEARCHED:].rstrip().split("\n")
    return next((line for line in reversed(lines) if _LETTER_OR_DIGIT.search(line)), "")


def _in_formula(line: str, number: re.Match[str]) -> bool:
    digits = number.start("whole" if number["whole"] else "top")
    before, after = line[max(0, digits - MAX_BESIDE) : digits], line[number.end() : number.end() + MAX_BESIDE]
    return bool(_TIED_BEFORE.search(before) or _TIED_AFTER.match(after))


def _value(match: re.Match[str]) -> Number | None:
    """Exact value of a match, None for a division by zero or more digits than exact arithmetic should see."""
    if len(match[0]) > MAX_DIGITS:
        return None
    top, bottom = _literal(match["top"]), _literal(match["bottom"] or "1")
    if bottom == 0:
        return None
    value = int(match["whole"] or 0) + top / bottom
    negative = ((match["sign"] or "").strip() == "-") != (match["inner"] == "-")
    return Number(-value if negative else value, (match["before"] or match["after"] or "").strip())


def _literal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip(".") or "0")
