"""Ragged rows of token ids in two NPY files, written as a stream and read through the page cache.

`<prefix>.npy` holds all tokens one after the other (uint16 where the vocabulary fits, else int32), and
`<prefix>_offsets.npy` int64 `[n + 1]`: row i is tokens[offsets[i]:offsets[i + 1]]. Neither side needs them in memory.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np

from pipelines.errors import DataError

BUFFER_BYTES = 1 << 18
WRITE_AGAIN = "write it again: grpo preprocess --force"


def offsets_path(prefix: Path) -> Path:
    """`train_prompts` -> `train_prompts_offsets.npy`."""
    return prefix.with_name(f"{prefix.name}_offsets.npy")


def tokens_path(prefix: Path) -> Path:
    """`train_prompts` -> `train_prompts.npy`; a dot in the prefix stays."""
    return prefix.with_name(f"{prefix.name}.npy")


class NpyStream:
    """A one-dimensional NPY file that grows; its length is written into the header when it is closed."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.dtype = np.dtype(dtype)
        self.written = 0
        self._file: IO[bytes] = path.open("wb", buffering=BUFFER_BYTES)
        self._write_header()

    def extend(self, values: Sequence[int] | np.ndarray) -> None:
        """Append values; an array has to be of the file's dtype."""
        # NumPy 2 raises OverflowError for an id that does not fit, so nothing wraps around.
        block = values if isinstance(values, np.ndarray) else np.array(values, dtype=self.dtype)
        if block.dtype != self.dtype:
            raise TypeError(f"{block.dtype} values for a file of {self.dtype}")
        self._file.write(block.data)
        self.written += len(block)

    def close(self) -> None:
        """Write the header again: NumPy pads it so that any length fits the same bytes."""
        if self._file.closed:
            return
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.written,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class RaggedWriter:
    """Appends rows of token ids to `<prefix>.npy` and `<prefix>_offsets.npy`; use it in `closing(...)`."""

    def __init__(self, prefix: Path, dtype: np.dtype) -> None:
        self._tokens = NpyStream(tokens_path(prefix), dtype)
        self._offsets = NpyStream(offsets_path(prefix), np.dtype(np.int64))
        self._offsets.extend([0])
        self._end = 0

    def append(self, row: Sequence[int]) -> None:
        """Add one row, which may be empty."""
        self._tokens.extend(row)
        self._end += len(row)
        self._offsets.extend([self._end])

    def extend(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Add rows that lie one after the other in `values`; `lengths` int64 `[n]`."""
        self._tokens.extend(values)
        self._offsets.extend(self._end + np.cumsum(lengths))
        self._end += len(values)

    def close(self) -> None:
        """Finish both files; without it they hold no rows."""
        with closing(self._offsets):
            self._tokens.close()


def write_ragged(prefix: Path, rows: Iterable[Sequence[int]], dtype: np.dtype | type = np.int32) -> None:
    """Write all rows under a prefix."""
    with closing(RaggedWriter(prefix, np.dtype(dtype))) as writer:
        for row in rows:
            writer.append(row)


class RaggedArray(Sequence[np.ndarray]):
    """Rows written by `RaggedWriter`, mapped and not read; `[i]` is an int32 copy of row i."""

    def __init__(self, prefix: Path) -> None:
        self.tokens = map_array(tokens_path(prefix), kinds="iu")
        self.offsets = map_array(offsets_path(prefix), kinds="i")
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens):
            raise DataError(
                f"{offsets_path(prefix)}: the offsets do not fit the {len(self.tokens)} tokens beside it",
                hint=WRITE_AGAIN,
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1]]).astype(np.int32)

    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 `[n]`."""
        return np.diff(self.offsets)


def map_array(path: Path, kinds: str) -> np.ndarray:
    """A flat NPY file of integers (`kinds` of dtype: i, u), mapped; DataError for anything else."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array: {error}", hint=WRITE_AGAIN) from error
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise DataError(f"{path}: {array.dtype} {array.shape} is not a flat array of integers", hint=WRITE_AGAIN)
    return array
