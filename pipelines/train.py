"""The train stage: a run in `trainer.output_dir`, finished once, resumed if it stopped.

Data flows rows -> tokens -> prompts -> rollouts -> regions -> rewards -> advantages -> loss -> gradients -> optimizer;
`training.loop` is the place where these follow one another.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import ConfigError, GrpoError, StageError
from pipelines.plugins import load_plugins
from pipelines.stages import store
from pipelines.stages.explain import differences
from pipelines.stages.identity import Identity, read_identity
from pipelines.stages.store import StageResult, StageState, Unfinished

if TYPE_CHECKING:
    from pipelines.training.options import Options

UNRECORDED = ("train.log", "wandb/*", "tensorboard/*")
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
    identity = plan.train_identity(config)
    directory = plan.stage_directory(config, "train", identity)
    if options is not None:
        _refuse_foreign_checkpoint(Path(options.resume), identity)
    return store.run_stage(
        identity,
        directory,
        lambda place: _work(config, place, options),
        force=force,
        fresh=fresh,
        verify=verify,
        resumable=True,
        unrecorded=(*UNRECORDED, f"{PurePath(config.checkpointing.checkpoint_dir).as_posix()}/.lock"),
    )


def _refuse_foreign_checkpoint(checkpoint: Path, identity: Identity) -> None:
    """`StageError` for a checkpoint directory inside a run with another identity: its weights would pass for ours."""
    if not checkpoint.is_dir():
        return
    owner = next((found for place in checkpoint.resolve().parents if (found := read_identity(place))), identity)
    if owner != identity:
        shown = "\n".join(f"  {line}" for line in differences(owner, identity))
        raise StageError(
            f"train: {checkpoint} is a checkpoint of a run with other settings or inputs:\n{shown}",
            hint="start a new run from its weights (--set model.model_path=DIR), or put the settings back",
        )


def state(config: ExperimentConfig, *, verify: bool = False) -> StageState:
    """What `run` would find."""
    identity = plan.train_identity(config)
    return store.state(identity, plan.stage_directory(config, "train", identity), verify=verify)


def is_finished(config: ExperimentConfig, *, verify: bool = False) -> bool:
    """Whether `run` would find its work done. Light: no MLX."""
    try:
        return state(config, verify=verify).status == "cached"
    except StageError:
        return False  # preprocess is not complete


def check(config: ExperimentConfig) -> None:
    """Everything that can be told before any work: plugins, algorithm, rewards. ConfigError names the key."""
    from pipelines.rewards import RewardComposer
    from pipelines.training import algorithms

    load_plugins(config.plugins)
    algorithm = algorithms.create(config.trainer)
    if not algorithm.uses_rollouts:
        return
    RewardComposer(config.rewards)
    if config.generation.temperature == 0:
        raise ConfigError(
            "generation.temperature: 0 gives every completion of a prompt the same text, so nothing can be learnt",
            hint="train with generation.temperature=1.0; `grpo eval` is greedy by itself",
        )


def _work(config: ExperimentConfig, directory: Path, options: Options | None) -> dict[str, Any] | Unfinished:
    from pipelines import backend
    from pipelines.training.options import Options
    from pipelines.training.run import describe, train

    check(config)
    backend.prepare()
    tokens = plan.stage_directory(config, "preprocess", plan.preprocess_identity(config))
    outcome = train(config, directory, tokens, options or Options())
    if outcome.status == "interrupted":
        where = f"after step {outcome.step}; {directory} holds its checkpoint" if outcome.step else "before step 1"
        raise InterruptedRunError(f"interrupted {where}", hint="the same command goes on from there")
    summary = describe(outcome)
    return summary if outcome.status == "finished" else Unfinished(summary)
