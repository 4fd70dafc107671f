"""`perplexity`: how surprised the model is by texts that are given, of N tokens in all:

    exp(-sum log p(token | tokens before it) / N)

A completion is read after its prompt, both rendered as for training, with the EOS that ends it. A raw text is read
from its first token on, after the tokenizer's BOS (or EOS, where it has none), and without an EOS behind it, as
lm-evaluation-harness reads it. `word_perplexity` and `byte_perplexity` divide the same sum by words (between white
space) and UTF-8 bytes of the texts, which makes models with different tokenizers comparable; `bits_per_byte` is the
logarithm of the latter to base 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from pipelines.errors import DataError
from pipelines.evaluation.base import BaseEvaluator, Sources
from pipelines.evaluation.completions import Piece, Prompt, prompt_text, prompts_of
from pipelines.evaluation.decoding import Decoding
from pipelines.evaluation.file_benchmark import ROW_KEYS, SourceConfig, rows_of, source_of
from pipelines.evaluation.likelihood import measured
from pipelines.evaluation.questions import encoder_for
from pipelines.evaluation.records import Record, Records, metrics
from pipelines.evaluation.statistics import bootstrap
from pipelines.rows.chat import ChatEncoder
from pipelines.rows.records import BadRowError, Row, row_from

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel


class Perplexity(BaseEvaluator):
    """Of the completions of the validation rows, or of those or the raw texts of a file."""

    class Config(SourceConfig):
        """Keys of perplexity."""

        text_key: str = Field(default="text", min_length=1)
        """Field of a raw text; a row without it is a prompt with a completion."""

        window: int = Field(default=1024, ge=2)
        """A longer raw text is read in pieces of so many tokens."""

    settings: Config

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.reads = ROW_KEYS if self._from_file else ()

    @property
    def decodes(self) -> bool:
        return False

    def files(self) -> dict[str, Path]:
        return {"items": source_of(self.settings)} if self._from_file else {}

    def items(self, sources: Sources) -> Sequence[Prompt]:
        if not self._from_file:
            return _validation(sources)
        encoder = encoder_for(sources.tokenizer, sources.config)
        data = sources.config.data

        def read(record: Mapping[str, Any]) -> Row:
            if self.settings.text_key in record:
                return _raw(record[self.settings.text_key], self.settings.text_key)
            row = row_from(record, prompt_key=data.prompt_key, completion_key=data.completion_key)
            if row.completion is None:
                raise BadRowError(
                    f"neither {self.settings.text_key!r} nor a completion", hint="there is nothing to read"
                )
            return row

        rows = [row for _, row in rows_of(source_of(self.settings), read)]
        return [self._prompt(index, row, encoder) for index, row in enumerate(rows)]

    def measure(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Prompt],
        decoding: Decoding,  # noqa: ARG002 - nothing is sampled
    ) -> Iterator[list[Record]]:
        return measured(loaded, prompts, _record)

    def metrics(self, records: Records) -> dict[str, Any]:
        nats = [-record["logprob"] for record in records]
        found = metrics(records)
        for name, unit in (("perplexity", "tokens"), ("word_perplexity", "words"), ("byte_perplexity", "bytes")):
            counts = [record[unit] for record in records]
            ends = bootstrap(nats, counts)
            found |= {name: math.exp(sum(nats) / sum(counts))}
            found |= {f"{name}_low": math.exp(ends.low), f"{name}_high": math.exp(ends.high)}
        return found | {"bits_per_byte": math.log2(found["byte_perplexity"])}

    @property
    def _from_file(self) -> bool:
        return self.settings.path is not None or self.settings.hub is not None

    def _prompt(self, index: int, row: Row, encoder: ChatEncoder) -> Prompt:
        if row.prompt:
            (encoded,) = encoder.encode([row])
            piece = Piece(np.array(encoded.prompt, np.int32), np.array(encoded.completion, np.int32))
            return Prompt(index, piece.context, encoded.preopened, row, (piece,))
        tokenizer = encoder.tokenizer
        first = encoder.eos_id if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        tokens = tokenizer.encode(row.completion, add_special_tokens=False)
        return Prompt(
            index, np.array([first], np.int32), False, row, tuple(windows([first, *tokens], self.settings.window))
        )


def windows(tokens: Sequence[int], size: int) -> Iterator[Piece]:
    """Pieces in which every token but the first is a target once, at most `size` targets each.

    A piece's context is the one token before its targets; that of the last is longer by as much as its targets are
    fewer, so that no token is read with less before it than it need be.
    """
    ids = np.array(tokens, np.int32)
    for start in range(1, len(ids), size):
        end = min(start + size, len(ids))
        yield Piece(ids[max(0, end - size - 1) : start], ids[start:end])


def _validation(sources: Sources) -> list[Prompt]:
    dataset = sources.validation()
    prompts = [
        Prompt(
            each.index,
            each.tokens,
            each.preopened,
            each.row,
            (Piece(each.tokens, dataset.completion_tokens(each.index)),),
        )
        for each in prompts_of(dataset, range(len(dataset)))
        if each.row.completion
    ]
    if not prompts:
        raise DataError(
            "there is no validation row with a completion to read",
            hint="give `path`, a file, in the benchmark's config, or set data.val_path",
        )
    return prompts


def _raw(text: object, key: str) -> Row:
    """A row without a prompt."""
    if not isinstance(text, str) or not text:
        raise BadRowError(f"{key} is no text", hint="each line holds one text to read")
    return Row("", text)


def _record(prompt: Prompt, pieces: list[np.ndarray]) -> Record:
    """From the log-probabilities of its tokens; `score` is their mean."""
    found = np.concatenate(pieces)
    text = prompt.row.completion or ""
    return {
        "item": prompt.index,
        "sample": 0,
        "score": float(found.mean()),
        "prompt": prompt_text(prompt.row.prompt),
        "completion": text,
        "logprob": float(found.sum()),
        "tokens": len(found),
        "words": len(re.split(r"\s+", text)),
        "bytes": len(text.encode()),
    }
