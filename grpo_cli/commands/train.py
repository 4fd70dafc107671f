"""`grpo train`: run or resume the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import ConfigFiles, DryRun, Explain, Force, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.config import ExperimentConfig, Loaded
    from pipelines.training.options import Options


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
    probe_memory: Annotated[
        bool,
        typer.Option("--probe-memory", help="Make the longest two updates for their memory and time alone, and stop."),
    ] = False,
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
    from pipelines.errors import ConfigError
    from pipelines.hub import looking
    from pipelines.training.options import Options

    if resume != "auto" and (fresh or force):
        raise ConfigError("--resume goes on from a checkpoint, --fresh and --force start anew", hint="give one of them")
    options = Options(resume=resume, max_seconds=None if max_time is None else 60 * max_time, quiet=quiet)
    if not _leads(options, lambda: load(config, overrides).config, trains=not (dry_run or explain or probe_memory)):
        return
    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    for warning in loaded.warnings:
        out.warn(warning)
    with loaded.placing():
        finished = stage.is_finished(loaded.config, verify=verify)
        if not finished or force or fresh:
            with looking(only=dry_run or explain):
                stage.check(loaded.config)  # what is wrong is told before any work
        if dry_run or explain:
            _show_plan(out, loaded, verify=verify, everything=dry_run and not explain)
            return
        if finished and resume != "auto":
            out.warn("the run is complete, so --resume changes nothing; --force starts it anew")
        first = preprocess.run(loaded.config, verify=verify)
        out.note(f"preprocess  {first.status}  {first.directory}")
        if probe_memory:
            found = stage.probe(loaded.config)
            out.data(found, human=lambda: _print_forecast(out, found))
            return
        out.stage(stage.run(loaded.config, options=options, force=force, fresh=fresh, verify=verify))


def _leads(options: Options, load: Callable[[], ExperimentConfig], *, trains: bool) -> bool:
    """False for a process that `mlx.launch` started beside the first: what it has to do is done by then."""
    from pipelines import train as stage
    from pipelines.training import distributed

    if not trains:
        return not distributed.launched()
    if distributed.join().leads:  # before anything that takes long: the ranks wait for each other
        return True
    stage.follow(load, options)
    return False


def _show_plan(out: Output, loaded: Loaded, *, verify: bool, everything: bool) -> None:
    """The stages that would run and why; with --dry-run also values and origins, the first prompt and a forecast."""
    stages = _stages(loaded.config, verify=verify)
    record: dict[str, Any] = {"stages": stages}
    if everything:
        from pipelines import preprocess
        from pipelines import train as stage
        from pipelines.config.values import settings
        from pipelines.config.yaml_writer import as_yaml
        from pipelines.hub import NotHereError

        rows = settings(loaded.config, loaded.origins)
        record["config"] = {row.key: {"value": as_yaml(row.value), "origin": row.origin} for row in rows}
        try:
            record["first_prompt"] = preprocess.preview(loaded.config).text
        except NotHereError as error:
            record["first_prompt"] = error.message
        record |= stage.forecast(loaded.config)
    out.data(record, human=lambda: _print_plan(out, record))


def _stages(config: ExperimentConfig, *, verify: bool) -> list[dict[str, Any]]:
    from pipelines import preprocess
    from pipelines import train as stage
    from pipelines.status import train_that_waits

    first = preprocess.state(config, verify=verify)
    then = stage.state(config, verify=verify) if first.status == "cached" else train_that_waits(config)
    return [{"stage": s.stage, "status": s.status, "why": s.lines, "directory": s.directory} for s in (first, then)]


def _print_plan(out: Output, record: dict[str, Any]) -> None:
    for key, cell in record.get("config", {}).items():
        out.data(f"{key} = {cell['value']}  ({cell['origin']})")
    for row in record["stages"]:
        out.data(f"{row['stage']}  {row['status']}  {row['directory'] or ''}".rstrip())
        for reason in row["why"]:
            out.data(f"  {reason}")
    if "first_prompt" in record:
        out.data(f"first prompt:\n{record['first_prompt']}")
        _print_forecast(out, record)


def _print_forecast(out: Output, record: dict[str, Any]) -> None:
    from grpo_cli.forecast_view import measured_lines, memory_lines, time_lines

    for line in (*memory_lines(record["memory"]), *measured_lines(record), *time_lines(record["time"])):
        out.data(line)
