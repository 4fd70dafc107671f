"""The train stage: a run in `trainer.output_dir`, finished once, resumed if it stopped.

Data flows rows -> tokens -> prompts -> rollouts -> regions -> rewards -> advantages -> loss -> gradients -> optimizer;
`training.loop` is the place where these follow one another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import ExperimentConfig, check_layer_ranges
from pipelines.errors import ConfigError, GrpoError, ModelError, StageError
from pipelines.files import read_json
from pipelines.hub import NotHereError, looking
from pipelines.models.locate import model_directory
from pipelines.plugins import load_plugins
from pipelines.stages import locks, store
from pipelines.stages.explain import differences
from pipelines.stages.identity import Identity, read_identity
from pipelines.stages.store import StageResult, StageState, Unfinished

if TYPE_CHECKING:
    from pipelines.training.options import Options

UNRECORDED = ("train.log", "*.html", "wandb/*", "tensorboard/*")
"""Files of a run that may change after it is complete."""


class InterruptedRunError(GrpoError):
    """Ctrl-C, after the checkpoint was saved."""

    exit_code = 130


def run(
    config: ExperimentConfig,
    *,
    options: Options | None = None,
    force: bool = False,
    fresh: bool = False,
    verify: bool = False,
) -> StageResult:
    """Train, or find the run finished. preprocess must be complete.

    The result is `partial` when the time limit ended it; InterruptedRunError is raised after Ctrl-C. StageError if
    `trainer.output_dir` holds a run with another identity (`fresh` sets it aside instead).
    """
    from pipelines.training import distributed

    identity = plan.train_identity(config)
    directory = plan.stage_directory(config, "train", identity)
    if options is not None:
        _refuse_foreign_checkpoint(Path(options.resume), identity, plan.run_goes_on(config))
    result = store.run_stage(
        identity,
        directory,
        lambda place: _work(config, place, options),
        force=force,
        fresh=fresh,
        verify=verify,
        resumable=True,
        unrecorded=(*UNRECORDED, f"{PurePath(config.checkpointing.checkpoint_dir).as_posix()}/.lock"),
        goes_on=plan.run_goes_on(config),
    )
    if result.status == "cached":
        distributed.join().told(None)  # the others are waiting for work
    return result


def follow(load: Callable[[], ExperimentConfig], options: Options) -> None:
    """What a rank other than the first does: train where `run` does on rank 0, or nothing if that finds all done.

    `load` gives the configuration, once rank 0 has found no fault in it; errors say which rank's they are.
    """
    from pipelines.training import distributed
    from pipelines.training.run import train

    ranks = distributed.join()
    logging.getLogger("pipelines").setLevel(logging.ERROR)  # rank 0 gives the warnings
    try:
        place = ranks.told(None)
        if place is not None:
            config = load()
            check(config)
            train(config, Path(place["run"]), Path(place["tokens"]), options, ranks)
    except GrpoError as error:
        error.message = f"rank {ranks.rank}: {error.message}"
        raise


def _refuse_foreign_checkpoint(checkpoint: Path, identity: Identity, goes_on: store.GoesOn) -> None:
    """`StageError` for a checkpoint directory inside a run with another identity: its weights would pass for ours."""
    if not checkpoint.is_dir():
        return
    owner = next((found for place in checkpoint.resolve().parents if (found := read_identity(place))), identity)
    if owner != identity and not goes_on(owner, identity):
        shown = "\n".join(f"  {line}" for line in differences(owner, identity))
        raise StageError(
            f"train: {checkpoint} is a checkpoint of a run with other settings or inputs:\n{shown}",
            hint="start a new run from its weights (--set model.model_path=DIR), or put the settings back",
        )


def state(config: ExperimentConfig, *, verify: bool = False) -> StageState:
    """What `run` would find; nothing is written."""
    return plan.look(config, "train", partial(plan.train_identity, config), verify=verify)


def is_finished(config: ExperimentConfig, *, verify: bool = False) -> bool:
    """Whether `run` would find its work done. Light: no MLX."""
    try:
        return state(config, verify=verify).status == "cached"
    except StageError:
        return False  # what preprocess wrote cannot be read


@looking()
def forecast(config: ExperimentConfig) -> dict[str, Any]:
    """What the run would take: `memory` and `time`, each as plain JSON, with `unknown` and why where it cannot be told.

    Nothing is computed (but what `training.unloaded` says), written or downloaded.
    """
    from pipelines.training import forecast

    found = plan.look(config, "preprocess", partial(plan.preprocess_identity, config))
    own = state(config)
    goes_on = own.status == "running" and not own.reasons[1:]  # what follows the process are differences
    metrics = own.directory / "metrics.jsonl" if goes_on or own.status in ("cached", "partial") else Path()
    load_plugins(config.plugin_files)
    try:
        memory = forecast.memory(config, found.directory if found.status == "cached" else None)
    except NotHereError as error:
        memory = {"unknown": error.message}
    return {"memory": memory, "time": forecast.duration(config, metrics)}


def probe(config: ExperimentConfig) -> dict[str, Any]:
    """Make the worst update of the run and throw it away: what it took, beside `forecast`. preprocess must be complete.

    Only the memory of this process changes. TrainingError where it does not fit.
    """
    from pipelines.training.forecast import longest_duration
    from pipelines.training.probe import probe

    check(config)
    foreseen = forecast(config)
    tokens = plan.stage_directory(config, "preprocess", plan.preprocess_identity(config))
    with locks.reading(tokens):
        found = probe(config, tokens)
    measured = {"peak_gb": found.peak / 1e9, "update_seconds": found.seconds}
    return foreseen | {"measured": measured, "time": longest_duration(config, found.seconds)}


def check(config: ExperimentConfig) -> None:
    """Everything that can be told before any work: trackers, plugins, algorithm, rewards. ConfigError names the key."""
    from pipelines.monitoring.trackers import require_packages
    from pipelines.rewards import RewardComposer
    from pipelines.training import algorithms

    _check_directories(config)
    _check_layers(config)
    _check_best_metric(config.checkpointing.best_metric)
    require_packages(config.monitoring)
    load_plugins(config.plugin_files)
    algorithm = algorithms.create(config.trainer)
    if not algorithm.uses_rollouts:
        return
    RewardComposer(config.rewards)
    _check_evaluation(config)
    if config.generation.temperature == 0:
        raise ConfigError(
            "generation.temperature: 0 gives every completion of a prompt the same text, so nothing can be learnt",
            hint="train with generation.temperature=1.0; `grpo eval` is greedy by itself",
        )


def _check_layers(config: ExperimentConfig) -> None:
    """Ranges of layers against the depth that the model's own configuration states, where it does."""
    try:
        directory = model_directory(config.model.model_path)
    except NotHereError:
        return  # told once it is
    reference = config.model.ref_model_path
    if reference is not None and config.trainer.grpo_beta and not config.model.use_lora:
        with suppress(NotHereError):
            model_directory(reference, key="model.ref_model_path")
    stated = read_json(directory / "config.json", ModelError) or {}
    layers = stated.get("num_hidden_layers") if isinstance(stated, dict) else None
    if isinstance(layers, int):
        check_layer_ranges(config, layers)


