"""The train stage: a run in `trainer.output_dir`, finished once, resumed if it stopped.

Data flows rows -> tokens -> prompts -> rollouts -> regions -> rewards -> advantages -> loss -> gradients -> optimizer;
`training.loop` is the place where these follow one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import GrpoError
from pipelines.plugins import load_plugins
from pipelines.stages import store
from pipelines.stages.store import StageResult, StageState, Unfinished

if TYPE_CHECKING:
    from pipelines.training.run import Options

UNRECORDED = ("train.log", "wandb/*", "tensorboard/*")
"""Files of a run that may change after it is complete."""


class InterruptedRunError(GrpoError):
    """Ctrl-C, after the checkpoint was saved."""

    exit_code = 130


def run(
    config: ExperimentConfig, *, options: Options | None = None, force: bool = False, fresh: bool = False
) -> StageResult:
    """Train, or find the run finished. preprocess must be complete.

    The result is `partial` when the time limit ended it; InterruptedRunError is raised after Ctrl-C. StageError if
    `trainer.output_dir` holds a run with another identity (`fresh` sets it aside instead).
    """
    identity = plan.train_identity(config)
    directory = plan.stage_directory(config, "train", identity)
    return store.run_stage(
        identity,
        directory,
        lambda place: _work(config, place, options),
        force=force,
        fresh=fresh,
        resumable=True,
        unrecorded=UNRECORDED,
    )


def state(config: ExperimentConfig, *, verify: bool = False) -> StageState:
    """What `run` would find."""
    identity = plan.train_identity(config)
    return store.state(identity, plan.stage_directory(config, "train", identity), verify=verify)


def check(config: ExperimentConfig) -> None:
    """Everything that can be told before any work: plugins, algorithm, rewards. ConfigError names the key."""
    from pipelines.rewards import RewardComposer
    from pipelines.training import algorithms

    load_plugins(config.plugins)
    algorithm = algorithms.create(config.trainer)
    if algorithm.uses_rollouts:
        RewardComposer(config.rewards)


def _work(config: ExperimentConfig, directory: Path, options: Options | None) -> dict[str, Any] | Unfinished:
    from pipelines import backend
    from pipelines.training.run import Options, describe, train

    backend.prepare()
    tokens = plan.stage_directory(config, "preprocess", plan.preprocess_identity(config))
    outcome = train(config, directory, tokens, options or Options())
    if outcome.status == "interrupted":
        raise InterruptedRunError(
            f"interrupted after step {outcome.step}; the checkpoint is in {directory}",
            hint="the same command goes on from there",
        )
    summary = describe(outcome)
    return summary if outcome.status == "finished" else Unfinished(summary)
