"""What there is of stages, as a table: for `status`, and for --explain and --dry-run of the commands that run one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grpo_cli.output import Output

if TYPE_CHECKING:
    from pipelines.stages.store import StageState


def show_states(out: Output, states: Sequence[StageState]) -> None:
    """One line a stage, and one more for each further reason; in JSON one object a stage."""
    if out.json:
        out.data(list(states))
        return
    asked = any(state.asked for state in states)
    columns = ["stage", "state", *(["asked for"] if asked else []), "directory", "why"]
    rows = [
        [*_once(state, asked=asked, first=not n), line]
        for state in states
        for n, line in enumerate(state.lines or [""])
    ]
    out.table("", columns, rows)


def _once(state: StageState, *, asked: bool, first: bool) -> list[str]:
    cells = [state.stage, state.status, *([state.asked] if asked else []), str(state.directory)]
    return cells if first else [""] * len(cells)
