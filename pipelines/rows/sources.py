"""Where rows come from: files, the built-in task, generators; each row with the split it belongs to."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipelines.bundled import BUILTIN, bundled
from pipelines.config import DataConfig
from pipelines.errors import ConfigError, DataError
from pipelines.rows import arithmetic
from pipelines.rows.lines import Line, read_lines, refuse_irregular
from pipelines.rows.records import BadRowError, Row, parse, row_from

BUILTIN_DATA = "builtin:arithmetic"
MOST_BAD = 0.1
"""`on_bad_row: skip` gives up above this fraction of bad rows: then the file is not what it seems."""
SHOWN_BAD_ROWS = 3


class SplitRow(NamedTuple):
    """A row, the split it belongs to, and the source (`train` or `val`) it stood in."""

    split: str
    origin: str
    row: Row


@dataclass
class ReadReport:
    """What was met while reading one source; filled while its rows are consumed."""

    read: int = 0
    """Rows met, good or bad."""
    bad: Counter[str] = field(default_factory=Counter[str])
    """Rows skipped, by reason."""
    examples: list[str] = field(default_factory=list[str])
    """The first of them, with file, line and reason."""

    def skip(self, message: str, reason: str) -> None:
        """Count a bad row."""
        self.bad[reason] += 1
        if len(self.examples) < SHOWN_BAD_ROWS:
            self.examples.append(message)

    def refuse_too_many(self, path: str) -> None:
        """DataError if more than a tenth of the rows were bad."""
        bad = self.bad.total()
        if bad > MOST_BAD * self.read:
            shown = "; ".join(self.examples)
            raise DataError(
                f"{path}: {bad} of {self.read} rows are bad, too many to skip: {shown}",
                hint=f"data.on_bad_row: skip accepts up to {MOST_BAD:.0%}; mend the file",
            )


def split_rows(data: DataConfig, reports: dict[str, ReadReport] | None = None) -> Iterator[SplitRow]:
    """Every row of every source, streamed, with its split; `reports` receives one report a source."""
    reports = {} if reports is None else reports
    if data.loader_type == "synthetic":
        yield from _synthetic(data, reports)
        return
    for origin, path in source_paths(data).items():
        for row in read_rows(path, data, reports.setdefault(origin, ReadReport())):
            yield SplitRow(_split_of(row, origin, data), origin, row)


def source_paths(data: DataConfig) -> dict[str, str]:
    """The sources that are read, by name; the built-in training rows bring their validation rows along."""
    paths = {"train": data.train_path}
    if data.val_path is not None:
        paths["val"] = data.val_path
    elif data.train_path == BUILTIN_DATA and not data.val_fraction:
        paths["val"] = data.train_path
    return {origin: str(_file(path, origin)) for origin, path in paths.items()}


def check_sources(data: DataConfig) -> None:
    """DataError if a source cannot be opened, before anything reads it."""
    if data.loader_type == "jsonl":
        for path in source_paths(data).values():
            refuse_irregular(Path(path))


def read_rows(path: Path | str, data: DataConfig, report: ReadReport | None = None) -> Iterator[Row]:
    """The rows of one file, at most `data.limit`; DataError with file and line for one that cannot be used.

    With `data.on_bad_row: skip` bad rows are counted in `report`; more than a tenth of them is an error at the end.
    """
    if data.loader_type != "jsonl":
        raise ConfigError(f"data.loader_type: {data.loader_type} cannot be read yet", hint="use jsonl or synthetic")
    report = ReadReport() if report is None else report
    file = _file(str(path), "train")
    yield from islice(_good_rows(file, data, report), data.limit)
    if not report.read:
        raise DataError(f"{file}: no rows", hint="the file is empty")
    report.refuse_too_many(str(file))


def fingerprint(row: Row) -> int:
    """64 bits of sha256 over what is asked (system and prompt, white space aside): equal for equal problems."""
    asked = row.prompt if isinstance(row.prompt, str) else "\0".join(f"{m['role']}:{m['content']}" for m in row.prompt)
    text = f"{row.system or ''}\0{' '.join(asked.split())}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _split_of(row: Row, origin: str, data: DataConfig) -> str:
    """By the row's own hash, so that it stays where it is when others come and go, and with its duplicates."""
    if origin == "train" and data.val_path is None and fingerprint(row) < data.val_fraction * 2**64:
        return "val"
    return origin


def _file(path: str, origin: str) -> Path:
    if path == BUILTIN_DATA:
        return bundled("arithmetic") / f"{origin}.jsonl"
    if path.startswith(BUILTIN):
        raise DataError(f"data.{origin}_path: there is no {path}", hint=f"what ships with grpo is {BUILTIN_DATA}")
    return Path(path).expanduser()


def _good_rows(path: Path, data: DataConfig, report: ReadReport) -> Iterator[Row]:
    for line in read_lines(path):
        report.read += 1
        try:
            yield _row(line, path, data)
        except BadRowError as error:
            message = f"{path}:{line.number}: {error.message}"
            if data.on_bad_row == "error":
                raise DataError(message, hint=error.hint) from error
            report.skip(message, error.message)


def _row(line: Line, path: Path, data: DataConfig) -> Row:
    try:
        text = line.content.decode()
    except UnicodeDecodeError as error:
        offset = line.offset + error.start
        raise BadRowError(f"not UTF-8 at byte {offset} of the file", hint="save the file as UTF-8") from error
    try:
        record = parse(text)
    except BadRowError as error:
        if line.ended or not text.lstrip().startswith("{"):
            raise
        raise BadRowError(
            f"{error.message}; the file ends in this line", hint="it looks cut off: copy it again"
        ) from error
    return row_from(
        record,
        prompt_key=data.prompt_key,
        completion_key=data.completion_key,
        source=f"{path}:{line.number}",
    )


def _synthetic(data: DataConfig, reports: dict[str, ReadReport]) -> Iterator[SplitRow]:
    wanted = data.synthetic
    if wanted.task != "arithmetic":
        raise ConfigError(f"data.synthetic.task: {wanted.task} cannot be generated yet", hint="use arithmetic")
    if wanted.options:
        name = next(iter(wanted.options))
        raise ConfigError(f"data.synthetic.options: arithmetic has no option {name!r}", hint="leave options empty")
    splits = arithmetic.synthetic_splits(wanted.train_rows, wanted.val_rows, wanted.difficulty, wanted.seed)
    for split, problems in splits.items():
        report = reports.setdefault(split, ReadReport())
        for number, problem in enumerate(islice(problems, data.limit), start=1):
            report.read += 1
            prompt, completion = arithmetic.worked(problem)
            meta = {"operation": problem.operation}
            yield SplitRow(split, split, Row(prompt, completion, meta=meta, source=f"synthetic {split}:{number}"))
