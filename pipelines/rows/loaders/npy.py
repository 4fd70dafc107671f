"""Arrays of token ids: our own exports, ragged arrays, and rectangular ones that are padded.

`PREFIX_prompts.npy` and, if there are references, `PREFIX_completions.npy`; or one file of prompts. A flat array has
its `_offsets.npy` beside it, a rectangular one needs none. Nothing is read before somebody wants the rows.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING

from pipelines.config import DataConfig
from pipelines.errors import DataError
from pipelines.rows.lines import refuse_irregular
from pipelines.rows.loaders.base import CHUNK_ROWS, BaseLoader, Chunk, Item, TokenRow
from pipelines.rows.records import BadRowError, Row, from_json

if TYPE_CHECKING:
    import numpy as np

FILES = ("prompts.npy", "prompts_offsets.npy", "completions.npy", "completions_offsets.npy")
TEXTS = ("rows.jsonl", "rows_offsets.npy")
MAGIC = b"\x93NUMPY"
SHAPES = "give PREFIX of PREFIX_prompts.npy and PREFIX_completions.npy, or one .npy file of prompts"


class NpyLoader(BaseLoader):
    """Rows that are tokens already: no template, no system prompt; texts for rewards are decoded from them."""

    def __init__(self, data: DataConfig) -> None:
        super().__init__(data)
        self._arrays: dict[str, Arrays] = {}

    def files(self, path: str) -> dict[str, Path]:
        place = Path(path)
        if place.is_file():
            return {place.suffix: place}
        named = {f"_{name}": place.with_name(f"{place.name}_{name}") for name in (*FILES, *TEXTS)}
        return {name: file for name, file in named.items() if file.is_file()}

    def check(self, path: str) -> None:
        self._opened(path)

    def cut(self, path: str) -> Iterator[Chunk]:
        rows = len(self._opened(path))
        total = min(rows, self.data.limit or rows)
        for start in range(0, total, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, total)
            yield Chunk(path, stop - start, (start, stop), stop / total)

    def rows(self, chunk: Chunk) -> Iterator[Item]:
        arrays = self._opened(chunk.path)
        for index in range(*chunk.content):
            yield self.attempt((arrays, index), f"{chunk.path}:{index + 1}")

    def row(self, record: "tuple[Arrays, int]", place: str) -> TokenRow:
        arrays, index = record
        completion = None if arrays.completions is None else arrays.completions[index]
        if arrays.texts is None:
            return TokenRow(place, arrays.prompts[index], completion)
        row, preopened = arrays.texts[index]
        return TokenRow(place, arrays.prompts[index], completion, replace(row, source=place), preopened)

    def _opened(self, path: str) -> "Arrays":
        """Mapped once a process."""
        if path not in self._arrays:
            self._arrays[path] = Arrays(Path(path))
        return self._arrays[path]


class IdRows:
    """Rows of token ids in one mapped array: ragged with offsets beside it, or rectangular."""

    def __init__(self, path: Path) -> None:
        self.ids = _mapped(path)
        if self.ids.ndim not in (1, 2):
            raise DataError(f"{path}: an array of {self.ids.ndim} dimensions", hint=SHAPES)
        if self.ids.ndim == 2:
            return
        beside = path.with_name(f"{path.stem}_offsets.npy")
        if not beside.exists():
            raise DataError(f"{path}: a flat array, and no {beside.name} says where rows begin", hint=SHAPES)
        self.offsets = _offsets(beside, len(self.ids))

    def __len__(self) -> int:
        return len(self.ids) if self.ids.ndim == 2 else len(self.offsets) - 1

    def __getitem__(self, index: int) -> "np.ndarray":
        if self.ids.ndim == 2:
            return self.ids[index]
        start, end = self.offsets[index], self.offsets[index + 1]
        if not 0 <= start <= end <= len(self.ids):
            raise BadRowError("its offsets do not fit the array", hint="export the arrays again")
        return self.ids[start:end]


class Texts:
    """Texts, tests and meta beside exported tokens, found by byte offset."""

    def __init__(self, prefix: Path) -> None:
        import numpy as np

        self.path = _beside(prefix, "rows.jsonl")
        refuse_irregular(self.path)
        size = self.path.stat().st_size
        self.content = np.memmap(self.path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
        self.offsets = _offsets(_beside(prefix, "rows_offsets.npy"), size)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[Row, bool]:
        line = self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()
        try:
            record = json.loads(line)
            return from_json(record), bool(record["preopened"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"its line of {self.path.name} is not what an export writes"
            raise BadRowError(reason, hint="export the arrays again") from error


class Arrays:
    """What lies under one path, of as many rows each."""

    def __init__(self, path: Path) -> None:
        alone = path.is_file()
        self.prompts = IdRows(path if alone else _beside(path, "prompts.npy"))
        completions = _beside(path, "completions.npy")
        self.completions = IdRows(completions) if not alone and completions.exists() else None
        self.texts = Texts(path) if not alone and _beside(path, "rows.jsonl").exists() else None
        for name, others in (("completions", self.completions), ("texts", self.texts)):
            if others is not None and len(others) != len(self):
                raise DataError(f"{path}: {len(self)} prompts but {len(others)} {name}", hint="export them again")

    def __len__(self) -> int:
        return len(self.prompts)


def _beside(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{name}")


def _offsets(path: Path, end: int) -> "np.ndarray":
    """int64 `[n + 1]`, from 0 to the end of what they cut."""
    offsets = _mapped(path)
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != end:
        raise DataError(f"{path}: the offsets do not fit what lies beside them", hint="export the arrays again")
    return offsets


def _mapped(path: Path) -> "np.ndarray":
    """An NPY file of integers; DataError for anything else."""
    import numpy as np

    refuse_irregular(path)
    with path.open("rb") as stream:
        if not stream.read(len(MAGIC)).startswith(
            (MAGIC, b"PK")
        ):  # numpy would speak of pickles, and how to trust them
            raise DataError(f"{path}: not a NumPy array", hint=SHAPES)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, TokenError) as error:
        raise DataError(f"{path}: cannot be read as an array: {error}", hint=SHAPES) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise DataError(f"{path}: {kind}, not an array of token ids", hint=SHAPES)
    return array
