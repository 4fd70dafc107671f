"""`grpo preprocess`: tokenise the data set, and show what became of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import ConfigFiles, DryRun, Explain, Force, Json, Overrides, Quiet, Verbose, Verify
from grpo_cli.output import Output, count, stage_line
from grpo_cli.row_progress import RowProgress

if TYPE_CHECKING:
    from pipelines.config import ExperimentConfig
    from pipelines.stages.store import StageResult

EXPORTS = "Export options"
BAR_WIDTH = 40
SHOWN_COUNTS = {
    "truncated": "prompts cut on the left",
    "without_completion": "without a completion",
    "duplicates": "ask the same as an earlier row",
    "mcq": "multiple choice",
    "code": "with test cases",
    "preopened": "with thinking opened by the template",
    "unknown_tokens": "with characters that the tokenizer does not know",
    "ended_early": "with an end token before their end",
}
LENGTH_COLUMNS = ("split", "side", "min", "mean", "p50", "p90", "p99", "max")


def preprocess(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    export_train: Annotated[
        str | None,
        typer.Option(
            "--output-train-path",
            metavar="PREFIX",
            help="Also write the training arrays to PREFIX_*.",
            rich_help_panel=EXPORTS,
            show_default=False,
        ),
    ] = None,
    export_val: Annotated[
        str | None,
        typer.Option(
            "--output-val-path",
            metavar="PREFIX",
            help="Also write the validation arrays to PREFIX_*.",
            rich_help_panel=EXPORTS,
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Tokenise the data set into NPY arrays, once."""
    from pipelines import preprocess as stage
    from pipelines.config import load

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    with loaded.placing():
        if explain or dry_run:
            _show_state(out, loaded.config, with_preview=dry_run and not explain, verify=verify)
            return
        exports = {"export_train": export_train, "export_val": export_val}
        with RowProgress(out) as progress:
            result = stage.run(loaded.config, force=force, verify=verify, **exports, progress=progress)
    out.data(result, human=lambda: _show(out, result))
    _warn(out, loaded.config, result)
    for split, prefix in (("train", export_train), ("val", export_val)):
        if prefix is not None:
            out.note(f"  {split} exported to {prefix}_*")


def _show_state(out: Output, config: ExperimentConfig, *, with_preview: bool, verify: bool) -> None:
    """What the stage would find, and for --dry-run the first prompt as the model will see it."""
    from pipelines import preprocess as stage
    from pipelines.hub import NotHereError

    found = stage.state(config, verify=verify)
    record: dict[str, Any] = {
        "stage": found.stage,
        "status": found.status,
        "reasons": found.reasons,
        "directory": found.directory,
        "note": found.note,
    }
    lines = [f"{found.stage}  {found.status}  {found.directory}", *(f"  {line}" for line in found.lines)]
    if with_preview:
        try:
            preview = stage.preview(config)
            lines += [f"first prompt ({preview.source}, {preview.prompt_tokens} tokens):", preview.text]
        except NotHereError as error:
            preview = None
            lines += ["first prompt:", error.message]
        record["preview"] = preview
    out.data(record, human=lambda: out.data("\n".join(lines)))


def _show(out: Output, result: StageResult) -> None:
    out.data(stage_line(result))
    for split in ("train", "val"):
        found = result.summary[split]
        out.data(f"{split}: {found['kept']:,} rows kept of {found['read']:,} read")
        for reason, rows in found["dropped"].items():
            out.data(f"  {rows:,} dropped: {reason}")
        for name, words in SHOWN_COUNTS.items():
            if found[name]:
                out.data(f"  {found[name]:,} {words}")
    for source, reasons in result.summary["bad_rows"].items():
        for reason, rows in reasons.items():
            place = result.summary.get("bad_places", {}).get(source, {}).get(reason)
            first = f" ({'first: ' if rows > 1 else ''}{place})" if place else ""
            out.data(f"{source}: {count(rows, 'bad row')} skipped, not counted above: {reason}{first}")
    sides = [
        (split, side, result.summary[split][f"{side}_tokens"])
        for split in ("train", "val")
        for side in ("prompt", "completion")
        if result.summary[split][f"{side}_tokens"]
    ]
    rows = [[split, side, *(found[name] for name in LENGTH_COLUMNS[2:])] for split, side, found in sides]
    out.table("tokens", LENGTH_COLUMNS, rows)
    for split, side, found in sides:
        if split == "train":
            out.data("\n".join([f"{side}s of {split}, in tokens", *_bars(found["histogram"])]))
            longest = ", ".join(f"{row['source']} ({row['tokens']})" for row in found["longest"])
            out.data(f"  longest: {longest}")


def _bars(histogram: list[dict[str, int]]) -> list[str]:
    """One line a range, the bar in proportion to the fullest."""
    most = max(each["rows"] for each in histogram)
    names = [str(each["from"]) if each["from"] == each["to"] else f"{each['from']}-{each['to']}" for each in histogram]
    width = max(map(len, names))
    return [
        f"  {name.rjust(width)}  {'#' * -(-each['rows'] * BAR_WIDTH // most)} {each['rows']:,}"
        for name, each in zip(names, histogram, strict=True)
    ]


def _warn(out: Output, config: ExperimentConfig, result: StageResult) -> None:
    from pipelines import preprocess as stage

    for split, rows in stage.long_references(result, config.data.max_gen_len).items():
        if rows:
            out.warn(
                f"{rows:,} {split} completions have more than data.max_gen_len = {config.data.max_gen_len} tokens: "
                "sampled completions end there, these stay whole for supervised learning"
            )
    for split in ("train", "val"):
        unknown = result.summary[split]["unknown_tokens"]
        if unknown:
            out.warn(f"the tokenizer does not know some characters of {count(unknown, f'{split} row')}")
        ended = result.summary[split]["ended_early"]
        if ended:
            out.warn(f"an end token stands inside {count(ended, f'{split} completion')}: no sample goes on behind one")