def _check_best_metric(name: str) -> None:
    from pipelines.monitoring.names import is_known, meant

    if not is_known(name):
        raise ConfigError(
            f"checkpointing.best_metric: no run logs {name}{meant(name)}",
            hint="docs/metrics.md lists what runs log",
        )


def _check_directories(config: ExperimentConfig) -> None:
    plan.refuse_no_directory("trainer.output_dir", config.trainer.output_dir)
    plan.refuse_no_directory("paths.stages", config.paths.stages)


def _check_evaluation(config: ExperimentConfig) -> None:
    """ConfigError for benchmarks that cannot be scored on the way, and for a best metric that only they could give."""
    from pipelines.evaluation.entries import check_entries
    from pipelines.evaluation.registry import EvaluatorRegistry

    if config.trainer.eval_every and not config.evaluation:
        raise ConfigError(
            f"trainer.eval_every: {config.trainer.eval_every}, and evaluation names no benchmark",
            hint="add one, such as evaluation: [{name: exact_match}], or set trainer.eval_every to 0",
        )
    if config.trainer.eval_every:
        check_entries(config.evaluation, config.generation)
        return
    for index, entry in enumerate(config.evaluation):  # what only eval will need is told wrong now, too
        EvaluatorRegistry.create(entry.name, entry.config, where=f"evaluation[{index}]")
    best = config.checkpointing.best_metric
    if best.startswith("eval/"):
        raise ConfigError(
            f"checkpointing.best_metric: {best} is only known where trainer.eval_every is set",
            hint="set trainer.eval_every, such as 10, or leave checkpointing.best_metric out",
        )


def _work(config: ExperimentConfig, directory: Path, options: Options | None) -> dict[str, Any] | Unfinished:
    from pipelines import backend
    from pipelines.evaluation.entries import conditions
    from pipelines.rewards.code import sandbox_used
    from pipelines.training import distributed
    from pipelines.training.options import Options
    from pipelines.training.run import describe, train

    check(config)
    backend.prepare()
    tokens = plan.stage_directory(config, "preprocess", plan.preprocess_identity(config))
    ranks = distributed.join()
    with locks.reading(tokens):
        ranks.told({"run": str(directory.resolve()), "tokens": str(tokens.resolve())})
        outcome = train(config, directory, tokens, options or Options(), ranks)
    if outcome.status == "interrupted":
        where = f"after step {outcome.step}; {directory} holds its checkpoint" if outcome.step else "before step 1"
        raise InterruptedRunError(f"interrupted {where}", hint="the same command goes on from there")
    summary = describe(outcome) | sandbox_used(config.rewards) | conditions(config)
    return summary if outcome.status in ("finished", "stopped early") else Unfinished(summary)
