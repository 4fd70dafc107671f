"""What a loader is. Cutting a source is cheap and happens in one process; making rows of it happens in many.

`cut` yields chunks of records that are not looked at yet: lines as bytes, tables as bytes, ranges of an array. A chunk
travels to a worker process, whose own loader of the same configuration turns it into rows.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.config import DataConfig
from pipelines.errors import DataError
from pipelines.rows.lines import refuse_irregular
from pipelines.rows.loaders.plain import plain
from pipelines.rows.records import BadRowError, Row, row_from

if TYPE_CHECKING:
    import numpy as np

CHUNK_ROWS = 1_000
CHUNK_BYTES = 4 << 20
"""A chunk ends with whichever is reached first, so that long rows do not fill the memory."""


class Chunk(NamedTuple):
    """Some records of a source, in the form that the loader's `rows` understands; it can be pickled."""

    path: str
    rows: int
    content: Any
    position: float | None = None
    """How much of the source has been cut, from 0 to 1; None where nobody knows its length."""


class TokenRow(NamedTuple):
    """A row that came as token ids, padding still on; `row` is None where texts have to be decoded from them."""

    place: str
    prompt: np.ndarray
    completion: np.ndarray | None
    row: Row | None = None
    preopened: bool = False


class BadRow(NamedTuple):
    """A record of which no row could be made, and why."""

    place: str
    reason: str
    hint: str


Item = Row | TokenRow | BadRow


class BaseLoader:
    """One kind of source. A subclass has to give `records`; what it overrides besides makes it faster or stricter."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data

    def sources(self) -> dict[str, str]:
        """What is read as `train` and, if anything is, as `val`: paths, or names of the loader's own."""
        given = {"train": self.data.train_path, "val": self.data.val_path}
        return {origin: at_home(path) for origin, path in given.items() if path is not None}

    def files(self, path: str) -> dict[str, Path] | None:
        """The files whose content decides what a source gives, each by a name that does not depend on the place.

        Empty: there are none, and the words of the configuration count instead. None: the rest of the `data` section
        says everything.
        """
        return files_at(Path(path))

    def downloads(self) -> list[str]:
        """What reading would download, in the words of `hub.would_download`."""
        return []

    def check(self, path: str) -> None:
        """DataError if a source cannot be opened; called before anything else, so it should read next to nothing."""
        for file in (self.files(path) or {}).values():
            refuse_irregular(file)

    def records(self, path: str) -> Iterator[Mapping[str, Any]]:
        """The records of a source, one after the other: objects with the fields of a JSONL row."""
        raise NotImplementedError(f"{type(self).__name__} says neither how to read records nor how to cut chunks")

    def cut(self, path: str) -> Iterator[Chunk]:
        """The source in chunks, at most `data.limit` records in all."""
        numbered = enumerate(islice(self.records(path), self.data.limit), start=1)
        return ((Chunk(path, len(content), content)) for content in batched(numbered, CHUNK_ROWS))

    def rows(self, chunk: Chunk) -> Iterator[Item]:
        """What each record of a chunk comes to."""
        for number, record in chunk.content:
            yield self.attempt(record, f"{chunk.path}:{number}")

    def attempt(self, record: Any, place: str) -> Item:
        """The record's row, or why there is none."""
        try:
            return self.row(record, place)
        except BadRowError as error:
            return BadRow(place, error.message, error.hint)

    def row(self, record: Any, place: str) -> Row | TokenRow:
        """The row of one record; BadRowError if it cannot be used."""
        return self.row_of(self.renamed(plain(record)), place)

    def renamed(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record with its fields under the names of `data.columns`; absent ones stay absent."""
        columns = self.data.columns
        if not columns:
            return record
        result = {name: value for name, value in record.items() if name not in columns}
        for name, target in columns.items():
            section, _, key = target.partition(".")
            if name not in record:
                continue
            if not key:
                result[target] = record[name]
                continue
            meta = result.get(section) or {}
            if not isinstance(meta, dict):
                raise BadRowError(f"{section} is no object", hint=f"data.columns puts {name} into {target}")
            result[section] = {**meta, key: record[name]}
        return result

    def row_of(self, record: Mapping[str, Any], place: str) -> Row:
        """The row of plain JSON data."""
        keys = self.data.prompt_key, self.data.completion_key
        return row_from(record, prompt_key=keys[0], completion_key=keys[1], source=place)


@contextmanager
def about(origin: str) -> Generator[None]:
    """Inside the block a DataError about a source names the key it was given by, unless it does already."""
    try:
        yield
    except DataError as error:
        if not error.message.startswith("data."):
            error.message = f"data.{origin}_path: {error.message}"
        raise


def files_at(path: Path) -> dict[str, Path]:
    """A file under its ending, or all files below a directory under their relative paths."""
    if path.is_file():
        return {path.suffix: path}  # the ending may say how to read it
    found = (file for file in sorted(path.rglob("*")) if file.is_file()) if path.is_dir() else ()
    return {file.relative_to(path).as_posix(): file for file in found}


def at_home(path: str) -> str:
    """The path with a leading `~` replaced."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
