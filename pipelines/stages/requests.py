"""What was asked for, in the words it was asked in, so that `status` can ask the same again.

A note beside an entry's outputs, in no key and no manifest: one result may answer several requests, such as the model
by its directory and the same one as the newest. Of two notes written at the same time the later may win.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.errors import StageError
from pipelines.files import read_json, write_json

REQUESTS_FILE = "requests.json"
REQUESTS_FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A model in words (`base`, `last`, `best`, a directory) and the files that came with it, by name."""

    target: str
    files: dict[str, str] = field(default_factory=dict[str, str])
    asked_ns: int = 0
    """When it was last asked for, in nanoseconds of the clock on the wall."""


def note(directory: Path, target: str, files: Mapping[str, Path] | None = None) -> None:
    """Remember that a complete entry was asked for; a read-only store remembers nothing and says so at debug."""
    if not directory.is_dir():
        return  # freed by another process just now
    request = Request(target, {name: str(path) for name, path in (files or {}).items()}, time.time_ns())
    others = [other for other in noted(directory) if other.target != target]
    try:
        records = [asdict(each) for each in (request, *others)]
        write_json(directory / REQUESTS_FILE, {"format": REQUESTS_FORMAT, "requests": records})
    except OSError as error:
        log.debug("the request is not remembered: %s", error)


def noted(directory: Path) -> list[Request]:
    """What an entry was asked for; empty if that is not known or cannot be read."""
    try:
        record = cast("dict[str, Any] | None", read_json(directory / REQUESTS_FILE))
        if record is None or record["format"] != REQUESTS_FORMAT:
            return []
        return [
            Request(str(each["target"]), {str(k): str(v) for k, v in each["files"].items()}, int(each["asked_ns"]))
            for each in record["requests"]
        ]
    except (StageError, KeyError, TypeError, ValueError, AttributeError) as error:
        log.debug("%s tells nothing: %s", directory / REQUESTS_FILE, error)
        return []
