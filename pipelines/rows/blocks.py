"""What becomes of the rows of one split: the ones that are kept as flat arrays and bytes, all of them as counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from pipelines.config import DataConfig
from pipelines.errors import DataError
from pipelines.rows.chat import EncodedRow
from pipelines.rows.records import Row, to_json
from pipelines.rows.sources import fingerprint

LARGEST_UINT16_VOCABULARY = 65_536
STATED = (
    "read",
    "kept",
    "truncated",
    "without_completion",
    "mcq",
    "code",
    "preopened",
    "unknown_tokens",
    "ended_early",
)


def token_dtype(vocabulary_size: int) -> np.dtype:
    """uint16 for up to 65,536 ids, else int32."""
    return np.dtype(np.uint16 if vocabulary_size <= LARGEST_UINT16_VOCABULARY else np.int32)


class Marks(NamedTuple):
    """Ids that are looked for."""

    eos: int
    unknown: int | None


@dataclass
class Tally:
    """Counts of rows: what they are, and why some were dropped."""

    counts: Counter[str] = field(default_factory=Counter[str])
    dropped: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: "Tally") -> None:
        """Count other rows too."""
        self.counts.update(other.counts)
        self.dropped.update(other.dropped)

    def keep(self, row: Row, tokens: EncodedRow, marks: Marks) -> None:
        """Count a row that is kept."""
        self.counts["kept"] += 1
        self.counts["without_completion"] += row.completion is None
        self.counts["mcq"] += row.is_mcq
        self.counts["code"] += row.is_code
        self.counts["preopened"] += tokens.preopened
        self.counts["ended_early"] += marks.eos in tokens.completion[:-1]
        if marks.unknown is not None:
            self.counts["unknown_tokens"] += marks.unknown in tokens.prompt or marks.unknown in tokens.completion

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, every count present."""
        return {**{name: self.counts[name] for name in STATED}, "dropped": dict(self.dropped)}


class Ragged(NamedTuple):
    """Sequences one after the other, and the length of each, int64."""

    values: np.ndarray
    lengths: np.ndarray


class Block(NamedTuple):
    """Kept rows in their order."""

    prompts: Ragged
    completions: Ragged
    lines: Ragged
    """Bytes of the JSON lines, uint8."""
    fingerprints: np.ndarray
    """What each row asks, uint64."""
    tally: Tally


def block_of(
    rows: Sequence[tuple[Row, EncodedRow]], origin: str, data: DataConfig, dtype: np.dtype, marks: Marks
) -> Block:
    """The rows that `data` lets through; DataError for one that it refuses."""
    tally = Tally()
    tally.counts["read"] = len(rows)
    prompts: list[Sequence[int]] = []
    completions: list[Sequence[int]] = []
    lines: list[bytes] = []
    fingerprints: list[int] = []
    for row, tokens in rows:
        prompt = _fitted(tokens.prompt, row, data, tally)
        if prompt is None:
            continue
        tally.keep(row, tokens, marks)
        prompts.append(prompt)
        completions.append(tokens.completion)
        fingerprints.append(fingerprint(row))
        # What is written must not depend on where the file lies: `train:12` and not its path.
        source = f"{origin}:{row.source.rpartition(':')[2]}"
        lines.append((to_json(row, source=source, preopened=tokens.preopened) + "\n").encode())
    text = Ragged(np.frombuffer(b"".join(lines), np.uint8), _lengths(lines))
    return Block(
        _ragged(prompts, dtype), _ragged(completions, dtype), text, np.array(fingerprints, dtype=np.uint64), tally
    )


def _fitted(prompt: Sequence[int], row: Row, data: DataConfig, tally: Tally) -> Sequence[int] | None:
    """The prompt as `data.long_prompts` wants it; None if it is dropped."""
    if len(prompt) <= data.max_prompt_len:
        return prompt
    if data.long_prompts == "error":
        raise DataError(
            f"{row.source}: the prompt has {len(prompt)} tokens, data.max_prompt_len is {data.max_prompt_len}",
            hint="raise data.max_prompt_len, or set data.long_prompts to drop or truncate_left",
        )
    if data.long_prompts == "drop":
        tally.dropped[f"prompt longer than {data.max_prompt_len} tokens"] += 1
        return None
    tally.counts["truncated"] += 1
    return prompt[-data.max_prompt_len :]


def _ragged(rows: Sequence[Sequence[int]], dtype: np.dtype) -> Ragged:
    # NumPy 2 raises OverflowError for a Python integer that does not fit, so no id wraps around.
    return Ragged(np.array(list(chain.from_iterable(rows)), dtype=dtype), _lengths(rows))


def _lengths(rows: Sequence[Sequence[int] | bytes]) -> np.ndarray:
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
