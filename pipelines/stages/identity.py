"""What a stage is made of: its name, an integer version, its part of the configuration, digests of its inputs.

Two runs with the same identity would write the same files, so one of them need not happen. The key is a hash over
canonical JSON: the same meaning gives the same bytes on every machine and in every Python.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipelines.errors import StageError
from pipelines.files import read_json, write_json

FORMAT = 1
"""Version of the identity itself; changing it makes every key new."""

IDENTITY_FILE = "identity.json"
SEAL = "sha256"
"""Key of a file's digest of itself."""

KEY_PATTERN = re.compile(r"[0-9a-f]{12}")


def canonical_json(value: object) -> str:
    """ASCII JSON with sorted keys, no spaces, shortest floats; `StageError` for what JSON cannot say exactly."""
    try:
        _refuse_foreign(value, "identity")
    except RecursionError as error:
        raise StageError("identity: nested too deeply", hint="was it edited?") from error
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: object) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def _refuse_foreign(value: object, where: str) -> None:
    """Only str keys (1 and "1" would collide), no NaN or infinity, no objects that have no JSON form."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise StageError(f"{where}: the key {key!r} is not text", hint="keys of an identity are strings")
            _refuse_foreign(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("list[object]", value)):
            _refuse_foreign(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise StageError(f"{where}: {value} has no place in an identity", hint="give a finite number")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise StageError(f"{where}: {type(value).__name__} has no JSON form", hint="use numbers, text, lists, objects")


@dataclass(frozen=True)
class Identity:
    """Everything that decides a stage's output; `config` and `inputs` are copied, so nobody can change them later."""

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]

    def __post_init__(self) -> None:
        # Through JSON and back: tuples become lists, so that an identity equals its own reading from disk.
        object.__setattr__(self, "config", json.loads(canonical_json(self.config)))
        object.__setattr__(self, "inputs", json.loads(canonical_json(self.inputs)))

    def as_dict(self) -> dict[str, Any]:
        """The object that is hashed and written to identity.json."""
        return {
            "format": FORMAT,
            "stage": self.stage,
            "version": self.version,
            "config": self.config,
            "inputs": self.inputs,
        }

    @property
    def digest(self) -> str:
        """sha256 (hex) of everything above."""
        return digest_of(self.as_dict())

    @property
    def key(self) -> str:
        """The first 12 hex digits of the digest: the name of the directory in the store."""
        return self.digest[:12]


def from_dict(record: object) -> Identity:
    """The inverse of `as_dict`; `StageError` if the record has another shape or another format."""
    if not isinstance(record, dict):
        raise StageError("an identity is a JSON object", hint="the file was damaged or written by something else")
    fields = cast("dict[str, Any]", record)
    shape = {"format": int, "stage": str, "version": int, "config": dict, "inputs": dict}
    wrong = [name for name, kind in shape.items() if not isinstance(fields.get(name), kind)]
    if wrong or fields["format"] != FORMAT:
        raise StageError(
            f"not an identity of format {FORMAT}: {', '.join(wrong) or 'format'} is wrong or missing",
            hint="the file was damaged, or written by another version of grpo",
        )
    return Identity(fields["stage"], fields["version"], fields["config"], fields["inputs"])


def write_identity(identity: Identity, directory: Path) -> None:
    """Claim a directory, before any work is done in it."""
    write_sealed(directory / IDENTITY_FILE, identity.as_dict())


def read_identity(directory: Path) -> Identity | None:
    """The identity a directory was claimed for; None if it has none; `StageError` if it cannot be read."""
    record = read_sealed(directory / IDENTITY_FILE)
    return None if record is None else from_dict(record)


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write JSON with a digest of itself, so that one wrong bit is never taken for another meaning."""
    write_json(path, {**record, SEAL: digest_of(record)})


def read_sealed(path: Path) -> object:
    """What `write_sealed` wrote, less the digest; None if there is no file; `StageError` if it is not what it was."""
    record: object = read_json(path)
    content = _as_object(record)
    seal = content.pop(SEAL, None)
    if seal is not None and digest_of(content) != seal:
        raise StageError(f"{path} is not what was written (its digest differs)", hint="it was edited or damaged")
    return record


def _as_object(record: object) -> dict[str, Any]:
    return cast("dict[str, Any]", record) if isinstance(record, dict) else {}
