"""Words of any script, how much a text repeats itself, and phrases found at word boundaries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

MAX_CHARACTERS = 500_000
"""Rewards on words read this much of a text; no completion that is worth a look is longer."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NO_SPACES = _UNSPACED + "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Besides these Thai, Lao, Burmese and Khmer, whose words are longer than a character."""
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:'[^\W_{_UNSPACED}]+)*")


def words(text: str) -> list[str]:
    """Case-folded words; each character of Chinese and Japanese, which put no spaces between words, is one.

    Signs and emoji are no words. An apostrophe within a word is part of it, whatever its kind.
    """
    text = text[:MAX_CHARACTERS]
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(text.casefold().replace("\u2019", "'"))


def ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Every run of `size` neighbours."""
    return list(zip(*(tokens[start:] for start in range(size)), strict=False))


def repeated_share(text: str, size: int) -> float:
    """The share of n-grams of words that occurred before: 1 - distinct / all; 0 for fewer than `size` words."""
    runs = ngrams(words(text), size)
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def phrase_hits(text: str, phrases: Sequence[str]) -> list[str]:
    """Each phrase as often as it occurs, whole words only, whatever the case, white space and kind of apostrophe."""
    text = text[:MAX_CHARACTERS]
    if not phrases or (text.isascii() and _without(text.lower(), tuple(phrases))):
        return []
    found = _pattern(tuple(phrases)).findall(text)
    return [" ".join(hit.split()).replace("\u2019", "'").casefold() for hit in found]


def _without(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether not even one word of any phrase is in an ASCII text: usual, and found sooner than by the pattern."""
    return not any(word in text for word in _telling(phrases))


@lru_cache(maxsize=64)
def _telling(phrases: tuple[str, ...]) -> tuple[str, ...]:
    """The longest word of each phrase, apostrophes left out; nothing, which is in every text, beyond ASCII."""
    longest = (max(phrase.replace("'", " ").split() or [""], key=len) for phrase in phrases if phrase.strip())
    return tuple(word.lower() if word.isascii() else "" for word in longest)


@lru_cache(maxsize=64)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Longer phrases first, so that each place counts once; no boundary where a phrase itself ends in no word."""
    ordered = sorted(phrases, key=len, reverse=True)
    return re.compile("|".join(_bounded(phrase) for phrase in ordered if phrase.strip()) or r"(?!)", re.IGNORECASE)


def _bounded(phrase: str) -> str:
    body = r"\s+".join(map(re.escape, phrase.split())).replace("'", "['\u2019]")
    stripped = phrase.strip()
    before = r"(?<![^\W_])(?<!\w['\u2019])" if _ends_in_word(stripped[0]) else ""
    after = r"(?![^\W_]|['\u2019]\w)" if _ends_in_word(stripped[-1]) else ""
    return f"{before}{body}{after}"


def _ends_in_word(character: str) -> bool:
    """Whether a word of a script that puts spaces between words begins or ends with this."""
    return re.match(rf"(?![{_NO_SPACES}])\w", character) is not None
