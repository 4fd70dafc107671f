"""The lines of a JSONL file, plain or gzip, as bytes that were split on newline bytes and nothing else.

Whatever is wrong with the file as a whole (a directory, a pipe, a page of HTML, a cut archive) is told here.
"""

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from pipelines.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
LONGEST_LINE_BYTES = 64 << 20
FOREIGN = {
    b"version https://git-lfs": ("a git-lfs pointer, not the data it points to", "run `git lfs pull`"),
    b"<": ("a web page or XML, not JSONL", "download the file itself, not the page that shows it"),
    b"\xff\xfe": ("UTF-16", "save the file as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save the file as UTF-8"),
    b"PAR1": ("a parquet file", "write it as JSONL"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"\x93NUMPY": ("a NumPy array", "set data.loader_type to npy and give the prefix of the arrays"),
}
"""How files begin that are something else: what they are, and what to do."""


class Line(NamedTuple):
    """One line without its end; `number` counts from 1, `offset` is that of its first byte in the (unpacked) file."""

    number: int
    offset: int
    content: bytes
    ended: bool
    """False for a last line without a newline."""


def read_lines(path: Path) -> Iterator[Line]:
    """All lines that are not blank; DataError, with `path`, if the file is not one that can be read."""
    refuse_irregular(path)
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as stream:
            yield from _split(path, cast("IO[bytes]", stream))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is damaged or cut off: {error}", hint="copy the file again") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", hint="check the path and its permissions") from error


def _is_gzip(path: Path) -> bool:
    """By content: names lie."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def refuse_irregular(path: Path) -> None:
    """DataError for what cannot be opened and read to its end: nothing there, a directory, a pipe (it would hang)."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = f"paths are relative to the working directory, {Path.cwd()}"
        raise DataError(f"{path}: {reason}", hint=hint) from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: a directory", hint="give a file of rows, such as train.jsonl")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: not a regular file", hint="write pipes and devices to a file first")


def _split(path: Path, stream: IO[bytes]) -> Iterator[Line]:
    offset, first = 0, True
    number = 0
    while content := stream.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        if len(content) > LONGEST_LINE_BYTES:
            limit = f"longer than {LONGEST_LINE_BYTES >> 20} MiB"
            raise DataError(f"{path}:{number}: a line {limit}", hint="is this JSONL, one row a line?")
        start = offset
        offset += len(content)
        if number == 1 and content.startswith(BOM):
            content, start = content[len(BOM) :], len(BOM)
        ended = content.endswith(b"\n")
        content = content.rstrip(b"\r\n") if ended else content
        if not content.strip():
            continue
        if first:
            _refuse_foreign(path, content)
        first = False
        yield Line(number, start, content, ended)


def _refuse_foreign(path: Path, content: bytes) -> None:
    for beginning, (what, hint) in FOREIGN.items():
        if content.lstrip().startswith(beginning):
            raise DataError(f"{path}: {what}", hint=hint)
