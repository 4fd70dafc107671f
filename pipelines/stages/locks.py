"""One worker per directory: a file lock beside it that the kernel frees when the process dies, however it dies.

The lock lives in `<parent>/.locks/`, not in the directory, which may be emptied or renamed while it is held.
"""

import logging
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS_DIRECTORY = ".locks"
PROBE_SECONDS = 0.12
"""Long enough to tell a worker from another process that only looks."""

log = logging.getLogger(__name__)


def lock_path(directory: Path) -> Path:
    """Where a directory's lock file lies; one path for all ways to spell the directory."""
    real = Path(os.path.realpath(directory))
    return real.parent / LOCKS_DIRECTORY / f"{real.name}.lock"


@contextmanager
def hold(directory: Path, what: str) -> Generator[None]:
    """Work in a directory alone; waits as long as another process does, and says for whom."""
    path = lock_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path, timeout=PROBE_SECONDS))
        except Timeout:
            log.warning("%s: waiting for %s, which works in %s", what, _holder(path), directory)
            stack.enter_context(FileLock(path))
        _note_holder(path)
        yield


def running(directory: Path) -> str | None:
    """Who works in a directory right now, such as `process 4711 since 12:30:05`; None if nobody does."""
    path = lock_path(directory)
    if not path.exists():
        return None
    try:
        with FileLock(path, timeout=PROBE_SECONDS):
            return None
    except Timeout:
        return _holder(path)
    except PermissionError:
        return None  # a store of somebody else's that may only be read: no way to ask


def _note_holder(path: Path) -> None:
    """For people's eyes only; the lock itself is the kernel's."""
    path.with_suffix(".holder").write_text(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".holder").read_text() or "another process"
    except FileNotFoundError:
        return "another process"
