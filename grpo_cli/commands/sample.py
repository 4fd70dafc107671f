"""`grpo sample`: look at completions, their regions and what each reward says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import Checkpoint, ConfigFiles, DryRun, Explain, Force, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output, count
from grpo_cli.stages_view import show_states

if TYPE_CHECKING:
    from pipelines.config import ExperimentConfig
    from pipelines.evaluation.targets import Target
    from pipelines.rows.records import Row
    from pipelines.sample import Request
    from pipelines.stages.store import StageState

DEFAULT_ROWS = 4


def sample(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Complete this prompt.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One prompt a line, or JSONL rows as in the data set.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help=f"Validation rows to complete ({DEFAULT_ROWS}).")] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Completions a prompt.")] = 1,
    checkpoint: Checkpoint = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show the starting model beside it.")] = False,
    temperature: Annotated[float | None, typer.Option(min=0, help="Instead of generation.temperature.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Instead of data.max_gen_len.")] = None,
    force: Force = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show completions with their regions and rewards.

    Of --prompt, --prompts or --rows; without any of them, of what you type on a terminal, else of validation rows.
    From --checkpoint DIR, or the newest checkpoint of the run, or the starting model (--checkpoint base).
    """
    from pipelines import sample as stage
    from pipelines.config import load
    from pipelines.evaluation.targets import STARTING_MODEL, target

    out = Output(json, quiet, verbose)
    read = load(config, overrides)
    loaded = read.config
    with read.placing():
        asked = _asked(loaded, prompt, prompts, rows)
        model = target(loaded, checkpoint)
        out.note(f"sample: {model.describe(loaded)}")
        models = list(dict.fromkeys([STARTING_MODEL, model])) if compare else [model]
        request = stage.Request(tuple(asked), rows or DEFAULT_ROWS, samples, temperature, max_tokens)
        if dry_run or explain:
            show_states(out, _states(loaded, request, models, verify=verify))
        elif asked or rows or json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _show_samples(out, loaded, request, models, force=force, verify=verify)
        else:
            _converse(out, loaded, request, models)


def _states(config: ExperimentConfig, request: Request, models: Sequence[Target], *, verify: bool) -> list[StageState]:
    """What there is of each model's samples; of preprocess, while that has to come first."""
    from pipelines import preprocess
    from pipelines import sample as stage

    first = preprocess.state(config, verify=verify)
    if not request.prompts and first.status != "cached":
        return [first]
    return [replace(stage.state(config, request, model, verify=verify), asked=model.name) for model in models]


def _show_samples(
    out: Output,
    config: ExperimentConfig,
    request: Request,
    models: Sequence[Target],
    *,
    force: bool,
    verify: bool,
) -> None:
    """Sample, or find it done, and show every completion; of two models those of a prompt together."""
    from grpo_cli.samples_view import completion_text, show_comparison
    from pipelines import preprocess
    from pipelines import sample as stage

    if not request.prompts:
        preprocess.run(config)
    results = [stage.run(config, request, target=model, force=force, verify=verify) for model in models]
    names = [model.name for model in models]
    for records in zip(*map(stage.records, results), strict=True):
        if out.json:
            out.data([record | {"model": name} for name, record in zip(names, records, strict=True)])
        elif len(models) > 1:
            show_comparison(out, names, records)
        else:
            out.data(completion_text(records[0]))
        _warn_of_failures(out, records)
    for result in results:
        found = result.summary
        made = f"{count(found['completions'], 'completion')}, {count(found['tokens'], 'token')}"
        out.note(f"{made}, {found['tokens_per_second']:.0f} tokens/s ({result.status}: {result.directory})")


def _converse(out: Output, config: ExperimentConfig, request: Request, models: Sequence[Target]) -> None:
    """Complete what is typed, line by line, until an empty line or the end of the input."""
    with suppress(ImportError):  # a few Pythons are built without it
        import_module("readline")  # arrow keys and history for input()
    from grpo_cli.samples_view import completion_text, show_comparison
    from pipelines.sample import Conversation

    conversations = [Conversation(config, request, model) for model in models]
    out.note("type a prompt; an empty line or Ctrl-D ends")
    while text := _typed():
        answers = [conversation.ask(text) for conversation in conversations]
        for records in zip(*answers, strict=True):
            if len(models) > 1:
                show_comparison(out, [model.name for model in models], records)
            else:
                out.data(completion_text(records[0], prompt=False))
            _warn_of_failures(out, records)


def _typed() -> str:
    try:
        return input("prompt> ").strip()
    except EOFError:
        return ""


def _warn_of_failures(out: Output, records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        for name, failure in record.get("failures", {}).items():
            out.warn(f"reward {name} failed: {failure}")


def _asked(config: ExperimentConfig, prompt: str | None, prompts: Path | None, rows: int | None) -> list[Row]:
    """The prompts of the command line; none where rows of the data set are meant."""
    from pipelines.errors import ConfigError
    from pipelines.evaluation.questions import rows_of_file
    from pipelines.rows.records import Row

    if sum(given is not None for given in (prompt, prompts, rows)) > 1:
        raise ConfigError("--prompt, --prompts and --rows exclude each other", hint="give one of them")
    if prompt is not None:
        if not prompt.strip():
            raise ConfigError("--prompt is blank", hint='ask something, such as --prompt "12+34=?"')
        return [Row(prompt, source="--prompt")]
    return [] if prompts is None else rows_of_file(prompts, config)
