"""`mcq`: multiple choice as in ARC and MMLU, by the letter that is generated or by the likelihood of each choice.

A row has a `question`; `choices`, a list of texts or `{"text": [...], "label": [...]}`; and `answerKey`, a label, or
`answer`, a letter or an index from 0. By likelihood a choice is chosen that has the largest log-probability after the
question (accuracy), or the largest one a character (`acc_norm`), as in lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from pipelines.evaluation.base import Sources, Verdict
from pipelines.evaluation.completions import Piece, Prompt, prompt_text
from pipelines.evaluation.decoding import Decoding
from pipelines.evaluation.file_benchmark import OTHER_FORMAT, Asked, Fields, FileBenchmark, FileConfig, text_of
from pipelines.evaluation.likelihood import measured
from pipelines.evaluation.questions import encoder_for
from pipelines.evaluation.records import Record
from pipelines.rewards.context import RewardContext
from pipelines.rewards.mcq import chosen
from pipelines.rows.chat import ChatEncoder
from pipelines.rows.records import BadRowError

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel


class Mcq(FileBenchmark):
    """Letters are listed with the question, but where the likelihood of the choices' own texts is compared."""

    class Config(FileConfig):
        """Keys of mcq."""

        hub: str | None = "allenai/ai2_arc"
        """Name of a data set on the Hugging Face hub, fetched once."""

        hub_subset: str | None = "ARC-Challenge"
        """Subset of that data set."""

        scoring: Literal["generate", "loglikelihood"] = "generate"
        """Read a letter from what is generated, or compare how likely the choices are."""

        continuations: Literal["text", "letter"] = "text"
        """What likelihoods are compared of: the texts of the choices (ARC), or their letters below them (MMLU)."""

        chat: bool | None = None  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        """Ask through the model's chat template (null = for generate, not for loglikelihood)."""

        instruction: str = "Answer with the letter of the right choice."
        """What is said below the choices in chat."""

    settings: Config

    @property
    def chat(self) -> bool:
        return self.settings.scoring == "generate" if self.settings.chat is None else self.settings.chat

    @property
    def decodes(self) -> bool:
        return self.settings.scoring == "generate"

    def asked(self, record: Fields) -> Asked:
        question = text_of(record, "question").strip()
        choices, right = _choices(record)
        letters = ascii_uppercase[: len(choices)]
        meta = {"choices": choices, "right": right}
        if self._by_text:
            return Asked(f"Question: {question}\nAnswer:", choices[right], meta=meta)
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
        ending = self.settings.instruction if self.chat and self.settings.scoring == "generate" else "Answer:"
        return Asked(f"{question}\n{listed}\n{ending}", letters[right], meta=meta)

    def items(self, sources: Sources) -> Sequence[Prompt]:
        prompts = super().items(sources)
        if self.settings.scoring == "generate":
            return prompts
        encoder = encoder_for(sources.tokenizer, sources.config, chat=self.chat)
        return [replace(prompt, pieces=self._pieces(prompt, encoder)) for prompt in prompts]

    def verdict(self, context: RewardContext) -> Verdict:
        choices, right = context.meta["choices"], context.meta["right"]
        letters = chosen(context.answer, dict(zip(ascii_uppercase, choices, strict=False)))
        return Verdict(letters == {ascii_uppercase[right]}, ", ".join(sorted(letters)) or None, ascii_uppercase[right])

    def measure(self, loaded: LoadedModel, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[list[Record]]:
        if self.settings.scoring == "generate":
            return super().measure(loaded, prompts, decoding)
        return measured(loaded, prompts, _record)

    @property
    def stops(self) -> Sequence[str]:
        return super().stops if self.settings.until is not None or self.chat else ("\n\n",)

    @property
    def _by_text(self) -> bool:
        return self.settings.scoring == "loglikelihood" and self.settings.continuations == "text"

    def _pieces(self, prompt: Prompt, encoder: ChatEncoder) -> tuple[Piece, ...]:
        choices = prompt.row.meta["choices"]
        texts = choices if self._by_text else ascii_uppercase[: len(choices)]
        before = encoder.render(prompt.row)
        # A chat template ends where the answer begins; plain text ends with a word that a space must follow.
        texts = texts if self.chat else [f" {text}" for text in texts]
        return tuple(continuation(encoder, before, text) for text in texts)


def continuation(encoder: ChatEncoder, before: str, text: str) -> Piece:
    """A text behind another as tokens: those of the two together, less those of the first alone.

    Spaces at the end of the first count as the second's, for most tokenizers join a space with the word behind it.
    """
    kept = before.rstrip(" ")
    text = before[len(kept) :] + text
    special = not encoder.has_template
    first, both = (encoder.tokenizer.encode(each, add_special_tokens=special) for each in (kept, kept + text))
    return Piece(np.array(first, np.int32), np.array(both[len(first) :], np.int32))


def _record(prompt: Prompt, pieces: list[np.ndarray]) -> Record:
    """From the log-probabilities of the choices' tokens."""
    sums = [float(piece.sum()) for piece in pieces]
    choices, right = prompt.row.meta["choices"], prompt.row.meta["right"]
    best = int(np.argmax(sums))
    best_norm = int(np.argmax([total / len(choice) for total, choice in zip(sums, choices, strict=True)]))
    return {
        "item": prompt.index,
        "sample": 0,
        "correct": best == right,
        "prompt": prompt_text(prompt.row.prompt),
        "extracted": choices[best],
        "expected": choices[right],
        "logprobs": sums,
        "also": {"acc_norm": float(best_norm == right)},
    }


def _choices(record: Fields) -> tuple[list[str], int]:
    """The texts of the choices, and which of them is right."""
    given = record.get("choices")
    columns = cast("dict[str, Any]", given) if isinstance(given, dict) else {"text": given}
    column = columns.get("text")
    texts = list(map(str, cast("list[Any]", column))) if isinstance(column, list) else []
    column = columns.get("label") or list(ascii_uppercase[: len(texts)])
    labels = list(map(str, cast("list[Any]", column))) if isinstance(column, list) else []
    key = record.get("answerKey", record.get("answer"))
    right = key if isinstance(key, int) else labels.index(str(key)) if str(key) in labels else -1
    if not 2 <= len(texts) <= len(ascii_uppercase) or len(labels) != len(texts) or not all(texts):
        raise BadRowError("choices is no list of two or more texts", hint=OTHER_FORMAT)
    if not 0 <= right < len(texts):
        raise BadRowError(f"no choice is the right one: {key!r} is none of {', '.join(labels)}", hint=OTHER_FORMAT)
    return texts, right
