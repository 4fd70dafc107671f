"""`grpo inspect-rewards`: look at the rewards before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import (
    Check,
    Checkpoint,
    ConfigFiles,
    DryRun,
    Explain,
    Force,
    Json,
    Overrides,
    Quiet,
    Verbose,
)
from grpo_cli.output import Output, cell

if TYPE_CHECKING:
    from pipelines.stages.store import StageResult

SHOWN_ROWS = 20
EXCERPT = 48


def inspect_rewards(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    completions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Score these: JSONL rows as in the data set plus "generated".'),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Score fresh samples of the model.")] = False,
    checkpoint: Checkpoint = None,
    rows: Annotated[int, typer.Option(min=1, help="Training rows to score, or to sample for.")] = 200,
    check: Check = False,
    force: Force = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Score completions and look for trouble in the rewards.

    Gold completions of the training rows; or --completions FILE; or --samples of --checkpoint (default: the newest
    of the run, or the starting model). --check exits with 1 if there is anything to warn of.
    """
    from pipelines import inspect_rewards as stage
    from pipelines import preprocess
    from pipelines.config import load
    from pipelines.config.unfinished import refuse_unfinished
    from pipelines.errors import ConfigError
    from pipelines.evaluation.targets import STARTING_MODEL, target

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    if completions is not None and samples:
        raise ConfigError("--completions and --samples exclude each other", hint="give one of them")
    refuse_unfinished(loaded, "inspect-rewards")
    model = target(loaded, checkpoint) if samples else STARTING_MODEL
    source = "completions" if completions else "samples" if samples else "gold"
    request = stage.Request(source, rows, completions, model)
    stage.composer_of(loaded)  # a typo is told before any work
    if dry_run or explain:
        found = stage.state(loaded, request)
        out.table("", ("stage", "status", "why"), [(found.stage, found.status, "; ".join(found.reasons))])
        return
    if completions is None:
        preprocess.run(loaded)
    result = stage.run(loaded, request, force=force)
    if json:
        out.data([{field: record[field] for field in stage.ROW_FIELDS} for record in stage.records(result)])
    else:
        _show(out, result, list(stage.records(result)))
    for warning in result.summary["warnings"]:
        out.warn(warning)
    out.note(f"{result.summary['rows']} rows ({result.status}: {result.directory})")
    if check and result.summary["warnings"]:
        raise typer.Exit(1)


def _show(out: Output, result: StageResult, records: list[dict[str, Any]]) -> None:
    """Rows, distributions, and what adversarial texts get."""
    summary = result.summary
    names = [component["name"] for component in summary["components"]][:-1]
    shown = records if out.verbose else records[:SHOWN_ROWS]
    more = f", the first {len(shown)} of {len(records)} (-v shows all)" if len(shown) < len(records) else ""
    out.table(
        f"Rows{more}",
        ("row", "completion", "total", *names, "why"),
        [
            (each["row"], excerpt(each["generated"]), each["total"], *each["rewards"].values(), reasons(each))
            for each in shown
        ],
    )
    out.table(
        f"\nRewards on {summary['rows']} rows",
        ("reward", "values", "mean", "std", "min", "max", "0 to 1", "r(length)", "ms/row"),
        [_component(component, summary["rows"]) for component in summary["components"]],
    )
    if summary["attacks"]:
        out.table(
            f"\nTexts that deserve nothing (gold gets {cell(summary['gold'])})",
            ("text", "rows", "total"),
            [(attack["name"], attack["rows"], attack["total"]) for attack in summary["attacks"]],
        )


def _component(found: dict[str, Any], rows: int) -> tuple[Any, ...]:
    from pipelines.rewards.inspection import sparkline

    spread = (found["mean"], found["std"], found["low"], found["high"])
    milliseconds = 1000 * found["seconds"] / max(1, rows)
    return (found["name"], found["count"], *spread, sparkline(found["histogram"]), _correlation(found), milliseconds)


def _correlation(found: dict[str, Any]) -> float | None:
    value = found["length_correlation"]
    return None if value is None else round(value, 3)


def excerpt(text: str) -> str:
    """The beginning and the end of a text in one line."""
    line = " ".join(text.split())
    half = (EXCERPT - 3) // 2
    return line if len(line) <= EXCERPT else f"{line[:half]}...{line[-half:]}"


def reasons(record: dict[str, Any]) -> str:
    """What rewards said about a row, where they said anything and it is not full marks."""
    parts = (
        f"{name}: " + ", ".join(f"{key} {cell(value)}" for key, value in said.items())
        for name, said in record["reasons"].items()
        if record["rewards"].get(name) != 1.0
    )
    return "; ".join(parts)
