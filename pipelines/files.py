"""Small files that are either there whole or not at all: temporary file, fsync, rename, fsync of the directory."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import GrpoError, StageError

TEMPORARY_SUFFIX = ".grpo-tmp"
CHUNK_BYTES = 1 << 20


def sha256_of_stream(stream: BinaryIO) -> str:
    """sha256 (hex) of what is left to read, in constant memory."""
    hasher = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()


def sha256_of_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes; `OSError` if it cannot be read."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power cut."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Make renames and new names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically and durably; a reader sees the old bytes or the new ones, never half."""
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


def read_json(path: Path, raises: type[GrpoError] = StageError) -> Any:
    """The parsed file; None if it does not exist; the given error if it is not JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, OSError) as error:
        raise raises(f"{path} cannot be read: {error}", hint="check its permissions, or remove it") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise raises(f"{path} is not JSON: {error}", hint="it was cut short or edited; remove it") from error


def at_home(path: str | Path) -> Path:
    """The path with a leading `~` replaced; that of a user whom nobody knows stays, and names what is not there."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for such a user


def is_temporary(path: Path) -> bool:
    """Whether a file is a leftover of an interrupted `write_text`."""
    return path.name.endswith(TEMPORARY_SUFFIX)
