"""A run in its directory: put together from the configuration, resumed where it stopped, saved as it goes."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx import nn

from pipelines import backend
from pipelines.algorithms.base import Algorithm
from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError
from pipelines.models.leaves import leaves
from pipelines.models.load import LoadedModel, load
from pipelines.models.lora import apply_lora
from pipelines.models.save import copy_companions, load_weights, save_adapter, save_full
from pipelines.monitoring.health import DeadUpdates
from pipelines.monitoring.repeat import repeated_warnings
from pipelines.monitoring.sinks import RunLog
from pipelines.rewards import RewardComposer
from pipelines.tokens.dataset import TokenDataset
from pipelines.tokens.order import PromptCursor
from pipelines.training import algorithms
from pipelines.training.checkpoint_files import Checkpoint
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.collect import Collector, ReferenceCollector, RolloutCollector
from pipelines.training.interrupt import StopRequest, stop_on_interrupt
from pipelines.training.loop import Limits, Loop, Progress
from pipelines.training.optimizer import Optimizer
from pipelines.training.options import Options
from pipelines.training.reference import make_reference
from pipelines.training.sequences import automatic_tokens
from pipelines.training.update import Updater

OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["finished", "interrupted", "out of time"]
    step: int
    metrics: dict[str, float]


def train(config: ExperimentConfig, directory: Path, tokens: Path, options: Options) -> Outcome:
    """Run the configuration in `directory` on the arrays in `tokens`, from its newest checkpoint if there is one."""
    with repeated_warnings() as warnings:
        checkpoints = Checkpoints(directory / config.checkpointing.checkpoint_dir, config.checkpointing)
        found = checkpoints.latest() if options.resume == "auto" else checkpoints.at(options.resume)
        drawn = config.trainer.seed if config.trainer.seed >= 0 else secrets.randbelow(2**31)
        progress = Progress(seed=drawn) if found is None else Progress.from_dict(found.state)
        if config.trainer.seed not in (-1, progress.seed):
            raise CheckpointError(
                f"the checkpoint is of a run with seed {progress.seed}; here trainer.seed is {config.trainer.seed}",
                hint="resume from a checkpoint of this run (--resume STEP)",
            )
        parts = _build(config, tokens, progress)
        if found is not None:
            _restore(parts, progress, found)
            checkpoints.forget_after(found.step)  # only now that it is known to work
        run_log = RunLog(
            directory,
            config.monitoring,
            total_steps=config.trainer.num_training_steps,
            quiet=options.quiet,
            resume_step=None if found is None else found.step,
        )
        with run_log, stop_on_interrupt() as stop:
            warnings.to(run_log.repeat)
            _open(run_log, parts, progress, found, config)
            metrics = _loop(config, options, parts, progress, checkpoints, run_log, stop).run()
    if progress.step >= config.trainer.num_training_steps:
        return Outcome("finished", progress.step, metrics)
    return Outcome("interrupted" if stop.asked else "out of time", progress.step, metrics)


@dataclass(frozen=True)
class _Parts:
    """The objects behind a loop."""

    loaded: LoadedModel
    optimizer: Optimizer
    updater: Updater
    collector: Collector
    cursor: PromptCursor


def _build(config: ExperimentConfig, tokens: Path, progress: Progress) -> _Parts:
    trainer = config.trainer
    algorithm = algorithms.create(trainer)
    loaded = load(config.model.model_path)
    if config.model.use_lora:
        apply_lora(loaded.model, config.model, progress.seed)
    optimizer = Optimizer(loaded.model, trainer, full_finetuning=not config.model.use_lora)
    dataset = TokenDataset(tokens, "train")
    updater = Updater(
        loaded.model,
        algorithm,
        optimizer,
        make_reference(loaded.model, trainer, config.model, uses_kl=algorithm.uses_rollouts),
        temperature=config.generation.temperature if algorithm.uses_rollouts else 1.0,
        micro_batch_tokens=_micro_batch_tokens(config, loaded),
        budget_tokens=config.data.max_gen_len,
    )
    return _Parts(
        loaded=loaded,
        optimizer=optimizer,
        updater=updater,
        collector=_collector(config, loaded, dataset, algorithm, progress.seed),
        cursor=PromptCursor(len(dataset), progress.seed, config.data.shuffle_data),
    )


def _loop(  # noqa: PLR0917 - the pieces of a run, each once
    config: ExperimentConfig,
    options: Options,
    parts: _Parts,
    progress: Progress,
    checkpoints: Checkpoints,
    run_log: RunLog,
    stop: StopRequest,
) -> Loop:
    return Loop(
        collector=parts.collector,
        updater=parts.updater,
        cursor=parts.cursor,
        progress=progress,
        checkpoints=checkpoints,
        write=_writer(config, parts),
        limits=Limits(
            total_steps=config.trainer.num_training_steps,
            prompts_per_update=config.trainer.prompts_per_update,
            max_seconds=options.max_seconds,
            checkpointing=config.checkpointing,
        ),
        run_log=run_log,
        dead=DeadUpdates(config.trainer.abort_after_dead_updates, progress.dead_updates),
        stop=stop,
    )


def _collector(
    config: ExperimentConfig, loaded: LoadedModel, dataset: TokenDataset, algorithm: Algorithm, seed: int
) -> Collector:
    if not algorithm.uses_rollouts:
        return ReferenceCollector(dataset, config.data)
    return RolloutCollector(
        loaded=loaded,
        dataset=dataset,
        composer=RewardComposer(config.rewards),
        algorithm=algorithm,
        config=config,
        seed=seed,
    )


def _micro_batch_tokens(config: ExperimentConfig, loaded: LoadedModel) -> int:
    chosen = config.trainer.micro_batch_tokens
    return chosen if isinstance(chosen, int) else automatic_tokens(len(loaded.tokenizer.get_vocab()))


def _writer(config: ExperimentConfig, parts: _Parts) -> Callable[[Path], None]:
    """A function that writes the files of a checkpoint into a directory."""

    def write(directory: Path) -> None:
        model, loaded = parts.loaded.model, parts.loaded
        if config.model.use_lora:
            save_adapter(directory, model, config.model, config.model.model_path)
            copy_companions(directory, loaded.directory)
        else:
            save_full(directory, parts.optimizer.exact_weights(), loaded.directory, loaded.stored_dtype)
        if config.checkpointing.save_optimizer_state:
            parts.optimizer.save(directory / OPTIMIZER_FILE)

    return write


def _restore(parts: _Parts, progress: Progress, found: Checkpoint) -> None:
    """Weights, optimizer and data cursor as they were at the checkpoint."""
    parts.cursor.load_state_dict(found.state["cursor"])
    state = found.path / OPTIMIZER_FILE
    if state.is_file():
        parts.optimizer.restore(state)
    else:
        _load_weights(parts.loaded.model, found.path)
        parts.optimizer.adopt_weights(progress.optimizer_steps)


def _load_weights(model: nn.Module, directory: Path) -> None:
    file = next((path for name in ("adapters", "model") if (path := directory / f"{name}.safetensors").is_file()), None)
    if file is None:
        raise CheckpointError(f"{directory} holds no weights", hint="resume from another step (--resume STEP)")
    dtypes = {name: leaf.dtype for name, leaf in leaves(model.parameters()).items()}
    model.load_weights([(name, leaf.astype(dtypes[name])) for name, leaf in load_weights(file).items()], strict=False)


def _open(
    run_log: RunLog, parts: _Parts, progress: Progress, found: Checkpoint | None, config: ExperimentConfig
) -> None:
    """What the log begins with."""
    trainable = sum(leaf.size for leaf in leaves(parts.loaded.model.trainable_parameters()).values())
    trainer = config.trainer
    sampled = isinstance(parts.collector, RolloutCollector)
    completions = f"{trainer.num_rollout_samples} completions" if sampled else "their references"
    update = f"{trainer.prompts_per_update} prompts x {completions} per update"
    steps = f"{trainer.num_training_steps} updates, seed {progress.seed}"
    run_log.note(f"{trainable:,} trainable parameters, {update}, {steps}")
    if warning := backend.busy():
        run_log.warn(warning)
    if found is None:
        return
    run_log.note(f"resumed from step {found.step} ({found.path})")
    if not (found.path / OPTIMIZER_FILE).is_file():
        run_log.warn("the checkpoint has no optimizer state: from here on it is not the same run to the bit")


def describe(outcome: Outcome) -> dict[str, Any]:
    """The summary of a run for manifests and people."""
    shown = ("reward", "loss", "kl", "completions/mean_length", "completions/clipped_ratio", "num_tokens")
    return {"status": outcome.status, "step": outcome.step} | {
        name: outcome.metrics[name] for name in shown if name in outcome.metrics
    }
