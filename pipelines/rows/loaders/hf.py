"""Tables read by Hugging Face `datasets`: from the hub, a saved data set, or local parquet, arrow, JSON and CSV files.

Everything is read as a stream, so nothing is copied into a cache, and local files need no network. A chunk is a piece
of a table in Arrow's own bytes; workers make rows of it.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from pipelines.config import DataConfig
from pipelines.errors import DataError
from pipelines.hub import before_fetching, would_download
from pipelines.rows.lines import BOM, LONGEST_LINE_BYTES, refuse_irregular
from pipelines.rows.loaders.base import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    BaseLoader,
    Chunk,
    Item,
    at_home,
    batched,
    files_at,
)
from pipelines.rows.loaders.plain import plain
from pipelines.rows.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}
"""What reads a file, by its ending."""
MIXED = "extension<arrow.json>"
"""The type of values that differ from row to row, each a text of JSON."""
SAVED = ("state.json", "dataset_dict.json")
"""One of them lies in a directory that `save_to_disk` wrote."""
LOOKED_AT_BYTES = 4096
WRONG_KEY = "look at data.hf_name, data.hf_subset, data.hf_split and the endings of the files"
DAMAGED = "is the whole file there, and does its ending say what it is?"
NO_TABLES = {
    re.compile(rb"version https://git-lfs"): ("a git-lfs pointer, not the data it points to", "run `git lfs pull`"),
    re.compile(rb"(?i)<(!doctype|html|\?xml)"): (
        "a web page or XML, not a table",
        "download the file itself, not the page that shows it",
    ),
}
"""How files begin that stand where a table should: what they are, and what to do."""
SCALAR = re.compile(rb'null|true|false|[-"\d]')
"""How JSON begins that is no row; the library beneath crashes on some of it."""


class HfLoader(BaseLoader):
    """Rows of tables. A source with splits is named `place[split]`."""

    def sources(self) -> dict[str, str]:
        data = self.data
        place = data.hf_name or at_home(data.train_path)
        found = {"train": _named(place, data.hf_split)}
        if data.val_path is not None:
            found["val"] = _named(at_home(data.val_path), data.hf_val_split or data.hf_split)
        elif data.hf_val_split is not None:
            found["val"] = f"{place}[{data.hf_val_split}]"
        return found

    def files(self, path: str) -> dict[str, Path] | None:
        """None for the hub: the name and the commit are in the configuration."""
        return None if self._on_hub(path) else files_at(Path(_parts(path)[0]))

    def downloads(self) -> list[str]:
        paths = [path for path in self.sources().values() if self._on_hub(path)]
        return [would_download(self._name(path), self.data.hf_revision) for path in paths]

    def check(self, path: str) -> None:
        place, split = _parts(path)
        if self._on_hub(path):
            return
        if Path(place).is_dir():
            for file in files_at(Path(place)).values():
                if file.suffix.lower() in BUILDERS:
                    _refuse_no_table(file)
            return
        refuse_irregular(Path(place))
        if Path(place).suffix.lower() not in BUILDERS:
            raise DataError(f"{place}: the hf loader reads {', '.join(BUILDERS)}", hint="or set data.loader_type")
        _refuse_no_table(Path(place))
        if split is not None:
            raise DataError(f"{place}: one file has no split {split!r}", hint="give the other file in data.val_path")

    def cut(self, path: str) -> Iterator[Chunk]:
        first, left = 1, self.data.limit
        for table in self._tables(path):
            self._check_columns(path, table.column_names)
            for piece in _pieces(table if left is None else table.slice(0, left)):
                yield Chunk(path, piece.num_rows, (first, _to_bytes(piece)))
                first += piece.num_rows
                left = None if left is None else left - piece.num_rows
            if left == 0:
                return

    def rows(self, chunk: Chunk) -> Iterator[Item]:
        return (self.attempt(record, place) for place, record in _read(chunk))

    def row(self, record: Mapping[str, Any], place: str) -> Row:
        """A column of whole numbers is as good as one of their texts."""
        fields = dict(self.renamed(plain(record)))
        for key in (self.data.prompt_key, self.data.completion_key):
            if type(fields.get(key)) is int:
                fields[key] = str(fields[key])
        return self.row_of(fields, place)

    def _name(self, path: str) -> str:
        """A source on the hub with its subset, such as `org/name/subset[train]`."""
        place, split = _parts(path)
        subset = f"/{self.data.hf_subset}" if self.data.hf_subset else ""
        return f"{place}{subset}[{split}]"

    def _on_hub(self, path: str) -> bool:
        return self.data.hf_name is not None and _parts(path)[0] == self.data.hf_name

    def _tables(self, path: str) -> Iterator[pa.Table]:
        place, split = _parts(path)
        if self._on_hub(path):
            before_fetching(self._name(path), self.data.hf_revision)
        if place.lower().endswith(".csv"):
            yield from _csv_tables(Path(place))
            return
        hint = DAMAGED if Path(place).is_file() else WRONG_KEY
        with TemporaryDirectory() as locks, _told(path, hint):  # streams fill no cache, but want a place for a lock
            yield from self._open(place, split, locks).with_format("arrow").iter(batch_size=CHUNK_ROWS)

    def _open(self, place: str, split: str | None, cache: str) -> Any:
        import datasets

        data = self.data
        streamed = partial(datasets.load_dataset, streaming=True, cache_dir=cache)
        if data.hf_name == place:
            return streamed(place, data.hf_subset, split=split, revision=data.hf_revision)
        if not Path(place).is_dir():
            return streamed(BUILDERS[Path(place).suffix.lower()], data_files={"train": [place]}, split="train")
        if not any((Path(place) / name).exists() for name in SAVED):
            return streamed(str(Path(place).resolve()), data.hf_subset, split=split)
        saved = datasets.load_from_disk(place)
        if not isinstance(saved, datasets.DatasetDict):
            return saved
        if split not in saved:
            raise DataError(f"{place}: no split {split!r}", hint=f"data.hf_split: it has {', '.join(map(str, saved))}")
        return saved[split]

    def _check_columns(self, path: str, names: list[str]) -> None:
        for name in self.data.columns:
            if name not in names:
                raise DataError(f"{path}: no column {name!r}", hint=f"data.columns: it has {', '.join(names)}")


def table_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record of a local file stands, and its fields, whatever they are; `plain` makes JSON data of them.

    DataError if the file cannot be read.
    """
    loader = HfLoader(DataConfig(train_path=str(path)))
    loader.check(str(path))
    for chunk in loader.cut(str(path)):
        yield from _read(chunk)


