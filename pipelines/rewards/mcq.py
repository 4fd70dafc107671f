"""Reward for multiple-choice questions: which letters does the answer choose?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal, cast

from pipelines.config import Section
from pipelines.rewards.answers import MAX_MENTIONS, last_line, marked
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry
from pipelines.rewards.spelling import plain

MAX_READ = 20_000
"""Characters of the end of an answer that are searched for letters."""

_DECORATION = re.compile(r"[*_`$\"\u201c\u201d]|\\(?:text|math)(?:rm|bf|it|tt)?\s*(?=\{)|[{}]")
_QUOTED = re.compile(r"(?<!\w)['\u2018]([A-Za-z])['\u2019](?!\w)")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_LIST = re.compile(r"[(\[]?[A-Za-z][)\].:]?(?:(?:\s*[,;&/+]\s*|\s+(?:and|or)\s+|\s+)[(\[]?[A-Za-z][)\].:]?)*")
_JOINED = re.compile(r"[A-Z]{2,}")
_OPTIONS_AGAIN = re.compile(r"[(\[]?A[)\].:]\s.*?^[ \t]*[(\[]?B[)\].:]\s", re.DOTALL | re.MULTILINE)
_LEADING = re.compile(r"[(\[]?([A-Z])(?:[)\]:.](?=\s|$)|,|[ \t]*\n|\s+[-\u2013\u2014]\s|\s+(?:because|since|as)\b)")
_BRACKETED = re.compile(r"(?<!\w)[(\[]?([A-Z])[)\]](?!\w)")
_NAMED = re.compile(r"\b(?i:option|choice|letter)\s+[(\[]?([A-Z])\b")
_CALLED_RIGHT = re.compile(r"\b([A-Z])\s+is\s+(?:the\s+)?(?:right|correct|best|answer|true)\b")
_CLOSING = re.compile(r"(?<![A-Za-z\d.'+#°-])([A-Z])[^\x00-\x7f]*[.!?]*$")
_NAMED_ALONE = re.compile(
    r"(?<![A-Za-z\d.'\u2019])(?:A(?! (?!or\b|and\b|nor\b)[a-z])|I(?! [a-z]|['\u2019])|[B-HJ-Z])(?![A-Za-z\d'\u2019])"
)
_NEGATED = re.compile(r"\b(?:not|nor|neither|never|except|but)\b|n['\u2019]t\b", re.IGNORECASE)
_IN_PROMPT = re.compile(r"^[ \t]*[(\[]?([A-Z])[)\].:][ \t]+(\S.*)$", re.MULTILINE)
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Question:
    """The options by letter, and the letters that are right."""

    options: Mapping[str, str]
    correct: frozenset[str]


def question_of(context: RewardContext) -> Question | None:
    """The question in `meta`, or in a prompt that lists lettered options from A on with a letter as its reference."""
    meta = context.meta
    options = _lettered(meta.get("options"))
    correct = _letters_of(meta.get("correct_letters")) or _letters_at(meta.get("correct_index"))
    if correct:
        return Question(options or dict.fromkeys(ascii_uppercase[:10], ""), correct)
    options = options or {letter: text.rstrip() for letter, text in _IN_PROMPT.findall(context.prompt_text)}
    letters = sorted(options)
    if len(letters) < 2 or letters != list(ascii_uppercase[: len(letters)]):
        return None
    correct = chosen(context.reference_answer or "", options)
    return Question(options, correct) if correct else None


def chosen(answer: str, options: Mapping[str, str]) -> frozenset[str]:
    """The letters that an answer chooses: behind its mark ("the answer is ..."), else anywhere; empty if unclear."""
    tail = answer[-MAX_READ:]
    tail = tail if tail.isascii() else tail.translate(_FULL_WIDTH)
    after_mark = marked(tail)
    for text in (after_mark, tail):
        if text is not None:
            found = _read(_QUOTED.sub(r"\1", _DECORATION.sub("", text)).strip(), options)
            if found:
                return found
    return _NOTHING


def _read(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """Letters alone; else the first of the following that there is.

    The last line, if it is nothing but letters; a leading letter, unless all options are listed again; letters in
    brackets, named "option B", or called right; the one option's text; the letter that closes the last line.
    """
    alone = _letters(text, options)
    if alone is not None:
        return alone
    last = last_line(text)
    leading = None if _OPTIONS_AGAIN.match(text) else _LEADING.match(text)
    for letters in (
        _letters(last, options) or (),
        [leading[1]] if leading else (),
        _BRACKETED.findall(text),
        _NAMED.findall(text),
        _CALLED_RIGHT.findall(text),
    ):
        found = frozenset[str](letters) & options.keys()
        if found:
            return found
    return _by_text(text, options) or _closing(last, options)


def _letters(text: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """The letters of a text that is nothing but letters; none of them if it babbles or names others."""
    bare = text.strip().rstrip(".!?\u3002")
    if _LIST.fullmatch(bare):
        found = Counter(re.findall(r"\b[A-Z]\b", bare.upper()))
        babble = max(found.values(), default=0) > MAX_MENTIONS
        return frozenset(found) if found.keys() <= options.keys() and not babble else _NOTHING
    if _JOINED.fullmatch(bare) and set(bare) <= options.keys() and list(bare) == sorted(set(bare)):
        return frozenset(bare)
    return None


def _closing(line: str, options: Mapping[str, str]) -> frozenset[str]:
    """The letter that ends a line ("so it is C.") if no other option is named in it and nothing is denied."""
    closing = _CLOSING.search(line)
    if closing is None or _NEGATED.search(line):
        return _NOTHING
    named = frozenset[str](_NAMED_ALONE.findall(line)) & options.keys()
    return named if named == frozenset({closing[1]}) else _NOTHING


def _by_text(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The option whose text the answer is; else the only one that it contains as whole words."""
    said = plain(text)
    texts = {letter: plain(option) for letter, option in options.items() if plain(option)}
    same = frozenset(letter for letter, option in texts.items() if option == said)
    if same:
        return same
    inside = {letter: option for letter, option in texts.items() if _contains(said, option)}
    widest = {
        letter for letter, option in inside.items() if not any(option != o and option in o for o in inside.values())
    }
    return frozenset(widest) if len(widest) == 1 else _NOTHING


