"""Digests of content: sha256 of files, of named sets of files, and a cache so that big weights are read once.

The cache remembers a file by path, size, modification and change time and inode. A modification time can be set back,
the change time cannot: the kernel sets it at every write. What changes without it, such as a failing disk, is found by
whoever does not believe the cache. A lost, damaged or half-written cache costs a second reading and nothing else.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from pipelines.errors import StageError
from pipelines.files import read_json, sha256_of_stream, write_json
from pipelines.stages.identity import digest_of

CACHE_FILE = "digests.json"
CACHE_FORMAT = 1
SETTLED_SECONDS = 2.0
"""A younger file could change again within its time stamp's resolution, so its digest is not remembered."""

log = logging.getLogger(__name__)


def of_file(path: Path, cache: "DigestCache | None" = None) -> str:
    """sha256 (hex) of a file's bytes; `StageError` if it cannot be read or changes while it is read."""
    if cache is not None:
        return cache.of_file(path)
    return _read(path)[0]


def of_tree(files: Mapping[str, Path], cache: "DigestCache | None" = None) -> str:
    """One digest for a set of files, each under a name of the caller's: the place on disk does not matter."""
    return digest_of({name: of_file(path, cache) for name, path in files.items()})


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> tuple[str, list[int]]:
    """The digest and the stamp of the very bytes that were read."""
    try:
        with path.open("rb") as stream:
            before = _stamp(os.fstat(stream.fileno()))
            sha256 = sha256_of_stream(stream)
            after = _stamp(os.fstat(stream.fileno()))
    except OSError as error:
        raise StageError(f"cannot read {path}: {error.strerror}", hint="check the path and its permissions") from error
    if before[:2] != after[:2]:
        raise StageError(f"{path} changed while it was read", hint="wait until it is complete, then run again")
    return sha256, after


class DigestCache:
    """Digests of files that did not change, kept in `<root>/digests.json`; call `save` when done, or write nothing.

    `believe=False` reads every file once, whatever is remembered.
    """

    def __init__(self, root: Path, *, believe: bool = True) -> None:
        self.path = root / CACHE_FILE
        self._known = self._load() if believe else {}
        self._new: dict[str, dict[str, Any]] = {}

    def of_file(self, path: Path) -> str:
        """As the module's `of_file`; reads the bytes only if the file's stamp is new."""
        name = os.path.realpath(path)
        try:
            stamp = _stamp(Path(name).stat())
        except OSError as error:
            raise StageError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
        entry = self._new.get(name) or self._known.get(name)
        if entry is not None and entry["stamp"] == stamp:
            return entry["sha256"]
        now = time.time_ns()
        sha256, stamp = _read(Path(name))
        if now - max(stamp[1:3]) > SETTLED_SECONDS * 1e9:
            self._new[name] = {"stamp": stamp, "sha256": sha256}
        return sha256

    def save(self) -> None:
        """Merge what was learnt into the file, under a lock; a read-only store keeps nothing and says so at debug."""
        if not self._new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                merged = {**self._load(), **self._new}
                kept = {name: entry for name, entry in merged.items() if Path(name).exists()}
                write_json(self.path, {"format": CACHE_FORMAT, "files": kept})
        except OSError as error:
            log.debug("digests are not remembered: %s", error)
        self._known.update(self._new)
        self._new = {}

    def _load(self) -> dict[str, dict[str, Any]]:
        """What the file holds; anything that does not look right is dropped and will be read again."""
        try:
            record = read_json(self.path)
        except StageError as error:
            log.debug("digest cache starts anew: %s", error)
            return {}
        if not isinstance(record, dict):
            return {}
        content = cast("dict[str, Any]", record)
        files = content.get("files")
        if content.get("format") != CACHE_FORMAT or not isinstance(files, dict):
            return {}
        entries = cast("dict[str, Any]", files)
        return {name: entry for name, entry in entries.items() if _looks_right(entry)}


def _looks_right(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    fields = cast("dict[str, Any]", entry)
    stamp, sha256 = fields.get("stamp"), fields.get("sha256")
    return (
        isinstance(stamp, list)
        and len(cast("list[object]", stamp)) == 4
        and isinstance(sha256, str)
        and len(sha256) == 64
        and set(sha256) <= set("0123456789abcdef")
    )