def _read(chunk: Chunk) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a piece of a table."""
    import pyarrow as pa

    first, content = chunk.content
    table = pa.ipc.open_stream(content).read_all()
    mixed = {column.name: column.type for column in table.schema if MIXED in str(column.type)}
    for number, record in enumerate(table.to_pylist(), start=first):
        decoded = {name: _decoded(record[name], kind) for name, kind in mixed.items()}
        yield f"{chunk.path}:{number}", record | decoded


def _refuse_no_table(path: Path) -> None:
    """DataError for a file that holds nothing, or something else, by its first bytes."""
    with path.open("rb") as stream:
        head = stream.read(LOOKED_AT_BYTES)
    if not head:
        raise DataError(f"{path}: no rows", hint="the file is empty: name one that holds rows")
    head = head.removeprefix(BOM).lstrip()
    for beginning, (what, hint) in NO_TABLES.items():
        if beginning.match(head):
            raise DataError(f"{path}: {what}", hint=hint)
    if BUILDERS[path.suffix.lower()] == "json" and SCALAR.match(head):
        raise DataError(f"{path}: neither objects nor an array of them", hint="a row is a JSON object")


def _decoded(value: Any, kind: Any) -> Any:
    """The value, its parts that hold JSON parsed."""
    if value is None or MIXED not in str(kind):
        return value
    if str(kind) == MIXED:
        return json.loads(value)
    if isinstance(value, list):
        return [_decoded(item, kind.value_type) for item in cast("list[Any]", value)]
    return {field.name: _decoded(value[field.name], field.type) for field in kind}


def _named(place: str, split: str) -> str:
    return place if Path(place).suffix.lower() in BUILDERS else f"{place}[{split}]"


def _parts(path: str) -> tuple[str, str | None]:
    """`place[split]` apart; a file has no split."""
    place, bracket, split = path.removesuffix("]").rpartition("[")
    return (place, split) if bracket and path.endswith("]") else (path, None)


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Rows that are large travel in smaller chunks."""
    parts = max(1, -(-table.nbytes // CHUNK_BYTES))
    rows = max(1, -(-table.num_rows // parts))
    return (table.slice(start, rows) for start in range(0, table.num_rows, rows))


def _to_bytes(table: pa.Table) -> bytes:
    """Arrow's stream format: a slice takes its own rows along, and not the table that it is a slice of."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _csv_tables(path: Path) -> Iterator[pa.Table]:
    """Every cell is the text that stands there; an empty one is null."""
    import pyarrow as pa

    csv.field_size_limit(LONGEST_LINE_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = list(reader.fieldnames or ())
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{path}:1: the column {twice!r} stands twice", hint="rename one of them")
            for records in batched(_whole(reader, path), CHUNK_ROWS):
                columns = {name: [record[name] or None for record in records] for name in names}
                yield pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not CSV in UTF-8: {error}", hint="save the table as CSV, UTF-8") from error


def _whole(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    """The records of a table; DataError, with the line, for one that has not a cell for each column."""
    for record in reader:
        if None in record:
            raise DataError(f"{path}:{reader.line_num}: more cells than columns", hint="quote cells with commas")
        if None in record.values():
            raise DataError(
                f"{path}:{reader.line_num}: fewer cells than columns",
                hint="is the file cut off? an empty cell needs its comma too",
            )
        yield record


@contextmanager
def _told(path: str, hint: str) -> Generator[None]:
    """What `datasets` and Arrow raise, as one error that names the source."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from httpx import HTTPError

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs what it raises as well
    try:
        yield
    except (DatasetsError, pa.ArrowException, HTTPError, OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path}: cannot be read: {type(error).__name__}: {reason}",
            hint=hint,
        ) from error
