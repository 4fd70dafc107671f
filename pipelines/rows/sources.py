"""From sources to rows: what is read as training and as validation rows, and what became of records that are none."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipelines.config import DataConfig
from pipelines.config.checks import LOADERS
from pipelines.errors import DataError
from pipelines.plugins import IMPORT_ERRORS
from pipelines.rows.loaders.base import BadRow, BaseLoader, TokenRow, about
from pipelines.rows.loaders.registry import loader_for
from pipelines.rows.records import Row

RowT = TypeVar("RowT")

MOST_BAD = 0.1
"""`on_bad_row: skip` gives up above this fraction of bad rows: then the file is not what it seems."""
SHOWN_BAD_ROWS = 3
MOST_REASONS = 20
OTHERS = "other reasons"
"""Reasons hold the bytes and characters where they were found, so a large file may have as many as bad rows."""


@dataclass
class ReadReport:
    """What was met while reading one source, or a part of it."""

    read: int = 0
    """Rows met, good or bad."""
    bad: Counter[str] = field(default_factory=Counter[str])
    """Rows skipped, by reason."""
    places: dict[str, str] = field(default_factory=dict[str, str])
    """The first place of each reason."""
    examples: list[str] = field(default_factory=list[str])
    """The first of them, with file, line and reason."""

    def skip(self, place: str, reason: str) -> None:
        """Count a bad row; beside those of MOST_REASONS, all are counted together."""
        if reason not in self.bad and len(self.bad) >= MOST_REASONS:
            reason = OTHERS
        self.bad[reason] += 1
        self.places.setdefault(reason, place)
        if len(self.examples) < SHOWN_BAD_ROWS:
            self.examples.append(f"{place}: {reason}")

    def add(self, later: "ReadReport") -> None:
        """Count what the next part of the source came to."""
        self.read += later.read
        for reason, rows in later.bad.items():
            known = reason in self.bad or len(self.bad) < MOST_REASONS
            self.bad[reason if known else OTHERS] += rows
            self.places.setdefault(reason if known else OTHERS, later.places[reason])
        self.examples += later.examples[: SHOWN_BAD_ROWS - len(self.examples)]

    def finish(self, path: str) -> None:
        """DataError if the source had no rows, or more than a tenth of them were bad."""
        if not self.read:
            raise DataError(f"{path}: no rows", hint="the file is empty, or blank: name one that holds rows")
        bad = self.bad.total()
        if bad > MOST_BAD * self.read:
            shown = "; ".join(self.examples)
            raise DataError(
                f"{path}: {bad} of {self.read} rows are bad, too many to skip: {shown}",
                hint=f"data.on_bad_row: skip accepts up to {MOST_BAD:.0%}; mend the file",
            )


def check_sources(loader: BaseLoader) -> None:
    """DataError, with the key, if a source cannot be opened, before anything reads it."""
    for origin, path in loader.sources().items():
        with about(origin):
            loader.check(path)


def told(items: Iterable[RowT], loader: BaseLoader) -> Iterator[RowT]:
    """The items; what the code of a plugin raises on the way is a DataError that says whose code it was."""
    try:
        yield from items
    except IMPORT_ERRORS as error:
        if loader.data.loader_type in LOADERS:
            raise
        raise DataError(
            f"data.loader_type: {loader.data.loader_type} failed: {type(error).__name__}: {error}",
            hint=f"the message comes from {type(loader).__qualname__}; a record that is no row raises BadRowError",
        ) from error


def usable(items: Iterable[RowT | BadRow], data: DataConfig, report: ReadReport) -> Iterator[RowT]:
    """What is a row. A record that is none is a DataError with its place, or counted, as `data.on_bad_row` says."""
    for item in items:
        report.read += 1
        if not isinstance(item, BadRow):
            yield item
            continue
        if data.on_bad_row == "error":
            raise DataError(f"{item.place}: {item.reason}", hint=item.hint)
        report.skip(item.place, item.reason)


def read_rows(path: Path | str, data: DataConfig, report: ReadReport | None = None) -> Iterator[Row | TokenRow]:
    """The rows of one source, at most `data.limit` records, one after the other and in this process."""
    loader = loader_for(data)
    report = ReadReport() if report is None else report
    for chunk in loader.cut(str(path)):
        yield from usable(loader.rows(chunk), data, report)
    report.finish(str(path))


def split_of(row: Row, origin: str, data: DataConfig) -> str:
    """By the row's own hash, so that it stays where it is when others come and go, and with its duplicates."""
    if origin != "train" or not data.val_fraction:
        return origin
    return "val" if fingerprint(row) < data.val_fraction * 2**64 else "train"


def fingerprint(row: Row) -> int:
    """64 bits of sha256 over what is asked (system and prompt, white space aside): equal for equal problems."""
    asked = row.prompt if isinstance(row.prompt, str) else "\0".join(f"{m['role']}:{m['content']}" for m in row.prompt)
    text = f"{row.system or ''}\0{' '.join(asked.split())}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
