"""Any text as a terminal or a page may show it: nothing in it moves a cursor, rings a bell or turns a line round.

A model writes whatever it likes, escape codes too; what is shown to a person goes through here first.
"""

from __future__ import annotations

import unicodedata

ELLIPSIS = "\u2026"
KEPT = frozenset("\n\t\u200c\u200d")
"""Line ends and tabs where lines are wanted, and the joiners that emoji and some scripts need."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories without a glyph: controls, directions and other formats, lone surrogates, private use."""
PICTURES, DELETE = 0x2400, 0x7F
WIDE = frozenset("WF")


class _Table(dict[int, str]):
    """`str.translate` asks for a character once; the answer is kept."""

    def __missing__(self, code: int) -> str:
        self[code] = shown = _shown(chr(code))
        return shown


def _shown(character: str) -> str:
    code = ord(character)
    if character in KEPT or unicodedata.category(character) not in UNSEEN:
        return character
    if code < ord(" "):
        return chr(PICTURES + code)
    return "\u2421" if code == DELETE else f"\\u{code:04x}"


_TABLE = _Table()


def visible(text: str) -> str:
    """The text with line ends and tabs; other controls as pictures (escape is U+241B) or by number."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def columns(text: str) -> int:
    """How many columns of a terminal a visible text takes: wide characters two, combining marks none."""
    return len(text) if text.isascii() else sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character) or character in KEPT:
        return 0
    return 2 if unicodedata.east_asian_width(character) in WIDE else 1


def cut(text: str, width: int) -> str:
    """The visible text in one line of at most `width` columns, with an ellipsis where the rest was."""
    line, whole = _line(text, width)
    return line if whole and columns(line) <= width else _head(line, width - 1) + ELLIPSIS


def excerpt(text: str, width: int) -> str:
    """The beginning and the end of a text, which is where the answer stands, in one line of at most `width` columns."""
    line, whole = _line(text, width)
    if whole and columns(line) <= width:
        return line
    end = _line(text[-8 * width :], width)[0][::-1]
    half = (width - 1) // 2
    return _head(line, width - 1 - half) + ELLIPSIS + _head(end, half)[::-1]


def _line(text: str, width: int) -> tuple[str, bool]:
    """White space as single spaces; only the start of a long text is looked at, and whether that was all of it."""
    start = text[: 8 * width]
    return visible(" ".join(start.split())), len(start) == len(text)


def _head(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:index]
    return text
