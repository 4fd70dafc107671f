"""Files of one strict JSON object a line, which survive being cut off and can be taken back to an earlier step."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.files import TEMPORARY_SUFFIX


def line(record: Mapping[str, Any]) -> str:
    """The record as one line: NaN and infinities are null, array scalars and arrays plain numbers and lists.

    Raises TypeError for a value without a JSON form. A lone surrogate must be written with `backslashreplace`.
    """
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value  # numpy and MLX


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file in order; lines that are no JSON object, such as one cut off by a kill, are passed over."""
    with path.open("rb") as stream:
        for raw in stream:
            record = _parsed(raw)
            if record is not None:
                yield record


def cut_after(path: Path, step: int) -> int:
    """Keep only the lines with a `step` of at most `step`, and return how many were dropped.

    The file is replaced whole or not at all; one without anything to drop is left as it is.
    """
    if not path.exists():
        return 0
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    dropped = 0
    with path.open("rb") as old, temporary.open("wb") as new:
        for raw in old:
            if _step(raw) <= step:
                new.write(raw if raw.endswith(b"\n") else raw + b"\n")
            else:
                dropped += 1
        new.flush()
        os.fsync(new.fileno())
    if dropped or not _ends_whole(path):
        temporary.replace(path)
    else:
        temporary.unlink()
    return dropped


def last_step(path: Path) -> int:
    """The highest `step` in a file; 0 if there is none, or no file."""
    if not path.exists():
        return 0
    steps = (record.get("step") for record in records(path))
    return max((step for step in steps if isinstance(step, int)), default=0)


def _step(raw: bytes) -> float:
    """The step of a line, later than any other if the line has none."""
    record = _parsed(raw)
    step = None if record is None else record.get("step")
    return step if isinstance(step, int) else math.inf


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(raw)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return record if isinstance(record, dict) else None


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, 2) == 0:
            return True
        stream.seek(-1, 2)
        return stream.read() == b"\n"
