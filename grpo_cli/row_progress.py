"""How far rows have come: a bar on a terminal, a note now and then anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from grpo_cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

NOTED_EVERY_ROWS = 50_000


class RowProgress:
    """Call it with a source, its rows so far, and how much of it they are (0 to 1, or None); use it in `with`."""

    def __init__(self, out: Output) -> None:
        from pipelines.monitoring.progress import wants_live_view

        self._out = out
        self._live = wants_live_view() and not out.quiet and not out.json
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._noted: dict[str, int] = {}

    def __call__(self, source: str, rows: int, position: float | None) -> None:
        if self._live:
            self._draw(source, rows, position)
        elif rows // NOTED_EVERY_ROWS > self._noted.get(source, 0):
            self._noted[source] = rows // NOTED_EVERY_ROWS
            self._out.note(f"  {source}: {rows:,} rows" + ("" if position is None else f" ({position:.0%})"))

    def __enter__(self) -> RowProgress:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, source: str, rows: int, position: float | None) -> None:
        if self._bar is None:
            self._bar = _started_bar()
        if source not in self._tasks:
            self._tasks[source] = self._bar.add_task(source, total=None, rows="")
        total = None if position is None else 1.0
        self._bar.update(self._tasks[source], total=total, completed=position or 0, rows=f"{rows:,} rows")


def _started_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
    clocks = (TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, *clocks, console=Console(stderr=True), redirect_stdout=False, transient=True)
    bar.start()
    return bar
