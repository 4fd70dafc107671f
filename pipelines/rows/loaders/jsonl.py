"""JSONL, plain or gzip: lines are cut as bytes, and parsed where rows are made."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipelines.bundled import BUILTIN, bundled
from pipelines.errors import DataError
from pipelines.rows.lines import Line, read_lines, refuse_irregular
from pipelines.rows.loaders.base import CHUNK_BYTES, CHUNK_ROWS, BaseLoader, Chunk, Item
from pipelines.rows.records import BadRowError, Row, UnfinishedRowError, parse

BUILTIN_DATA = "builtin:arithmetic"


class JsonlLoader(BaseLoader):
    """One object a line. `builtin:arithmetic` names the rows that ship with grpo."""

    def sources(self) -> dict[str, str]:
        """The built-in training rows bring their validation rows along."""
        paths = {"train": self.data.train_path}
        if self.data.val_path is not None:
            paths["val"] = self.data.val_path
        elif self.data.train_path == BUILTIN_DATA and not self.data.val_fraction:
            paths["val"] = self.data.train_path
        return {origin: str(_file(path, origin)) for origin, path in paths.items()}

    def files(self, path: str) -> dict[str, Path]:
        """The one file. A directory is refused: what lies below it may be the whole disk."""
        if not os.path.lexists(path):
            return {}
        self.check(path)
        return {Path(path).suffix: Path(path)}

    def check(self, path: str) -> None:
        refuse_irregular(Path(path))

    def cut(self, path: str) -> Iterator[Chunk]:
        size = Path(path).stat().st_size
        lines: list[Line] = []
        held = 0
        for line in islice(read_lines(Path(path)), self.data.limit):
            lines.append(line)
            held += len(line.content)
            if len(lines) == CHUNK_ROWS or held >= CHUNK_BYTES:
                yield _chunk(path, lines, size)
                lines, held = [], 0
        if lines:
            yield _chunk(path, lines, size)

    def rows(self, chunk: Chunk) -> Iterator[Item]:
        for line in chunk.content:
            yield self.attempt(line, f"{chunk.path}:{line.number}")

    def row(self, record: Line, place: str) -> Row:
        try:
            text = record.content.decode()
        except UnicodeDecodeError as error:
            message = f"not UTF-8 at byte {record.offset + error.start} of the file"
            if not record.ended and error.reason == "unexpected end of data":
                raise _cut_off(message) from error
            raise BadRowError(message, hint="save the file as UTF-8") from error
        try:
            fields = parse(text)
        except UnfinishedRowError as error:
            if record.ended or not text.lstrip().startswith("{"):
                raise
            raise _cut_off(error.message) from error
        return self.row_of(self.renamed(fields), place)


def _cut_off(message: str) -> BadRowError:
    return BadRowError(f"{message}; the file ends in this line", hint="it looks cut off: copy it again")


def _chunk(path: str, lines: list[Line], size: int) -> Chunk:
    """An archive unpacks to more bytes than it has, so its position is not known."""
    end = lines[-1].offset + len(lines[-1].content)
    return Chunk(path, len(lines), lines, end / size if 0 < end <= size and not path.endswith(".gz") else None)


def _file(path: str, origin: str) -> Path:
    if path == BUILTIN_DATA:
        return bundled("arithmetic") / f"{origin}.jsonl"
    if path.startswith(BUILTIN):
        raise DataError(f"data.{origin}_path: there is no {path}", hint=f"what ships with grpo is {BUILTIN_DATA}")
    return Path(path).expanduser()
