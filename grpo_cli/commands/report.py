"""`grpo report`: one self-contained HTML file about one or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output

if TYPE_CHECKING:
    from pipelines.report import Written

MOST_SETTINGS = 4
"""Columns beside the scores that a terminal has room for."""


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Directories of runs; the configuration's without.", show_default=False
        ),
    ] = None,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; report.html in the run otherwise.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write one self-contained HTML file about one or more runs.

    Scores before and after, curves, samples, warnings, settings; several runs are laid over one another. It opens
    without a network, and may be written while a run goes on.
    """
    from pipelines import report as stage
    from pipelines.config import load

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    found = stage.run(loaded, runs or (), output)
    out.data(found, human=lambda: _show(out, found))


def _show(out: Output, found: Written) -> None:
    """Several runs side by side, then where the page is."""
    if len(found.runs) > 1 and not out.quiet:
        settings = list(dict.fromkeys(key for run in found.runs for key in run["settings"]))
        scores = list(dict.fromkeys(name for run in found.runs for name in run["scores"] | run["evaluations"]))
        shown = settings if len(settings) <= MOST_SETTINGS else []
        columns = ["run", *shown, "updates", "reward first", "last", *scores, "warnings"]
        out.table("", columns, [_line(run, shown, scores) for run in found.runs])
        if shown != settings:
            out.note(f"they differ in {len(settings)} settings, which the page lists")
    out.data(str(found.path))


def _line(run: dict[str, Any], settings: list[str], scores: list[str]) -> list[Any]:
    reward: dict[str, float] = run["reward"] or {}
    evaluated = {name: found["last"] for name, found in run["evaluations"].items()}
    measured = evaluated | {name: found.get("accuracy") for name, found in run["scores"].items()}
    return [
        run["name"],
        *(run["settings"].get(key) for key in settings),
        run["step"],
        *(reward.get(end) for end in ("first", "last")),
        *(measured.get(name) for name in scores),
        len(run["warnings"]),
    ]
