"""Reward for multiple-choice questions: which letters does the answer choose?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal, cast

from pipelines.config import Section
from pipelines.rewards.answers import marked, plain
from pipelines.rewards.base import BaseReward, RewardResult
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry

MAX_READ = 20_000
"""Characters of the end of an answer that are searched for letters."""

_DECORATION = re.compile(r"[*_`$]|\\(?:text|mathrm|mathbf)\s*(?=\{)|[{}]")
_LIST = re.compile(r"[(\[]?[A-Za-z][)\].:]?(?:(?:\s*[,;&/+]\s*|\s+(?:and|or)\s+|\s+)[(\[]?[A-Za-z][)\].:]?)*")
_JOINED = re.compile(r"[A-Z]{2,}")
_LEADING = re.compile(r"[(\[]?([A-Z])(?:[)\]:.](?=\s|$)|,|\s+[-\u2013]\s|\s+(?:because|since|as|is)\b)")
_BRACKETED = re.compile(r"(?<!\w)[(\[]?([A-Z])[)\]](?!\w)")
_NAMED = re.compile(r"\b(?i:option|choice|letter)\s+[(\[]?([A-Z])\b")
_IN_PROMPT = re.compile(r"^\s*[(\[]?([A-Z])[)\].:]\s+(\S.*?)\s*$", re.MULTILINE)
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
    options = options or dict(_IN_PROMPT.findall(context.prompt_text))
    letters = sorted(options)
    if len(letters) < 2 or letters != list(ascii_uppercase[: len(letters)]):
        return None
    correct = chosen(context.reference_answer or "", options)
    return Question(options, correct) if correct else None


def chosen(answer: str, options: Mapping[str, str]) -> frozenset[str]:
    """The letters that an answer chooses: behind its mark ("the answer is ..."), else anywhere; empty if unclear."""
    tail = answer[-MAX_READ:]
    after_mark = marked(tail)
    for text in (after_mark, tail):
        if text is not None:
            found = _read(_DECORATION.sub("", text).strip(), options)
            if found:
                return found
    return _NOTHING


def _read(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """Letters alone, a leading letter, letters in brackets or named "option B", else the one option's text."""
    bare = text.rstrip(".!")
    if _LIST.fullmatch(bare):
        found = {letter.upper() for letter in re.findall(r"\b[A-Za-z]\b", bare)}
        return frozenset(found) if found and found <= options.keys() else _NOTHING
    if _JOINED.fullmatch(bare) and set(bare) <= options.keys() and list(bare) == sorted(set(bare)):
        return frozenset(bare)
    leading = _LEADING.match(text)
    for letters in ([leading[1]] if leading else [], _BRACKETED.findall(text), _NAMED.findall(text)):
        found = frozenset[str](letters) & options.keys()
        if found:
            return found
    return _by_text(text, options)


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
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


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
