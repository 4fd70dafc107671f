"""One checkpoint directory: complete if and only if it holds `manifest.json`, which is written last.

The manifest lists every file with size and sha256, so that damage is found, and marks the directory as ours.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import CheckpointError
from pipelines.files import read_json, sha256_of_file, sync_directory, sync_file, write_json

MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.json"
KIND = "grpo checkpoint"
FORMAT = 1

NOBODYS = frozenset({".DS_Store", "Thumbs.db"})
"""Files that an operating system puts anywhere."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete, intact checkpoint; `state` is what was given when it was saved."""

    path: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True)
class FileRecord:
    """One file, `path` relative to the directory with forward slashes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself; `metric` is the value of `metric_name` at its step, if there was one."""

    step: int
    metric_name: str
    metric: float | None
    files: tuple[FileRecord, ...]


def seal(directory: Path, step: int, state: dict[str, Any], metric_name: str, metric: float | None) -> None:
    """Write state.json, bring every file to the disk, and write the manifest: from here on the directory is complete.

    A metric that is not finite counts as none. Raises TypeError or ValueError for a state that JSON cannot hold.
    """
    write_json(directory / STATE_FILE, {"format": FORMAT, "step": step, "state": state})
    files = tuple(_record(directory, path) for path in _files(directory))
    for folder in {(directory / record.path).parent for record in files}:
        sync_directory(folder)
    finite = metric if metric is not None and math.isfinite(metric) else None
    manifest = asdict(Manifest(step, metric_name, finite, files))
    write_json(directory / MANIFEST_FILE, {"format": FORMAT, "kind": KIND} | manifest)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest; None if the directory has none; CheckpointError if it cannot be understood."""
    record = read_json(directory / MANIFEST_FILE, CheckpointError)
    if record is None:
        return None
    try:
        if (record["kind"], record["format"]) != (KIND, FORMAT):
            raise ValueError(f"it is a {record['kind']!r} of format {record['format']!r}")
        files = tuple(FileRecord(str(f["path"]), int(f["size_bytes"]), str(f["sha256"])) for f in record["files"])
        metric = record["metric"]
        return Manifest(
            int(record["step"]), str(record["metric_name"]), None if metric is None else float(metric), files
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / MANIFEST_FILE} is not the manifest of a checkpoint: {error!r}",
            hint="it was edited or damaged; use another checkpoint",
        ) from error


def problems(directory: Path, *, verify: bool, step: int | None = None) -> list[str]:
    """Why a directory is no usable checkpoint (of `step`), a line each; empty if it is. `verify` reads every byte."""
    if not directory.is_dir():
        return ["there is no such directory"]
    try:
        manifest = read_manifest(directory)
        if manifest is None:
            return [f"there is no {MANIFEST_FILE}: it was not finished, or the file was removed"]
        if step is not None and step != manifest.step:
            return [f"it is a copy of step {manifest.step}"]
        lines = [line for record in manifest.files if (line := _damage(directory, record, verify=verify))]
        return lines or ([] if _state(directory) is not None else [f"{STATE_FILE}: gone"])
    except CheckpointError as error:
        return [error.message]


def read(directory: Path) -> Checkpoint:
    """The checkpoint in a directory without `problems`; CheckpointError if it is gone or cannot be read."""
    manifest, state = read_manifest(directory), _state(directory)
    if manifest is None or state is None:
        raise CheckpointError(f"{directory} has no manifest or state", hint="it was deleted while it was read")
    return Checkpoint(directory, manifest.step, state)


def foreign_files(directory: Path, manifest: Manifest) -> list[str]:
    """Files that somebody else put into a checkpoint."""
    ours = {record.path for record in manifest.files} | {MANIFEST_FILE}
    return [path for path in _files(directory) if path not in ours and Path(path).name not in NOBODYS]


def _files(directory: Path) -> Iterator[str]:
    found = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())
    return (path for path in sorted(found))


def _record(directory: Path, path: str) -> FileRecord:
    full = directory / path
    sync_file(full)
    return FileRecord(path, full.stat().st_size, sha256_of_file(full))


def _damage(directory: Path, record: FileRecord, *, verify: bool) -> str | None:
    path = directory / record.path
    try:
        size_bytes = path.stat().st_size
        if size_bytes != record.size_bytes:
            return f"{record.path}: {size_bytes} bytes instead of {record.size_bytes}"
        if verify and sha256_of_file(path) != record.sha256:
            return f"{record.path}: content changed (sha256 differs)"
    except FileNotFoundError:
        return f"{record.path}: gone"
    except OSError as error:
        return f"{record.path}: cannot be read ({error.strerror})"
    return None


def _state(directory: Path) -> dict[str, Any] | None:
    record = read_json(directory / STATE_FILE, CheckpointError)
    return record["state"] if isinstance(record, dict) and isinstance(record.get("state"), dict) else None
