"""What the store could free: entries that no current stage would find again, and what interrupted work left behind.

Only directories that a stage claimed are ever removed: `<root>/<stage>/<12 hex>` with an `identity.json`.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import StageError
from pipelines.files import sync_directory
from pipelines.stages import locks, manifest
from pipelines.stages.identity import IDENTITY_FILE, Identity
from pipelines.stages.manifest import MANIFEST_FILE
from pipelines.stages.store import entries

UNFINISHED = "started, not finished"

Unused = Callable[[Identity], list[str]]
"""Why no current stage would use an entry of this identity, as lines; empty = it is in use."""


@dataclass(frozen=True)
class Reclaimable:
    """An entry that can go, what it takes, and why nobody needs it."""

    stage: str
    directory: Path
    size_bytes: int
    reasons: list[str]


def reclaimable(root: Path | str, unused: Unused) -> list[Reclaimable]:
    """Everything that could be freed, by stage, the newest first; nothing that somebody works in."""
    return list(_reclaimable(Path(root), unused))


def _reclaimable(root: Path, unused: Unused) -> Iterator[Reclaimable]:
    stages = sorted(path.name for path in root.glob("*") if path.is_dir() and path.name != locks.LOCKS_DIRECTORY)
    for stage in stages:
        for entry in entries(root, stage):
            reasons = _reasons(entry, unused)
            if reasons and (entry / IDENTITY_FILE).is_file() and locks.running(entry) is None:
                yield Reclaimable(stage, entry, size_bytes(entry), reasons)


def _reasons(entry: Path, unused: Unused) -> list[str]:
    try:
        record = manifest.read(entry)
    except StageError as error:
        return [error.message]
    return [UNFINISHED] if record is None else unused(record.identity)


def free(item: Reclaimable) -> bool:
    """Remove an entry, first its manifest, so that half of it is never taken for whole; False if it is in use now."""
    if locks.running(item.directory) is not None:
        return False
    with locks.hold(item.directory, item.stage):
        (item.directory / MANIFEST_FILE).unlink(missing_ok=True)
        sync_directory(item.directory)
        shutil.rmtree(item.directory)
    return True


def size_bytes(directory: Path) -> int:
    """Bytes of all files below a directory, links not followed."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
