"""What the store could free: entries that no current stage would find again, and what interrupted work left behind.

Of the store only directories that a stage claimed are ever removed, `<root>/<stage>/<12 hex>` with an `identity.json`,
and files of our own making that nobody needs. Links are not followed, neither into the store nor out of it.

Runs that were set aside, `<run>.old-<n>`, are told of here and belong to people: only who asks for them frees them.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.errors import StageError
from pipelines.files import is_temporary, sync_directory
from pipelines.stages import locks, manifest
from pipelines.stages.identity import IDENTITY_FILE, Identity
from pipelines.stages.manifest import MANIFEST_FILE
from pipelines.stages.store import entries

UNFINISHED = "started, not finished"
EARLIER_RUN = "an earlier run that was set aside"
LEFT_OVER = "left over from work that was interrupted"
SETTLED_SECONDS = 3600.0
"""A younger temporary file may be one that is being written now, a younger lock one that is about to be taken."""

Kind = Literal["entry", "file", "locks", "old run"]

Unused = Callable[[Identity], list[str]]
"""Why no current stage would use an entry of this identity, as lines; empty = it is in use."""


@dataclass(frozen=True)
class Reclaimable:
    """Something that can go, what it takes, how old it is, and why nobody needs it.

    `again` says so once more when it is about to be freed: empty if somebody has found a use for it since.
    """

    kind: Kind
    stage: str
    path: Path
    size_bytes: int
    age_seconds: float
    reasons: list[str]
    again: Callable[[], list[str]] = field(compare=False, repr=False)


def reclaimable(root: Path | str, unused: Unused) -> list[Reclaimable]:
    """What could be freed of a store, by stage, the newest first; nothing that somebody works in or reads."""
    root = Path(root)
    return [*_entries(root, unused), *_left_over(root)]


def old_runs(output_dir: Path | str) -> list[Reclaimable]:
    """The runs that `--fresh` and `--force` set aside when they made a new one in `output_dir`, by number."""
    given = Path(output_dir)
    run = Path(os.path.realpath(given)) if given.is_symlink() else given
    pattern = re.compile(re.escape(run.name) + r"\.old-(\d+)")
    found = {int(match[1]): path for path in run.parent.glob("*") if (match := pattern.fullmatch(path.name))}
    return [
        _item("old run", "train", path, lambda path=path: [EARLIER_RUN] if _is_run(path) else [])
        for _, path in sorted(found.items())
        if _is_run(path)
    ]


def free(item: Reclaimable) -> bool:
    """Remove something for good; False if somebody uses it now, or has found a use for it since it was listed.

    Of a directory first its manifest goes, so that half of it is never taken for whole.
    """
    if item.kind in ("file", "locks"):
        for path in _idle_locks(item.path) if item.kind == "locks" else [item.path] * _is_forgotten(item.path):
            path.unlink(missing_ok=True)
        return True
    with locks.hold_if_free(item.path) as alone:
        if not alone or not item.again():
            return False
        (item.path / MANIFEST_FILE).unlink(missing_ok=True)
        sync_directory(item.path)
        shutil.rmtree(item.path)
    return True


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; links count as themselves."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def _item(kind: Kind, stage: str, path: Path, why: Callable[[], list[str]]) -> Reclaimable:
    return Reclaimable(kind, stage, path, size_bytes(path), max(0.0, _age(path)), why(), why)


def _age(path: Path) -> float:
    """Seconds since something was last written; below 0 where the clock was set back since."""
    return time.time() - path.lstat().st_mtime


def _folders(root: Path) -> Iterator[Path]:
    """The directories of the stages."""
    for path in sorted(root.glob("*")):
        if path.name != locks.LOCKS_DIRECTORY and path.is_dir() and not path.is_symlink():
            yield path


def _entries(root: Path, unused: Unused) -> Iterator[Reclaimable]:
    for folder in _folders(root):
        for entry in entries(root, folder.name):
            item = _item("entry", folder.name, entry, lambda entry=entry: _reasons(entry, unused))
            if item.reasons and not locks.in_use(entry):
                yield item


def _reasons(entry: Path, unused: Unused) -> list[str]:
    if entry.is_symlink() or not _is_ours(entry):
        return []
    try:
        record = manifest.read(entry)
    except StageError as error:
        return [error.message]
    return [UNFINISHED] if record is None else unused(record.identity)


def _is_ours(entry: Path) -> bool:
    """Whether a stage claimed a directory, or was cut off before it could."""
    own = all(path.name in manifest.OWN_FILES or _is_temporary_file(path) for path in entry.iterdir())
    return own or (entry / IDENTITY_FILE).is_file()


def _is_run(path: Path) -> bool:
    claimed = (path / IDENTITY_FILE).is_file() or (path / MANIFEST_FILE).is_file()
    return claimed and not path.is_symlink()


def _left_over(root: Path) -> Iterator[Reclaimable]:
    """Temporary files, and locks of entries that are gone."""
    folders = list(_folders(root))
    within = [entry for folder in folders for entry in entries(root, folder.name) if not entry.is_symlink()]
    for place in [root, *folders, *within]:
        for path in sorted(place.glob("*")):
            if _is_forgotten(path):
                yield _item("file", place.name, path, lambda path=path: [LEFT_OVER] if _is_forgotten(path) else [])
    for folder in folders:
        idle = _idle_locks(folder / locks.LOCKS_DIRECTORY)
        if idle:
            why = [f"{len(idle)} lock{'s' * (len(idle) > 1)} of entries that are gone"]
            size, age = sum(map(size_bytes, idle)), max(map(_age, idle))
            yield Reclaimable("locks", folder.name, folder / locks.LOCKS_DIRECTORY, size, age, why, lambda why=why: why)


def _is_temporary_file(path: Path) -> bool:
    return is_temporary(path) and path.is_file() and not path.is_symlink()


def _is_forgotten(path: Path) -> bool:
    return _is_temporary_file(path) and _age(path) > SETTLED_SECONDS


def _idle_locks(directory: Path) -> list[Path]:
    """The files in a `.locks` that guard nothing: their entry is gone, and nobody is about to make it."""
    if directory.is_symlink():
        return []
    return [path for path in sorted(directory.glob("*")) if path.suffix in {".lock", ".holder"} and _is_idle(path)]


def _is_idle(lock: Path) -> bool:
    entry = lock.parent.parent / lock.stem
    return not os.path.lexists(entry) and _age(lock) > SETTLED_SECONDS and not locks.in_use(entry)
