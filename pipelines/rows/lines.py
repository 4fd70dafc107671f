"""The lines of a JSONL file, plain or gzip, as bytes that were split on newline bytes and nothing else.

Whatever is wrong with the file as a whole (a directory, a pipe, a page of HTML, a cut archive) is told here.
"""

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from pipelines.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
LONGEST_LINE_BYTES = 64 << 20
MOST_BLANK_LINES = 1_000_000
"""So many in a row are no file of rows; archives of a few kilobytes unpack to billions of them."""

UNPACK = "unpack it first; of archives only gzip is read as it is"
FOREIGN = {
    b"version https://git-lfs": ("a git-lfs pointer, not the data it points to", "run `git lfs pull`"),
    b"<": ("a web page or XML, not JSONL", "download the file itself, not the page that shows it"),
    b"[": ("a JSON array, not JSONL", "write one object a line: `jq -c '.[]' FILE > rows.jsonl`"),
    b"\xff\xfe\x00\x00": ("UTF-32", "save the file as UTF-8"),
    b"\x00\x00\xfe\xff": ("UTF-32", "save the file as UTF-8"),
    b"\xff\xfe": ("UTF-16", "save the file as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save the file as UTF-8"),
    b"PAR1": ("a parquet file", "set data.loader_type to hf, or write it as JSONL"),
    b"ARROW1": ("an arrow file", "set data.loader_type to hf, or write it as JSONL"),
    b"\xff\xff\xff\xff": ("a stream of arrow tables", "name it *.arrow and set data.loader_type to hf"),
    GZIP_MAGIC: ("gzip inside gzip", "unpack it once"),
    b"PK\x03\x04": ("a zip archive", UNPACK),
    b"BZh": ("a bzip2 archive", UNPACK),
    b"\xfd7zXZ\x00": ("an xz archive", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!\x1a": ("a RAR archive", UNPACK),
    b"\x04\x22\x4d\x18": ("an lz4 archive", UNPACK),
    b"SQLite format 3": ("an SQLite database", "write the rows as JSONL"),
    b"\x93NUMPY": ("a NumPy array", "set data.loader_type to npy and give the prefix of the arrays"),
}
"""How files begin that are something else: what they are, and what to do."""

TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
KINDS = {
    stat.S_IFDIR: ("a directory", "give a file of rows, such as train.jsonl"),
    stat.S_IFIFO: ("not a regular file but a pipe", "write what it gives to a file first"),
    stat.S_IFSOCK: ("not a regular file but a socket", "write what it gives to a file first"),
    stat.S_IFCHR: ("not a regular file but a device", "give a file of rows, such as train.jsonl"),
    stat.S_IFBLK: ("not a regular file but a device", "give a file of rows, such as train.jsonl"),
}
"""What can have a path without being a file that is read to its end, as often as needed."""

ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How URLs begin; a path object has swallowed the second slash."""


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
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind == stat.S_IFREG:
            _refuse_made_up(path)
            return
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}", hint="make it readable, as with `chmod +r`") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}", hint=_nothing_there(path)) from error
    what, hint = KINDS.get(kind, ("not a regular file", "give a file of rows, such as train.jsonl"))
    raise DataError(f"{path}: {what}", hint=hint)


def _refuse_made_up(path: Path) -> None:
    """DataError for files of /proc and the like, which have no size, and may wait or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if os.fstat(descriptor).st_size == 0 and os.read(descriptor, 1):
            raise DataError(f"{path}: the system makes it up while it is read", hint="copy it to a file first")
    finally:
        os.close(descriptor)


def _nothing_there(path: Path) -> str:
    if ELSEWHERE.match(str(path)):
        return "files are read from this machine: download it first"
    if "$" in str(path):
        return "variables are not replaced here: write the path out"
    if "*" in str(path):
        return "patterns are not replaced here: name one file, such as `cat FILES > rows.jsonl` writes"
    return f"paths are relative to the working directory, {Path.cwd()}"


def _split(path: Path, stream: IO[bytes]) -> Iterator[Line]:
    offset, number, blank, first = 0, 0, 0, True
    while content := stream.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        start = offset
        offset += len(content)
        if number == 1 and content.startswith(BOM):
            content, start = content[len(BOM) :], len(BOM)
        ended = content.endswith(b"\n")
        whole = offset - start <= LONGEST_LINE_BYTES
        content = content.rstrip(b"\r\n") if ended else content
        if whole and not content.strip():
            blank += 1
            if blank > MOST_BLANK_LINES:
                raise DataError(f"{path}:{number}: the last {blank:,} lines are blank", hint=IS_THIS_JSONL)
            continue
        if first:
            _refuse_foreign(f"{path}:{number}", content)
        if not whole:
            limit = f"longer than {LONGEST_LINE_BYTES >> 20} MiB"
            raise DataError(f"{path}:{number}: a line {limit}", hint=IS_THIS_JSONL)
        first, blank = False, 0
        yield Line(number, start, content, ended)


IS_THIS_JSONL = "is this JSONL, one row a line?"


def _refuse_foreign(place: str, content: bytes) -> None:
    if content.startswith(TAR_MAGIC, TAR_MAGIC_AT):
        raise DataError(f"{place}: a tar archive", hint=UNPACK)
    content = content.lstrip()
    for beginning, (what, hint) in FOREIGN.items():
        if content.startswith(beginning):
            raise DataError(f"{place}: {what}", hint=hint)
