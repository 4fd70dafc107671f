"""The last file a stage writes: a directory is complete if and only if it holds `manifest.json`.

It lists every file with size and sha256, so that damage is found and so that what follows can be keyed by what this
stage *wrote* instead of by what it was asked to do. Versions and our own code are recorded, never keyed.
"""

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pipelines.errors import StageError
from pipelines.files import is_temporary, sync_directory, sync_file
from pipelines.stages import digest
from pipelines.stages.identity import IDENTITY_FILE, Identity, digest_of, from_dict, read_sealed, write_sealed
from pipelines.stages.requests import REQUESTS_FILE

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1
OWN_FILES = frozenset({IDENTITY_FILE, MANIFEST_FILE, REQUESTS_FILE})
RECORDED_PACKAGES = (
    *("grpo", "mlx", "mlx-lm", "transformers", "tokenizers", "numpy", "pydantic", "datasets"),
    *("math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym"),
)


@dataclass(frozen=True)
class FileRecord:
    """One output file, `path` relative to the directory with forward slashes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a complete directory says about itself."""

    identity: Identity
    files: tuple[FileRecord, ...]
    summary: dict[str, Any]
    seconds: float
    finished: str
    versions: dict[str, str]
    code: str

    @property
    def outputs_digest(self) -> str:
        """One digest of names and contents of all outputs; summary, times and versions have no part in it."""
        return digest_of({record.path: record.sha256 for record in self.files})


def output_files(directory: Path, unrecorded: Sequence[str] = ()) -> Iterator[str]:
    """Relative paths of all files, sorted, without our own, leftovers, and the patterns in `unrecorded`."""
    found: list[str] = []
    for folder, _, names in os.walk(directory):
        found += [(Path(folder) / name).relative_to(directory).as_posix() for name in names]
    for path in sorted(found):
        skipped = path in OWN_FILES or any(fnmatch(path, pattern) for pattern in unrecorded)
        if not skipped and not is_temporary(Path(path)) and (directory / path).is_file():
            yield path


def complete(
    directory: Path, identity: Identity, *, summary: dict[str, Any], seconds: float, unrecorded: Sequence[str] = ()
) -> Manifest:
    """Flush every output to disk, then write the manifest: from here on the directory is complete."""
    files = tuple(_record(directory, path) for path in output_files(directory, unrecorded))
    for folder in {(directory / record.path).parent for record in files}:
        sync_directory(folder)
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest = Manifest(identity, files, _plain(summary), round(seconds, 3), finished, versions(), code_digest())
    write_sealed(directory / MANIFEST_FILE, _as_dict(manifest))
    return manifest


def _plain(summary: Any) -> Any:
    """A summary as JSON keeps it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(summary, float) and not math.isfinite(summary):
        return None
    if isinstance(summary, dict):
        return {str(key): _plain(value) for key, value in cast("dict[object, object]", summary).items()}
    if isinstance(summary, (list, tuple)):
        return [_plain(value) for value in cast("list[object]", summary)]
    return summary if isinstance(summary, (str, int, float, bool, type(None))) else str(summary)


def _record(directory: Path, path: str) -> FileRecord:
    full = directory / path
    sync_file(full)
    return FileRecord(path, full.stat().st_size, digest.of_file(full))


def _as_dict(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": MANIFEST_FORMAT,
        "identity": manifest.identity.as_dict(),
        "files": [asdict(record) for record in manifest.files],
        "summary": manifest.summary,
        "seconds": manifest.seconds,
        "finished": manifest.finished,
        "versions": manifest.versions,
        "code": manifest.code,
    }


def read(directory: Path) -> Manifest | None:
    """The manifest; None if the directory is not complete; `StageError` if the file cannot be understood."""
    path = directory / MANIFEST_FILE
    record = read_sealed(path)
    if record is None:
        return None
    try:
        return _from_dict(cast("dict[str, Any]", record))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StageError(f"{path} is not a manifest: {error!r}", hint="it was edited or damaged; run again") from error


def _from_dict(record: dict[str, Any]) -> Manifest:
    if record["format"] != MANIFEST_FORMAT:
        raise ValueError(f"format {record['format']}, this version reads {MANIFEST_FORMAT}")
    files = tuple(
        FileRecord(str(item["path"]), int(item["size_bytes"]), str(item["sha256"])) for item in record["files"]
    )
    return Manifest(
        identity=from_dict(record["identity"]),
        files=files,
        summary=dict(record["summary"]),
        seconds=float(record["seconds"]),
        finished=str(record["finished"]),
        versions=dict(record["versions"]),
        code=str(record["code"]),
    )


def damages(directory: Path, manifest: Manifest, *, verify: bool = False) -> list[str]:
    """One line for each output that is gone or has another size; with `verify` also for other content.

    Of a folder that is gone with all its files there is one line.
    """
    lines: list[str] = []
    for record in manifest.files:
        path = directory / record.path
        if not _is_a(Path.is_file, path):
            lines.append(f"{_missing(directory, record.path)}: gone")
            continue
        size_bytes = path.stat().st_size
        if size_bytes != record.size_bytes:
            lines.append(f"{record.path}: {size_bytes} bytes instead of {record.size_bytes}")
        elif verify and digest.of_file(path) != record.sha256:
            lines.append(f"{record.path}: content changed (sha256 differs)")
    return list(dict.fromkeys(lines))


def _missing(directory: Path, path: str) -> str:
    """The outermost folder around a file that is not there, else the file."""
    folders = reversed(PurePosixPath(path).parents[:-1])
    return next((str(folder) for folder in folders if not _is_a(Path.is_dir, directory / folder)), path)


def _is_a(kind: Callable[[Path], bool], path: Path) -> bool:
    """False as well for what cannot be a name, in a manifest that somebody edited."""
    try:
        return kind(path)
    except OSError:
        return False


def versions() -> dict[str, str]:
    """Python, platform and the packages that could change a result, from package metadata only."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    installed = {package: _installed(package) for package in RECORDED_PACKAGES}
    return found | {package: version for package, version in installed.items() if version is not None}


@cache
def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def drift(manifest: Manifest) -> str:
    """How the versions and the code that made a stage differ from today's, in one line; empty if they do not.

    A reason to look closer when a result surprises, and no reason to make it again.
    """
    now = versions()
    names = [*now, *(name for name in manifest.versions if name not in now)]
    parts = [
        f"{name} {manifest.versions.get(name, '(absent)')} (now {now.get(name, 'absent')})"
        for name in names
        if manifest.versions.get(name) != now.get(name)
    ]
    if manifest.code != code_digest():
        parts.append("other code of grpo")
    return f"made with {', '.join(parts)}" if parts else ""


@cache
def code_digest() -> str:
    """One digest of every Python file of this package: recorded, so that a surprise can be traced to a change."""
    package = Path(__file__).resolve().parent.parent
    return digest.of_tree({path.relative_to(package).as_posix(): path for path in package.rglob("*.py")})
