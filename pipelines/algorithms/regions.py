"""Where thinking ends and the answer begins, in token ids.

Thinking is everything up to and including the last close tag; the answer is what follows. Without a close tag a
completion is all thinking if thinking was opened (by the prompt or by an open tag), and all answer otherwise. The two
regions partition the completion, whose end-of-sequence token belongs to the region it ends. Only lengths say where a
completion ends: padding may be the same id as EOS. Text is decoded only to find a tag that the tokenizer spelled
otherwise than it spells the tag alone, such as one whose `>` is merged with the newline after it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from pipelines.config import GenerationConfig

Ids = Sequence[int] | np.ndarray
Decode = Callable[[list[int]], str]


class Encoder(Protocol):
    """The one thing asked of a tokenizer here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
        ...


class Tags(NamedTuple):
    """The ids of the tags around thinking, each one token or several, and the texts around the answer.

    An empty tag never occurs.
    """

    open: tuple[int, ...]
    close: tuple[int, ...]
    answer: tuple[str, str] = ("", "")


class RegionMasks(NamedTuple):
    """Two disjoint [N, C] bool masks whose union is the loss mask."""

    thinking: np.ndarray
    answer: np.ndarray


def tags_for(tokenizer: Encoder, config: GenerationConfig) -> Tags:
    """The configured tags as this tokenizer spells them on their own."""

    def ids(tag: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(tag, add_special_tokens=False)) if tag else ()

    answer = (config.answer_start_tag, config.answer_end_tag)
    return Tags(ids(config.think_start_tag), ids(config.think_end_tag), answer)


def thinking_length(completion: Ids, tags: Tags, preopened: bool, decode: Decode | None = None) -> int:
    """How many leading tokens of the completion (without padding) are thinking; the rest is the answer.

    `preopened`: the prompt ended inside an open tag. `decode` turns ids into text, special tokens included; with it,
    tags are also found where they are spelled with other tokens, and a token that holds the tag's end and more text
    counts as thinking.
    """
    ids = np.asarray(completion, dtype=np.int64)
    closed = _end_of_last(ids, tags.close)
    text = "" if decode is None else decode(ids[closed:].tolist())
    spelled = 0 if decode is None else _end_of_last_spelled(ids[closed:], text, tags.close, decode)
    if closed + spelled:
        return closed + spelled
    opened = preopened or _end_of_last(ids, tags.open) > 0
    if not opened and decode is not None:
        opened = _end_of_last_spelled(ids, text, tags.open, decode) > 0
    return len(ids) if opened else 0


def region_masks(thinking_lengths: Ids, lengths: Ids, width: int) -> RegionMasks:
    """Masks [N, width] from the thinking and total lengths [N] of the completions."""
    thinking, total = np.asarray(thinking_lengths)[:, None], np.asarray(lengths)[:, None]
    position = np.arange(width)[None, :]
    return RegionMasks(position < thinking, (position >= thinking) & (position < total))


def _end_of_last(ids: np.ndarray, tag: tuple[int, ...]) -> int:
    """Index after the last occurrence of `tag`, 0 if there is none."""
    size = len(tag)
    if not size or len(ids) < size:
        return 0
    starts = np.flatnonzero(ids[: len(ids) - size + 1] == tag[0])
    matches = (int(start) + size for start in reversed(starts) if tuple(ids[start : start + size]) == tag)
    return next(matches, 0)


def _end_of_last_spelled(ids: np.ndarray, whole: str, tag: tuple[int, ...], decode: Decode) -> int:
    """Number of tokens whose text holds the last occurrence of the tag's text, 0 if there is none; `whole` is theirs.

    The shortest prefix whose text holds as many tags as the whole. Counting tags rather than measuring text keeps the
    cut right where a prefix ends inside a multi-byte character and decodes to something else. O(log C) decodes.
    """
    if not tag or not len(ids):
        return 0
    text = _text(tag, decode)
    total = whole.count(text) if text else 0
    if not total:
        return 0
    short, enough = 0, len(ids)
    while enough - short > 1:
        middle = (short + enough) // 2
        if decode(ids[:middle].tolist()).count(text) >= total:
            enough = middle
        else:
            short = middle
    return enough


@lru_cache(maxsize=8)
def _text(tag: tuple[int, ...], decode: Decode) -> str:
    """A tag as it reads; asked for every completion."""
    return decode(list(tag)).strip()
