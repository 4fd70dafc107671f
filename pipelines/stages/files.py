"""Small files that are either there whole or not at all: temporary file, fsync, rename, fsync of the directory."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from pipelines.errors import StageError

TEMPORARY_SUFFIX = ".grpo-tmp"


def sync_directory(directory: Path) -> None:
    """Make renames and new names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically and durably; a reader sees the old bytes or the new ones, never half."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_json(path: Path) -> Any:
    """The parsed file; None if it does not exist; `StageError` if it is not JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, OSError) as error:
        raise StageError(f"{path} cannot be read: {error}", hint="check its permissions, or remove it") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is not JSON: {error}", hint="it was cut short or edited; remove it") from error


def is_temporary(path: Path) -> bool:
    """Whether a file is a leftover of an interrupted `write_json`."""
    return path.name.endswith(TEMPORARY_SUFFIX)