def _contains(text: str, part: str) -> bool:
    """Whether a text has the words of another in it; the 3 of 3.5, -3 or 3/4 is no word."""
    return re.search(rf"(?<!\w)(?<!\d[.,/])(?<!-(?=\d)){re.escape(part)}(?!\w|[.,/]\d)", text) is not None


def _lettered(options: object) -> dict[str, str]:
    """Options as {letter: text}, from such a mapping or from a list, whose entries may repeat their letter."""
    if isinstance(options, Mapping):
        pairs = cast("Mapping[object, object]", options).items()
        return {str(letter).strip().upper(): str(text) for letter, text in pairs}
    if isinstance(options, Sequence) and not isinstance(options, str):
        texts = [str(text) for text in cast("Sequence[object]", options)]
        return {
            letter: re.sub(rf"^\s*[(\[]?{letter}[)\].:]\s+", "", text)
            for letter, text in zip(ascii_uppercase, texts, strict=False)
        }
    return {}


def _letters_of(correct: object) -> frozenset[str]:
    """The set of "B", "A, C", "AC" or ["A", "C"]."""
    if isinstance(correct, Sequence) and not isinstance(correct, str):
        correct = " ".join(str(letter) for letter in cast("Sequence[object]", correct))
    return frozenset(re.findall(r"[A-Z]", str(correct or "").upper()))


def _letters_at(index: object) -> frozenset[str]:
    """0, or [0, 2], counted from 0, as a set of letters."""
    indices = cast("list[object]", index) if isinstance(index, list) else [index]
    return frozenset(ascii_uppercase[at] for at in indices if isinstance(at, int) and 0 <= at < len(ascii_uppercase))


@RewardRegistry.register("mcq_accuracy")
class McqAccuracy(BaseReward):
    """Whether the answer chooses the right letters; abstains where there is no multiple-choice question.

    strict: 1 if the chosen letters are exactly the right ones, else 0. jaccard: |chosen & right| / |chosen | right|.
    """

    quick = True

    class Config(Section):
        mode: Literal["strict", "jaccard"] = "strict"
        """All letters right and none too many, or partial credit."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.settings = self.Config.model_validate(self.config)

    def compute(self, context: RewardContext) -> RewardResult:
        question = question_of(context)
        if question is None:
            return None
        letters = chosen(context.answer, question.options)
        if self.settings.mode == "strict":
            reward = float(letters == question.correct)
        else:
            reward = len(letters & question.correct) / len(letters | question.correct)
        return {"reward": reward, "chosen": sorted(letters)}
