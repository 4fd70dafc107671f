"""`grpo eval`: score a checkpoint on benchmarks, and the starting model beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.options import (
    Benchmarks,
    Checkpoint,
    ConfigFiles,
    DryRun,
    Explain,
    Force,
    Json,
    MoreBenchmarks,
    Overrides,
    Quiet,
    Verbose,
    Verify,
    benchmark_names,
)
from grpo_cli.output import Output

if TYPE_CHECKING:
    from pipelines.evaluate import Evaluation, Score
    from pipelines.evaluation.statistics import Paired
    from pipelines.stages.store import StageState

COLUMNS = ("benchmark", "model", "accuracy %", "95 % low", "high", "items", "tokens", "truncated %", "well-formed %")


def eval(  # noqa: A001 - the name of the command
    config: ConfigFiles = None,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Score the starting model beside it.")] = False,
    benchmark: Benchmarks = None,
    more: MoreBenchmarks = None,
    limit: Annotated[int | None, typer.Option(help="Score only so many items, drawn by the seed.")] = None,
    samples: Annotated[int | None, typer.Option(help="Completions an item; its score is their mean.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature; greedy for one sample otherwise.")
    ] = None,
    force: Force = False,
    verify: Verify = False,
    dry_run: DryRun = False,
    explain: Explain = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Score the model or a checkpoint on benchmarks.

    Without --checkpoint: the newest checkpoint of the run, or the starting model if there is none yet.
    --checkpoint base means the starting model in any case.
    """
    from pipelines import evaluate, preprocess
    from pipelines.config import load
    from pipelines.config.unfinished import refuse_unfinished
    from pipelines.evaluation.targets import target

    out = Output(json, quiet, verbose)
    loaded = load(config, overrides).config
    refuse_unfinished(loaded, "eval")
    given: dict[str, Any] = {"limit": limit, "samples": samples, "temperature": temperature}
    settings = {key: value for key, value in given.items() if value is not None}
    model = target(loaded, checkpoint)
    out.note(f"eval: {model.describe(loaded)}")
    request: dict[str, Any] = {
        "target": model,
        "benchmarks": benchmark_names(benchmark, more),
        "settings": settings,
        "baseline": baseline,
    }
    evaluate.chosen_benchmarks(loaded, request["benchmarks"], settings)  # a typo is told before any work
    if dry_run or explain:
        first = preprocess.state(loaded)
        scores = evaluate.states(loaded, **request) if first.status == "cached" else []
        _states(out, [("", "", first), *scores])
        return
    preprocess.run(loaded)
    if checkpoint is None and model.directory is not None:
        for line in evaluate.trained_otherwise(loaded):
            out.warn(f"the run in {loaded.trainer.output_dir} was trained with other settings: {line}")
    evaluations = evaluate.run(
        loaded,
        **request,
        force=force,
        verify=verify,
        progress=lambda what, done, total: out.note(f"  {what}: {done} of {total}"),
    )
    _show(out, evaluations)


def _states(out: Output, found: list[tuple[str, str, StageState]]) -> None:
    columns = ("stage", "benchmark", "model", "status", "why", "directory")
    rows = [
        (state.stage, name, model, state.status, "; ".join(state.reasons), state.directory)
        for name, model, state in found
    ]
    out.table("", columns, rows)


def _show(out: Output, evaluations: list[Evaluation]) -> None:
    if out.json:
        out.data([_record(evaluation) for evaluation in evaluations])
        return
    scores = [score for each in evaluations for score in (each.baseline, each.score) if score is not None]
    out.table("", COLUMNS, [_row(score) for score in scores])
    for each in evaluations:
        if each.difference is not None:
            out.data(_difference(each, each.difference))
    for score in scores:
        out.note(f"  {score.result.status}: {score.result.directory}")


def _row(score: Score) -> list[Any]:
    found = score.metrics

    def percent(key: str) -> float:
        return round(100 * found[key], 1)

    accuracy = [percent("accuracy"), percent("low"), percent("high")]
    shape = [round(found["mean_length"], 1), percent("truncation_rate"), percent("format_rate")]
    return [score.benchmark, score.model, *accuracy, found["n"], *shape]


def _difference(evaluation: Evaluation, found: Paired) -> str:
    points, low, high = (100 * value for value in (found.difference, found.low, found.high))
    return (
        f"{evaluation.score.benchmark}: {evaluation.score.model} against base {points:+.1f} points, "
        f"95 % interval {low:+.1f} to {high:+.1f}; better on {found.wins} items, worse on {found.losses}, "
        f"the same on {found.ties}"
    )


def _record(evaluation: Evaluation) -> dict[str, Any]:
    record = _score_record(evaluation.score)
    if evaluation.baseline is not None:
        record["baseline"] = _score_record(evaluation.baseline)
        record["difference"] = evaluation.difference
    return record


def _score_record(score: Score) -> dict[str, Any]:
    where = {"status": score.result.status, "directory": score.result.directory}
    return {"benchmark": score.benchmark, "model": score.model} | score.metrics | where
