"""Rows that came as token ids: padding off, ids checked, texts for rewards decoded."""

from typing import NamedTuple

import numpy as np

from pipelines.config import DataConfig
from pipelines.rows.chat import ChatEncoder, EncodedRow
from pipelines.rows.loaders.base import BadRow, TokenRow
from pipelines.rows.records import BadRowError, Row


class GivenRow(NamedTuple):
    """A row with the tokens it came with."""

    row: Row
    tokens: EncodedRow


def given_row(item: TokenRow, chat: ChatEncoder, data: DataConfig) -> GivenRow | BadRow:
    """The row of token ids; its completion ends with one EOS, also where the array leaves it out."""
    try:
        prompt = _ids(item.prompt, "prompt", chat, data, padded=item.row is None)
        if not prompt:
            raise BadRowError("the prompt is nothing but padding", hint="give every row something to answer")
        completion = _ids(item.completion, "completion", chat, data, padded=item.row is None)
    except BadRowError as error:
        return BadRow(item.place, error.message, error.hint)
    if item.row is not None:
        return GivenRow(item.row, EncodedRow(prompt, completion, item.preopened))
    if completion and completion[-1] == chat.eos_id:
        completion.pop()
    text = chat.tokenizer.decode(prompt)
    row = Row(text, chat.tokenizer.decode(completion) if completion else None, source=item.place)
    opened = bool(chat.tags[0]) and text.rstrip().endswith(chat.tags[0])
    return GivenRow(row, EncodedRow(prompt, [*completion, chat.eos_id] if completion else [], opened))


def _ids(ids: np.ndarray | None, side: str, chat: ChatEncoder, data: DataConfig, *, padded: bool) -> list[int]:
    """The ids without padding; none where there is no array."""
    if ids is None:
        return []
    if padded:
        ids = _unpadded(ids, chat.pad_id if data.pad_id is None else data.pad_id, data.pad_side)
    beyond = np.flatnonzero((ids < 0) | (ids >= chat.vocabulary_size))
    if len(beyond):
        raise BadRowError(
            f"id {ids[beyond[0]]} at position {beyond[0]} of the {side} is not one of the tokenizer's "
            f"{chat.vocabulary_size}",
            hint="the arrays were made with another tokenizer, or name their padding in data.pad_id",
        )
    return ids.tolist()


def _unpadded(ids: np.ndarray, pad_id: int, side: str) -> np.ndarray:
    """What lies between the first and the last id that is not padding; one side alone if only that is padded."""
    content = np.flatnonzero(ids != pad_id)
    if not len(content):
        return ids[:0]
    start = 0 if side == "right" else int(content[0])
    end = len(ids) if side == "left" else int(content[-1]) + 1
    return ids[start:end]
