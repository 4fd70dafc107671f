"""`grpo inspect-rewards`: look at the rewards before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Verify,
)
from grpo_cli.output import Output, count
from grpo_cli.rewards_view import show
from grpo_cli.stages_view import show_states

if TYPE_CHECKING:
    from pipelines.config import ExperimentConfig
    from pipelines.inspect_rewards import Request
    from pipelines.stages.store import StageResult


GOLD_ROWS, SAMPLED_ROWS = 200, 50

Samples = Annotated[
    int | None,
    typer.Option("--samples", "-n", min=1, metavar="N", help="Score so many fresh samples a row.", show_default=False),
]
Rows = Annotated[
    int | None,
    typer.Option(
        min=1, help=f"Training rows to score ({GOLD_ROWS}), or to sample for ({SAMPLED_ROWS}).", show_default=False
    ),
]


def inspect_rewards(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    completions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Score these: JSONL rows as in the data set plus "generated".'),
    ] = None,
    samples: Samples = None,
    checkpoint: Checkpoint = None,
    rows: Rows = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page to look at.")] = None,
    check: Check = False,
    force: Force = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Score completions and look for trouble in the rewards.

    Gold completions of the training rows; or --completions FILE; or --samples N of --checkpoint DIR (default: the
    newest of the run, or the starting model, `base`). --check exits with 1 if there is anything to warn of.
    """
    from pipelines import inspect_rewards as stage
    from pipelines import preprocess
    from pipelines.config import load
    from pipelines.monitoring.visible import visible

    out = Output(json, quiet, verbose)
    read = load(config, overrides)
    loaded = read.config
    with read.placing():
        request = _request(loaded, completions, samples, checkpoint, rows)
        stage.composer_of(loaded)  # a typo is told before any work
        if request.source == "samples":
            out.note(f"inspect-rewards: samples of {request.target.describe(loaded)}")
        if dry_run or explain:
            first = preprocess.state(loaded, verify=verify) if completions is None else None
            found = stage.state(loaded, request, verify=verify) if first is None or first.status == "cached" else first
            show_states(out, [found])
            return
        if completions is None:
            preprocess.run(loaded, verify=verify)
        result = stage.run(loaded, request, force=force, verify=verify)
        _show(out, result)
        if html is not None:
            stage.write_page(result, html)
            out.note(f"page: {html}")
        for warning in result.summary["warnings"]:
            out.warn(visible(" ".join(warning.split())))
        out.note(f"{count(result.summary['rows'], 'row')} ({result.status}: {result.directory})")
        if check and result.summary["warnings"]:
            raise typer.Exit(1)


def _show(out: Output, result: StageResult) -> None:
    from pipelines import inspect_rewards as stage

    records = list(stage.records(result))
    if out.json:
        out.data([{field: record[field] for field in stage.ROW_FIELDS} for record in records])
    else:
        show(out, result.summary, records)


def _request(
    config: ExperimentConfig, completions: Path | None, samples: int | None, checkpoint: Path | None, rows: int | None
) -> Request:
    """What the options ask for; --checkpoint alone means one sample a row."""
    from pipelines.errors import ConfigError
    from pipelines.evaluation.targets import target
    from pipelines.inspect_rewards import Request

    if completions is not None:
        others = {"--samples": samples, "--checkpoint": checkpoint, "--rows": rows}
        if given := [name for name, value in others.items() if value is not None]:
            raise ConfigError(f"--completions and {given[0]} exclude each other", hint="give one of them")
        return Request("completions", completions=completions)
    if samples is None and checkpoint is None:
        return Request("gold", rows or GOLD_ROWS)
    return Request("samples", rows or SAMPLED_ROWS, samples or 1, target=target(config, checkpoint))
