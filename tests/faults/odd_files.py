"""Data files as people have them, seen as wholes: how many rows they hold, or why they are refused.

Names say what the file is; the content may be a function where it is large. A refusal is what the message says after
the path.
"""

import codecs
import gzip
import io
import tarfile
from collections.abc import Callable

from odd_rows import GOOD

Content = bytes | Callable[[], bytes]

TEXT = GOOD.decode()
OTHER = b'{"prompt": "1+2=?", "completion": "3"}\n'
MANY = b"".join(b'{"prompt": "%d+1=?", "completion": "%d"}\n' % (i, i + 1) for i in range(100))


def tar_gz() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("rows.jsonl")
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
    return packed.getvalue()


def bomb(unit: bytes, megabytes: int = 1024) -> Callable[[], bytes]:
    """A gzip file that unpacks to `unit`, repeated, a thousand times as large."""
    return lambda: gzip.compress(unit * ((1 << 20) // len(unit))) * megabytes


ACCEPTED: dict[str, tuple[Content, int]] = {
    "plain": (GOOD + OTHER, 2),
    "no newline at the end": (GOOD + OTHER.rstrip(), 2),
    "CRLF": ((GOOD + OTHER).replace(b"\n", b"\r\n"), 2),
    "mixed line ends": (GOOD.replace(b"\n", b"\r\n") + OTHER, 2),
    "a lone carriage return at the end": (GOOD.replace(b"\n", b"\r"), 1),
    "byte order mark": (codecs.BOM_UTF8 + GOOD + OTHER, 2),
    "byte order mark and CRLF": (codecs.BOM_UTF8 + GOOD.replace(b"\n", b"\r\n"), 1),
    "byte order mark, then a blank line": (codecs.BOM_UTF8 + b"\r\n" + GOOD, 1),
    "blank lines": (b"\n\r\n  \n" + GOOD + b"\n\t\n" + OTHER + b"\n\n", 2),
    "vertical tabs and form feeds between rows": (GOOD + b"\x0b\x0c\n" + OTHER, 2),
    "gzip": (gzip.compress(GOOD + OTHER), 2),
    "gzip in two members": (gzip.compress(GOOD) + gzip.compress(OTHER), 2),
    "gzip in two members that split a row": (gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]), 1),
    "gzip with an empty member": (gzip.compress(b"") + gzip.compress(GOOD), 1),
    "gzip padded with zeros": (gzip.compress(GOOD) + bytes(512), 1),
    "gzip of a byte order mark": (gzip.compress(codecs.BOM_UTF8 + GOOD), 1),
    "a row of five megabytes": (b'{"prompt": "a", "completion": "b", "note": "' + b"x" * 5_000_000 + b'"}\n', 1),
}

