"""Where words go: data on stdout, everything else on stderr; for people, or as JSON lines for programs."""

import dataclasses
import json as jsonlib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, cast

import typer

NUMBER_FORMAT = "{:.4g}"
UNSEEN = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What JSON may hold raw but a terminal should not: controls, directions, half characters. Written as `\\u009b`."""


class Output:
    """One command's voice.

    `data` and `table` write to stdout: readable text, or with `json` one strict JSON object a line (NaN becomes null).
    `note`, `detail` and `warn` write to stderr; `quiet` silences notes, `detail` needs `verbose`.
    """

    def __init__(self, json: bool = False, quiet: bool = False, verbose: int = 0) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose

    def data(self, value: Any, human: Callable[[], object] | None = None) -> None:
        """One result. In JSON a mapping is one line and a list one line an item; for people `human()` renders it."""
        if not self.json and human is not None:
            human()
        elif not self.json and isinstance(value, str):
            typer.echo(value)
        else:
            for item in _items(value):
                typer.echo(to_json(item, indent=None if self.json else 2))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Rows under column names; in JSON one object a row, keyed by the column names."""
        rows = [list(row) for row in rows]
        if self.json:
            self.data([dict(zip(columns, row, strict=True)) for row in rows])
        elif sys.stdout.isatty():
            _rich_table(title, columns, rows)
        else:
            _plain_table(title, columns, rows)

    def stage(self, result: Any) -> None:
        """A stage's result in one line, the summary below."""
        self.data(result, human=lambda: self._stage_lines(result))

    def note(self, text: str) -> None:
        """Progress and explanations, silenced by -q."""
        if not self.quiet:
            typer.echo(text, err=True)

    def detail(self, text: str) -> None:
        """What only a curious reader wants, shown by -v."""
        if self.verbose:
            typer.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Something is likely not what the user wants; never silenced."""
        typer.echo(_coloured("warning:", typer.colors.YELLOW) + f" {text}", err=True)

    def _stage_lines(self, result: Any) -> None:
        typer.echo(stage_line(result))
        for line in _summary_lines(result.summary, "  "):
            typer.echo(line)


class _Relay(logging.Handler):
    """What our modules log: warnings as warnings, the rest as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        warning = record.levelno >= logging.WARNING
        typer.echo(_coloured("warning:", typer.colors.YELLOW) + f" {text}" if warning else text, err=True)


@contextmanager
def relayed(*, quiet: bool) -> Generator[None]:
    """Inside the block what `pipelines.*` logs is on stderr as it happens; with `quiet` only warnings are."""
    logger, relay = logging.getLogger("pipelines"), _Relay()
    earlier = logger.level
    logger.addHandler(relay)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(relay)
        logger.setLevel(earlier)


def error(message: str, hint: str = "") -> None:
    """The two lines of every failure, on stderr: `error: ...` and `hint: ...`."""
    typer.echo(_coloured("error:", typer.colors.RED) + f" {message}", err=True)
    if hint:
        typer.echo(_coloured("hint:", typer.colors.CYAN) + f" {hint}", err=True)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON of plain data, dataclasses, pydantic models, paths and array scalars; non-finite numbers are null."""
    text = jsonlib.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(value: Any) -> str:
    """One value as a person reads it: four significant digits, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return NUMBER_FORMAT.format(value + 0.0)  # a zero has no minus
    return str(value) if isinstance(value, (str, int, PurePath)) else to_json(value)


def stage_line(result: Any) -> str:
    """Stage, status, the seconds it took if it worked just now, and its directory."""
    seconds = "" if result.status == "cached" else f"{result.seconds:.1f} s  "
    return f"{result.stage}  {result.status}  {seconds}{result.directory}"


def _summary_lines(summary: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in summary.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}"
            yield from _summary_lines(cast("Mapping[str, Any]", value), indent + "  ")
        else:
            yield f"{indent}{key}: {cell(value)}"


def count(number: int, noun: str) -> str:
    """1 place, 2,000 places."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _items(value: Any) -> Iterable[Any]:
    if hasattr(value, "_asdict"):  # a named tuple is one record
        return [value]
    return cast(Iterable[Any], value) if isinstance(value, (list, tuple, Iterator)) else [value]


def _plain(value: Any) -> Any:
    """Only dict, list, str, int, float, bool and None, whatever comes in."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    for method in ("model_dump", "_asdict", "tolist"):  # pydantic, named tuples, numpy and mlx
        if hasattr(value, method):
            return _plain(getattr(value, method)())
    if isinstance(value, Iterable):
        return [_plain(item) for item in cast(Iterable[Any], value)]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _coloured(word: str, colour: str) -> str:
    plain = not sys.stderr.isatty() or "NO_COLOR" in os.environ
    return word if plain else typer.style(word, fg=colour, bold=True)


def _plain_table(title: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
    """Aligned columns without frames or truncation: for files, pipes and logs."""
    lines = [list(columns), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    right = [_numeric(rows, i) for i in range(len(columns))]
    if title:
        typer.echo(title)
    for line in lines:
        padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _rich_table(title: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 1)
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if _numeric(rows, i) else "left", overflow="fold")
    for row in rows:
        # Text: brackets in a cell are not markup
        table.add_row(*(value if isinstance(value, Text) else Text(cell(value)) for value in row))
    Console().print(table)


def _numeric(rows: list[list[Any]], i: int) -> bool:
    values = [row[i] for row in rows if row[i] is not None]
    return bool(values) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
