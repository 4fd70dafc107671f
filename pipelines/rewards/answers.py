r"""Where the answer is in a text, and when two answers are the same.

Final answer: what the last `\boxed{...}` or `#### ...` holds; else what follows the last "answer is" or "answer:";
else the text itself. A number is read from it exactly (fractions, no floats) if it is one, or if it is the only
number in its last line ("so she pays 12 dollars", "5 + 7 = 12"), where it may stand twice but not more often. Several
different numbers are no answer.

Units: `$5` and `5`, `50%` and `50` are the same number; `$5` and `5%` are not, and a percent is never divided by 100,
so `50%` is not `0.5`. Unit words beside a lone number are ignored only when the reference is a bare number.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 1000
"""Longer literals are compared as text: exact arithmetic on them costs more than it tells."""
MAX_NORMALISED = 4096
"""Longer texts are compared word by word as they are: Unicode normalisation can take quadratic time."""
MAX_SEARCHED = 100_000
"""How many characters of the end of a text are searched for marks."""

MAX_MENTIONS = 2
"""A number that stands in the last line more often than this is babble, not an answer."""

CURRENCY = "$€£¥₹"
_LITERAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[+-]?\d{1,3})?|\.\d+(?:e[+-]?\d{1,3})?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]\s?)?(?P<before>[{CURRENCY}]\s?)?(?P<inner>[+-])?"
    rf"(?:(?P<whole>\d+)\s(?=\d+/\d))?(?P<top>{_LITERAL})(?:\s?/\s?(?P<bottom>{_LITERAL}))?"
    rf"\s?(?P<after>[%{CURRENCY}])?",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(rf"(?<![\w.,/^])(?:{_NUMBER.pattern})(?![\w/^]|[.,]\d)", re.IGNORECASE)
_PHRASE = re.compile(r"\banswer(?:\s+is\b|\s*[:=])\s*:?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)(\d))")
_LATEX = {r"\left": "", r"\right": "", r"\,": "", r"\!": "", r"\;": " ", "{,}": ",", r"\$": "$", r"\%": "%"}
_MATH_FENCES = (r"\(", r"\)", r"\[", r"\]")
_WRAPPERS = " \t\n*_`\"'.,;:!?\u2018\u2019\u201c\u201d\u00ab\u00bb\u3001\u3002\uff01\uff0c\uff1f"
_QUOTES = _WRAPPERS.replace(".", "")
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_SIGNS = {ord(dash): "-" for dash in _DASHES} | {0x066B: ".", 0x066C: ",", 0x2044: "/"}
_RAISED = {ord(digit): f"^{value}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_LOWERED = {ord(digit): f"_{value}" for value, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")}
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SPACED_THOUSANDS = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_PUNCTUATION_SPACE = re.compile(r"\s*([,;:=()\[\]{}])\s*")


@dataclass(frozen=True)
class Number:
    """An exact value and the sign of its unit: "%", "$" and the like, or "" when none is written."""

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
    wanted = marked(reference)
    number = read_number(normalised(reference if wanted is None else wanted))
    if number is None:
        number = None if wanted is None else lone_number(wanted)
    if number is not None:
        found = final_number(answer)
        return found is not None and found.same_as(number)
    given = {plain(answer), plain(marked(answer) or answer)}
    return not given.isdisjoint({plain(reference), plain(wanted or reference)} - {""})


def final_number(text: str) -> Number | None:
    """The number a text gives as its answer; None if it gives none or several."""
    answer = marked(text)
    answer = text if answer is None else answer
    return read_number(normalised(answer)) or lone_number(answer)


def marked(text: str) -> str | None:
    r"""What the last mark holds: \boxed{...} and #### before "answer is"; None without a mark."""
    tail = text[-MAX_SEARCHED:]
    boxed, hashes = tail.rfind(r"\boxed"), tail.rfind("####")
    if boxed > hashes:
        return _braced(tail, boxed + len(r"\boxed"))
    if hashes >= 0:
        return tail[hashes:].lstrip("#").strip().partition("\n")[0]
    ends = [phrase.end() for phrase in _PHRASE.finditer(tail)]
    if not ends:
        return None
    line = tail[ends[-1] :].strip().partition("\n")[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0] or None


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


def normalised(text: str) -> str:
    """One spelling for what looks the same: width, minus signs, LaTeX commands, thousands spaces, vulgar fractions."""
    text = text.strip()
    if len(text) > MAX_NORMALISED:
        return text
    if not text.isascii():
        text = _SPACED_THOUSANDS.sub(",", text).translate(_SIGNS | _RAISED | _LOWERED)
        text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]), text)
        text = unicodedata.normalize("NFKC", text).translate(_SIGNS).strip()
    for command, meaning in _LATEX.items():
        text = text.replace(command, meaning)
    for fence in _MATH_FENCES:
        text = text.replace(fence, "")
    return _FRACTION.sub(_slashed, text).strip()


def _slashed(fraction: re.Match[str]) -> str:
    top, bottom = (fraction[1], fraction[2]) if fraction[3] is None else (fraction[3], fraction[4])
    return f" {top.strip()}/{bottom.strip()}"


def plain(text: str) -> str:
    """A text for comparing words: normalised, case folded, one space between words, no punctuation around it."""
    folded = " ".join(normalised(text).casefold().split())
    if len(folded) > MAX_NORMALISED:
        return folded
    return _PUNCTUATION_SPACE.sub(r"\1", folded).strip(_WRAPPERS)


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
    """The only number of the last line, behind its last equals sign if it has one; None if there are others."""
    line = text.rstrip().rpartition("\n")[2].rpartition("=")[2]
    if len(line) > MAX_NORMALISED:
        return None
    found: list[Number] = []
    for match in _IN_TEXT.finditer(normalised(line)):
        number = _value(match)
        if number is None or len(found) == MAX_MENTIONS or (found and not number.same_as(found[0])):
            return None
        found.append(number)
    return found[0] if found else None


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
