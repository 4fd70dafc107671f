"""`grpo status`: what there is of every stage, and why it is not up to date."""

from typing import Annotated

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output

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
    """Show every stage: cached, stale, partial, missing, and why."""
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # status looks at what is here; it downloads nothing
    from pipelines.config.loader import load
    from pipelines.plan import needs_work, pipeline_status

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    for warning in loaded.warnings:
        out.detail(warning)
    states = pipeline_status(loaded.config, verify=verify)
    if json:
        out.data(states)
    else:
        rows = [
            [state.stage if first else "", state.status if first else "", state.directory if first else "", reason]
            for state in states
            for first, reason in _numbered(state.reasons)
        ]
        out.table("", ["stage", "state", "directory", "why"], rows)
    behind = needs_work(states)
    if check and behind:
        out.note("not up to date: " + ", ".join(state.stage for state in behind))
        raise typer.Exit(SOMETHING_FOUND)


def _numbered(reasons: list[str]) -> list[tuple[bool, str]]:
    """Each reason with whether it is the first; one empty reason for none."""
    return [(index == 0, reason) for index, reason in enumerate(reasons or [""])]
