"""`grpo eval`: score a checkpoint on benchmarks, and the starting model beside it."""

from __future__ import annotations

from dataclasses import replace
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
from grpo_cli.output import Output, cell, error
from grpo_cli.stages_view import show_states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.config import ExperimentConfig
    from pipelines.errors import GrpoError
    from pipelines.evaluate import Evaluation, Score
    from pipelines.evaluation.statistics import Paired

COLUMNS = ("benchmark", "model", "accuracy %", "95 % low", "high", "items", "tokens", "truncated %", "well-formed %")


def eval(  # noqa: A001 - the name of the command
    config: ConfigFiles = None,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Score the starting model beside it.")] = False,
    benchmark: Benchmarks = None,
    more: MoreBenchmarks = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many items, drawn by the seed.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Completions an item; its score is their mean.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; greedy for one sample otherwise.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Completions decoded together (generation.rollout_batch_size).")
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
    --checkpoint base means the starting model in any case, --checkpoint best the best checkpoint of the run.
    """
    from pipelines import evaluate, preprocess
    from pipelines.config import load
    from pipelines.evaluation.targets import target

    out = Output(json, quiet, verbose)
    width = [] if batch is None else [f"generation.rollout_batch_size={batch}"]
    read = load(config, [*(overrides or []), *width])
    loaded = read.config
    with read.placing():
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
        for entry in evaluate.chosen_benchmarks(loaded, request["benchmarks"], settings):  # a typo is told here
            if idle := [f"--{key}" for key in settings if key not in entry.config]:
                out.warn(f"{entry.name} decodes no completions: {' and '.join(idle)} changes nothing there")
        if dry_run or explain:
            first = preprocess.state(loaded, verify=verify)
            scores = evaluate.states(loaded, **request, verify=verify)
            show_states(out, [first, *(replace(found, asked=f"{model}: {name}") for name, model, found in scores)])
            return
        preprocess.run(loaded, verify=verify)
        if checkpoint is None and model.directory is not None:
            for line in evaluate.trained_otherwise(loaded):
                out.warn(f"the run in {loaded.trainer.output_dir} was trained with other settings: {line}")
        _score(out, loaded, request, force=force, verify=verify)


def _score(out: Output, config: ExperimentConfig, request: Mapping[str, Any], *, force: bool, verify: bool) -> None:
    """Score and show; an error in the end where a benchmark could not be run."""
    from pipelines import evaluate

    failures: list[tuple[str, GrpoError]] = []
    evaluations = evaluate.run(
        config,
        **request,
        force=force,
        verify=verify,
        progress=lambda what, done, total: out.note(f"  {what}: {done} of {total}"),
        on_failure=lambda name, failure: failures.append((name, failure)),
    )
    _show(out, evaluations)
    _fail(failures)


def _show(out: Output, evaluations: list[Evaluation]) -> None:
    if out.json:
        out.data([_record(evaluation) for evaluation in evaluations])
        return
    scores = [score for each in evaluations for score in (each.baseline, each.score) if score is not None]
    if scores:
        out.table("", COLUMNS, [_row(score) for score in scores])
    for score in scores:
        if line := _own(score.metrics):
            out.data(f"{score.benchmark}, {score.model}: {line}")
    for each in evaluations:
        if each.difference is not None:
            out.data(_difference(each, each.difference))
    for score in scores:
        out.note(f"  {score.result.status}: {score.result.directory}")


def _row(score: Score) -> list[Any]:
    found = score.metrics

    def percent(key: str) -> float | None:
        return round(100 * found[key], 1) if key in found else None

    accuracy = [percent("accuracy"), percent("low"), percent("high")]
    length = round(found["mean_length"], 1) if "mean_length" in found else None
    return [
        score.benchmark,
        score.model,
        *accuracy,
        found["n"],
        length,
        percent("truncation_rate"),
        percent("format_rate"),
    ]


def _own(found: Mapping[str, Any]) -> str:
    """The numbers that only this benchmark has, with their intervals."""
    from pipelines.evaluation.records import own

    words: list[str] = []
    for name, value in own(found).items():
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        words.append(f"{name} {cell(value)}" + ("" if low is None else f" ({cell(low)} to {cell(high)})"))
    return ", ".join(words)


def _fail(failures: list[tuple[str, GrpoError]]) -> None:
    """Tell of each benchmark that could not be run; the last one's error is the command's."""
    for name, failure in failures[:-1]:
        error(f"{name}: {failure.message}", failure.hint)
    for name, failure in failures[-1:]:
        raise type(failure)(f"{name}: {failure.message}", hint=failure.hint) from failure


def _difference(evaluation: Evaluation, found: Paired) -> str:
    is_rate = "accuracy" in evaluation.score.metrics
    scale, digits, unit = (100, 1, "points") if is_rate else (1, 4, "in the mean score")
    change, low, high = (f"{scale * value:+.{digits}f}" for value in (found.difference, found.low, found.high))
    return (
        f"{evaluation.score.benchmark}: {evaluation.score.model} against base {change} {unit}, "
        f"95 % interval {low} to {high}; better on {found.wins} items, worse on {found.losses}, "
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
