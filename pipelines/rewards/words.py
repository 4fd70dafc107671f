"""Words of any script, how much a text repeats itself, and phrases found at word boundaries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

MAX_CHARACTERS = 1_000_000
"""Rewards on words read this much of a text; no completion that is worth a look is longer."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['\u2019][^\W_{_UNSPACED}]+)*")


def words(text: str) -> list[str]:
    """Case-folded words; each character of Chinese and Japanese, which put no spaces between words, is one."""
    return _WORD.findall(text[:MAX_CHARACTERS].casefold())


def ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Every run of `size` neighbours."""
    return list(zip(*(tokens[start:] for start in range(size)), strict=False))


def repeated_share(text: str, size: int) -> float:
    """The share of n-grams of words that occurred before: 1 - distinct / all; 0 for fewer than `size` words."""
    runs = ngrams(words(text), size)
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def phrase_hits(text: str, phrases: Sequence[str]) -> list[str]:
    """Each phrase as often as it occurs, whole words only, whatever the case and white space."""
    if not phrases:
        return []
    return [" ".join(hit.split()).casefold() for hit in _pattern(tuple(phrases)).findall(text[:MAX_CHARACTERS])]


@lru_cache(maxsize=64)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Longer phrases first, so that each place counts once; no boundary where a phrase itself ends in no word."""
    ordered = sorted(phrases, key=len, reverse=True)
    return re.compile("|".join(_bounded(phrase) for phrase in ordered if phrase.strip()) or r"(?!)", re.IGNORECASE)


def _bounded(phrase: str) -> str:
    body = r"\s+".join(map(re.escape, phrase.split()))
    stripped = phrase.strip()
    before = r"(?<!\w)" if re.match(r"\w", stripped) and not re.match(f"[{_UNSPACED}]", stripped) else ""
    after = r"(?!\w)" if re.match(r"\w", stripped[-1]) and not re.match(f"[{_UNSPACED}]", stripped[-1]) else ""
    return f"{before}{body}{after}"
