"""One worker per directory: a file lock beside it that the kernel frees when the process dies, however it dies.

The lock lives in `<parent>/.locks/`, not in the directory, which may be emptied or renamed while it is held. Workers
hold it exclusively; readers of an entry share it, so that nobody empties what they read.
"""

import fcntl
import logging
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
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
        stack.callback(_forget_holder, path)
        yield


@contextmanager
def hold_if_free(directory: Path) -> Generator[bool]:
    """Whether nobody works in a directory or reads it; if so, nobody does inside the block."""
    path = lock_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path, timeout=PROBE_SECONDS))
        except Timeout:
            yield False
        else:
            yield True


@contextmanager
def reading(directory: Path) -> Generator[None]:
    """Inside the block a directory is neither emptied nor freed. A place without working locks promises nothing."""
    path = lock_path(directory)
    with ExitStack() as stack:
        with suppress(OSError):  # a store of somebody else's, or a file system without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def running(directory: Path) -> str | None:
    """Who works in a directory now, such as `process 4711 since 12:30:05`; None if nobody does. Writes nothing."""
    return _holder(lock_path(directory)) if _is_held(directory, fcntl.LOCK_SH) else None


def in_use(directory: Path) -> bool:
    """Whether somebody works in a directory or reads it. Writes nothing."""
    return _is_held(directory, fcntl.LOCK_EX)


def _is_held(directory: Path, kind: int) -> bool:
    """Whether a lock of this kind is refused now; where nobody can tell, it is not held."""
    try:
        descriptor = os.open(lock_path(directory), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)  # gives the lock back
    return False


def _note_holder(path: Path) -> None:
    """For people's eyes only; the lock itself is the kernel's."""
    with suppress(OSError):
        path.with_suffix(".holder").write_text(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")


def _forget_holder(path: Path) -> None:
    with suppress(OSError):
        path.with_suffix(".holder").unlink()


def _holder(path: Path) -> str:
    try:
        return path.with_suffix(".holder").read_text(errors="replace").strip() or "another process"
    except OSError:
        return "another process"
