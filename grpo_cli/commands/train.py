"""`grpo train`: run or resume the training loop."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import ConfigFiles, DryRun, Explain, Force, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output

if TYPE_CHECKING:
    from pipelines.config import ExperimentConfig, Loaded


def train(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew; a run already in output_dir is kept as <name>.old-<n>.")
    ] = False,
    resume: Annotated[
        str, typer.Option(metavar="auto|STEP|DIR", help="Where to go on from: the newest checkpoint, or a certain one.")
    ] = "auto",
    max_time: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Save and end after so many minutes.", min=0, show_default=False),
    ] = None,
    force: Force = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train the model, or resume where the last run stopped."""
    from pipelines import preprocess
    from pipelines import train as stage
    from pipelines.config import load
    from pipelines.config.unfinished import refuse_unfinished
    from pipelines.errors import ConfigError
    from pipelines.training.options import Options

    if resume != "auto" and (fresh or force):
        raise ConfigError("--resume goes on from a checkpoint, --fresh and --force start anew", hint="give one of them")
    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    for warning in loaded.warnings:
        out.warn(warning)
    refuse_unfinished(loaded.config, "train")
    finished = stage.is_finished(loaded.config, verify=verify)
    if not finished or force or fresh:
        stage.check(loaded.config)  # what is wrong is told before any work
    if dry_run or explain:
        _show_plan(out, loaded, verify=verify, everything=dry_run and not explain)
        return
    if finished and resume != "auto":
        out.warn("the run is complete, so --resume changes nothing; --force starts it anew")
    first = preprocess.run(loaded.config, verify=verify)
    out.note(f"preprocess  {first.status}  {first.directory}")
    seconds = None if max_time is None else 60 * max_time
    options = Options(resume=resume, max_seconds=seconds, quiet=quiet)
    out.stage(stage.run(loaded.config, options=options, force=force, fresh=fresh, verify=verify))


def _show_plan(out: Output, loaded: Loaded, *, verify: bool, everything: bool) -> None:
    """The stages that would run and why; with --dry-run also every value with its origin, and the first prompt."""
    stages = _stages(loaded.config, verify=verify)
    record: dict[str, Any] = {"stages": stages}
    if everything:
        from pipelines import preprocess

        record["config"] = {key: {"value": value, "origin": loaded.origins[key]} for key, value in _leaves(loaded)}
        record["first_prompt"] = preprocess.preview(loaded.config).text
    out.data(record, human=lambda: _print_plan(out, record))


def _stages(config: ExperimentConfig, *, verify: bool) -> list[dict[str, Any]]:
    from pipelines import preprocess
    from pipelines import train as stage

    found = [preprocess.state(config, verify=verify)]
    if found[0].status == "cached":
        found.append(stage.state(config, verify=verify))
    rows: list[dict[str, Any]] = [
        {"stage": s.stage, "status": s.status, "why": s.reasons, "directory": s.directory} for s in found
    ]
    if len(rows) == 1:
        rows.append({"stage": "train", "status": "waits", "why": ["preprocess runs first"], "directory": None})
    return rows


def _print_plan(out: Output, record: dict[str, Any]) -> None:
    for key, cell in record.get("config", {}).items():
        out.data(f"{key} = {cell['value']}  ({cell['origin']})")
    for row in record["stages"]:
        out.data(f"{row['stage']}  {row['status']}  {row['directory'] or ''}".rstrip())
        for reason in row["why"]:
            out.data(f"  {reason}")
    if "first_prompt" in record:
        out.data(f"first prompt:\n{record['first_prompt']}")


def _leaves(loaded: Loaded) -> list[tuple[str, Any]]:
    """Every dotted key that has an origin, with its value, in the order of the schema."""
    from pipelines.config.yaml_writer import as_yaml

    document: Any = loaded.config.model_dump(mode="json")

    def value(key: str) -> str:
        return as_yaml(
            reduce(lambda found, part: found[int(part) if part.isdecimal() else part], key.split("."), document)
        )

    return [(key, value(key)) for key in loaded.origins]
