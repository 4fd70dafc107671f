"""`grpo sample`: look at completions, their regions and what each reward says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import Checkpoint, ConfigFiles, DryRun, Explain, Force, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output, cell

if TYPE_CHECKING:
    from pipelines.config import ExperimentConfig
    from pipelines.rows.records import Row

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
    temperature: Annotated[float | None, typer.Option(min=0, help="Instead of generation.temperature.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Instead of data.max_gen_len.")] = None,
    force: Force = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show completions with their regions and rewards.

    Of --prompt, --prompts or validation rows; from --checkpoint DIR, or the newest checkpoint of the run, or the
    starting model (--checkpoint base).
    """
    from pipelines import preprocess
    from pipelines import sample as stage
    from pipelines.config import load
    from pipelines.config.unfinished import refuse_unfinished
    from pipelines.evaluation.targets import target

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    refuse_unfinished(loaded, "sample")
    asked = _asked(loaded, prompt, prompts, rows)
    model = target(loaded, checkpoint)
    out.note(f"sample: {model.describe(loaded)}")
    request = stage.Request(tuple(asked), rows or DEFAULT_ROWS, samples, temperature, max_tokens)
    if dry_run or explain:
        first = preprocess.state(loaded)
        found = stage.state(loaded, request, model) if asked or first.status == "cached" else first
        out.data(found, human=lambda: out.data(f"{found.stage}  {found.status}  {'; '.join(found.reasons)}"))
        return
    if not asked:
        preprocess.run(loaded)
    result = stage.run(loaded, request, target=model, force=force)
    for record in stage.records(result):
        out.data(record, human=lambda record=record: out.data(_shown(record)))
        for name, failure in record.get("failures", {}).items():
            out.warn(f"reward {name} failed: {failure}")
    found = result.summary
    out.note(
        f"{found['completions']} completions, {found['tokens']} tokens, {found['tokens_per_second']:.0f} tokens/s"
        f" ({result.status}: {result.directory})"
    )


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


def _shown(record: dict[str, Any]) -> str:
    """Prompt, thinking dimmed, answer bold, and one line about it."""
    text, answer = record["completion"].rstrip(), record["answer"]
    thinking = text.removesuffix(answer) if text.endswith(answer) else f"{record['thinking']}\n"
    prompt = f"prompt  {record['prompt']}" + (f"   (sample {record['sample']})" if record["sample"] else "")
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        thinking, answer = typer.style(thinking, dim=True), typer.style(answer, bold=True)
    return f"{prompt}\n{thinking}{answer}\n  {_line(record)}\n"


def _line(record: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {cell(value)}" for name, value in record["rewards"].items() if value is not None)
    reward = "no reward" if record["reward"] is None else f"reward {cell(record['reward'])} ({parts})"
    ended = "cut off" if record["finish_reason"] == "length" else "ended"
    return f"{reward}; {ended} after {record['tokens']} tokens, {record['thinking_tokens']} of them thinking"
