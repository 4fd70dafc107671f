"""One split of the preprocessed data: tokens from mapped arrays, texts and tests by byte offset when asked.

Written by `SplitWriter`, read by `TokenDataset`, under one prefix such as `<stage directory>/train`:
`_prompts.npy`, `_completions.npy` with their `_offsets.npy`, `_rows.jsonl` and `_rows_offsets.npy`.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import DataError
from pipelines.rows.blocks import Block
from pipelines.rows.records import Row, from_json, to_json
from pipelines.tokens.arrays import WRITE_AGAIN, NpyStream, RaggedArray, RaggedWriter, map_array

FILES = (
    "prompts.npy",
    "prompts_offsets.npy",
    "completions.npy",
    "completions_offsets.npy",
    "rows.jsonl",
    "rows_offsets.npy",
)
"""What a split consists of, each under `<prefix>_`."""


class SplitWriter:
    """Streams rows with their tokens into the files of one split, in constant memory; use it in `closing(...)`."""

    def __init__(self, directory: Path, split: str, dtype: np.dtype) -> None:
        self.rows = 0
        self._end = 0
        with ExitStack() as opened:
            self._prompts = opened.enter_context(closing(RaggedWriter(directory / f"{split}_prompts", dtype)))
            self._completions = opened.enter_context(closing(RaggedWriter(directory / f"{split}_completions", dtype)))
            self._texts = opened.enter_context((directory / f"{split}_rows.jsonl").open("wb"))
            starts = NpyStream(directory / f"{split}_rows_offsets.npy", np.dtype(np.int64))
            self._starts = opened.enter_context(closing(starts))
            self._opened = opened.pop_all()
        self._starts.extend([0])

    def append(self, row: Row, prompt: Sequence[int], completion: Sequence[int], *, preopened: bool) -> None:
        """Add one row; the completion's tokens end with EOS, or are empty where there is none."""
        self._prompts.append(prompt)
        self._completions.append(completion)
        line = (to_json(row, preopened=preopened) + "\n").encode()
        self._texts.write(line)
        self._end += len(line)
        self._starts.extend([self._end])
        self.rows += 1

    def extend(self, block: Block) -> None:
        """Add the rows of a block."""
        self._prompts.extend(*block.prompts)
        self._completions.extend(*block.completions)
        self._texts.write(block.lines.values.data)
        self._starts.extend(self._end + np.cumsum(block.lines.lengths))
        self._end += len(block.lines.values)
        self.rows += len(block.fingerprints)

    def close(self) -> None:
        """Finish all files; without it they hold no rows."""
        self._opened.close()


class TokenDataset:
    """Rows of one split; opening it reads headers only, whatever its size."""

    def __init__(self, directory: Path | str, split: str) -> None:
        self.prefix = Path(directory) / split
        self.prompts = RaggedArray(self._file("prompts"))
        self.completions = RaggedArray(self._file("completions"))
        if len(self.prompts) != len(self.completions):
            raise DataError(
                f"{self.prefix}: {len(self.prompts)} prompts but {len(self.completions)} completions",
                hint=WRITE_AGAIN,
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def prompt_tokens(self, index: int) -> np.ndarray:
        """The rendered prompt, int32 `[P]`."""
        return self.prompts[index]

    def completion_tokens(self, index: int) -> np.ndarray:
        """The reference completion with its EOS, int32 `[C]`; empty where the row has none."""
        return self.completions[index]

    def row(self, index: int) -> Row:
        """Texts, tests and meta of a row."""
        return from_json(self._record(index))

    def preopened(self, index: int) -> bool:
        """Whether the rendered prompt ends inside an open think tag."""
        return bool(self._record(index)["preopened"])

    def _record(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start, end = self._starts[index], self._starts[index + 1]
        return json.loads(self._texts[start:end].tobytes())

    @cached_property
    def _texts(self) -> np.ndarray:
        """The bytes of the rows file, mapped."""
        path = self._file("rows.jsonl")
        try:
            return np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}", hint=WRITE_AGAIN) from error

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where each row's line starts, and the end of the last, int64 `[n + 1]`."""
        path = self._file("rows_offsets.npy")
        starts = map_array(path, kinds="i")
        if len(starts) != len(self) + 1 or starts[-1] != len(self._texts):
            raise DataError(f"{path}: does not fit the rows beside it", hint=WRITE_AGAIN)
        return starts

    def _file(self, name: str) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}_{name}")