REFUSED: dict[str, tuple[Content, str]] = {
    "empty": (b"", ": no rows"),
    "blank": (b"\n \r\n\t\n", ": no rows"),
    "only a byte order mark": (codecs.BOM_UTF8, ": no rows"),
    "gzip of nothing": (gzip.compress(b""), ": no rows"),
    "cut off": (GOOD + OTHER[:-9], ":2: not JSON: the value does not end in this line"),
    "cut off, says so": (GOOD + OTHER[:20], "; the file ends in this line"),
    "cut off in a character": (GOOD + b'{"prompt": "\xc3', f":2: not UTF-8 at byte {len(GOOD) + 12} of the file"),
    "carriage returns alone": ((GOOD + OTHER).replace(b"\n", b"\r"), ":1: more than one value in the line"),
    "two byte order marks": (codecs.BOM_UTF8 * 2 + GOOD, ":1: a byte order mark inside the file"),
    "joined files with marks": ((codecs.BOM_UTF8 + GOOD) * 2, ":2: a byte order mark inside the file"),
    "UTF-16": (TEXT.encode("utf-16"), ":1: UTF-16"),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), ":1: UTF-16"),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), ":1: NUL byte at character 2"),
    "UTF-32": (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), ":1: UTF-32"),
    "UTF-32, big end first": (codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), ":1: UTF-32"),
    "latin-1 after a mark": (codecs.BOM_UTF8 + b'{"prompt": "\xe9"}\n', ":1: not UTF-8 at byte 15 of the file"),
    "JSON array": (b"[" + GOOD.rstrip() + b", " + OTHER.rstrip() + b"]\n", ":1: a JSON array, not JSONL"),
    "JSON array over lines": (b"\n[\n  " + GOOD.rstrip() + b",\n  " + OTHER + b"]\n", ":2: a JSON array, not JSONL"),
    "empty JSON array": (b"[]", ":1: a JSON array, not JSONL"),
    "indented JSON": (b'{\n  "prompt": "a",\n  "completion": "b"\n}\n', ":1: not JSON: the value does not end in"),
    "JSON with a field of rows": (b'{"data": [' + GOOD.rstrip() + b"]}\n", ":1: no field 'prompt'; the row has 'data'"),
    "JSON text sequence": (b"\x1e" + GOOD, ":1: not JSON: Expecting value (character 1)"),
    "rows between commas": (GOOD.replace(b"\n", b",\n") + OTHER, ":1: more than one value in the line"),
    "comment before the rows": (b"# made today\n" + GOOD, ":1: not JSON but what looks like a comment"),
    "CSV": (b"prompt,completion\n1+1=?,2\n", ":1: not JSON but what looks like comma-separated values"),
    "CSV with a mark": (codecs.BOM_UTF8 + b"prompt;completion\n", ":1: not JSON: Expecting value"),
    "TSV": (b"prompt\tcompletion\n", ":1: not JSON but what looks like tab-separated values"),
    "YAML": (b"- prompt: a\n  completion: b\n", ":1: not JSON but what looks like YAML"),
    "TOML": (b'[[rows]]\nprompt = "a"\n', ":1: a JSON array, not JSONL"),
    "web page": (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", ":1: a web page or XML, not JSONL"),
    "web page after blank lines": (b"\n\n  <html></html>\n", ":3: a web page or XML, not JSONL"),
    "web page with a mark": (codecs.BOM_UTF8 + b"<html></html>\n", ":1: a web page or XML, not JSONL"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        ":1: a git-lfs pointer, not the data it points to",
    ),
    "plain text": (b"Not Found\n", ":1: not JSON: Expecting value (character 1)"),
    "answer of a server": (b'{"error": "Entry not found"}\n', ":1: no field 'prompt'; the row has 'error'"),
    "parquet": (b"PAR1\x15\x04\x15\x0a" + bytes(99), ":1: a parquet file"),
    "arrow": (b"ARROW1\0\0\xff\xff\xff\xff", ":1: an arrow file"),
    "arrow as a stream": (b"\xff\xff\xff\xff\x78\0\0\0", ":1: a stream of arrow tables"),
    "zip": (b"PK\x03\x04\x14\0", ":1: a zip archive"),
    "bzip2": (b"BZh91AY&SY", ":1: a bzip2 archive"),
    "xz": (b"\xfd7zXZ\0\0\x04", ":1: an xz archive"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x26", ":1: a zstd archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c", ":1: a 7z archive"),
    "rar": (b"Rar!\x1a\x07\0", ":1: a RAR archive"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40", ":1: an lz4 archive"),
    "tar": (gzip.decompress(tar_gz()), ":1: a tar archive"),
    "tar in gzip": (tar_gz(), ":1: a tar archive"),
    "gzip in gzip": (gzip.compress(gzip.compress(GOOD)), ":1: gzip inside gzip"),
    "SQLite": (b"SQLite format 3\0\x10\0\x01\x01", ":1: an SQLite database"),
    "NumPy": (b"\x93NUMPY\x01\0v\0{'descr': '<i4'}\n", ":1: a NumPy array"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.", ":1: not UTF-8 at byte 0 of the file"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ":1: not UTF-8 at byte 0 of the file"),
    "zeros": (bytes(100_000), ":1: NUL byte at character 1"),
    "gzip cut off": (gzip.compress(MANY, mtime=0)[:-40], ": the gzip data is damaged or cut off"),
    "gzip without its checksum": (gzip.compress(GOOD)[:-8], ": the gzip data is damaged or cut off"),
    "gzip of ten bytes": (gzip.compress(GOOD)[:10], ": the gzip data is damaged or cut off"),
    "gzip of two bytes": (b"\x1f\x8b", ": the gzip data is damaged or cut off"),
    "gzip with a wrong checksum": (gzip.compress(GOOD)[:-8] + bytes(8), ": the gzip data is damaged or cut off"),
    "gzip with a wrong method": (b"\x1f\x8b\x07" + gzip.compress(GOOD)[3:], ": the gzip data is damaged or cut off"),
    "gzip damaged inside": (gzip.compress(GOOD)[:12] + b"\xff" * 30, ": the gzip data is damaged or cut off"),
    "gzip and something else": (gzip.compress(GOOD) + b"more", ": the gzip data is damaged or cut off"),
    "a gigabyte of spaces": (bomb(b" "), ":1: a line longer than 64 MiB"),
    "a gigabyte of newlines": (bomb(b"\n"), ":1000001: the last 1,000,001 lines are blank"),
    "a gigabyte of zeros": (bomb(b"\0"), ":1: a line longer than 64 MiB"),
}
