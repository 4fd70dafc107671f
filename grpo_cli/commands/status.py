"""`grpo status`: what there is of every stage, and why it is not up to date."""

from typing import Annotated

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output
from grpo_cli.stages_view import show_states

SOMETHING_FOUND = 3


def status(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 if a stage is not up to date.")] = False,
    verify: Verify = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show every stage: cached, stale, partial, missing, and why.

    Of evaluations, samples and inspections the newest of each model that was asked is judged, by asking the same again.
    """
    from pipelines.config.loader import load
    from pipelines.status import needs_work, pipeline_status

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    for warning in loaded.warnings:
        out.detail(warning)
    states = pipeline_status(loaded.config, verify=verify)
    show_states(out, states)
    behind = needs_work(states)
    if check and behind:
        out.note("not up to date: " + ", ".join(state.stage for state in behind))
        raise typer.Exit(SOMETHING_FOUND)
