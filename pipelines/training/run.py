"""A run in its directory: put together from the configuration, resumed where it stopped, saved as it goes."""

import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx import nn

from pipelines import backend
from pipelines.algorithms.base import BaseAlgorithm
from pipelines.algorithms.regions import tags_for
from pipelines.config import ExperimentConfig, check_layer_ranges
from pipelines.errors import CheckpointError
from pipelines.models.leaves import leaves
from pipelines.models.load import LoadedModel, load
from pipelines.models.lora import apply_lora
from pipelines.models.save import copy_companions, load_weights, refuse_unlike, save_adapter, save_full
from pipelines.monitoring.health import DeadUpdates
from pipelines.monitoring.repeat import repeated_warnings
from pipelines.monitoring.sinks import RunLog, Unwritten
from pipelines.rewards.workers import ParallelComposer
from pipelines.tokens.dataset import TokenDataset
from pipelines.tokens.order import PromptCursor
from pipelines.training import algorithms, checkpoint_files
from pipelines.training.assembly import make_updater
from pipelines.training.checkpoint_files import Checkpoint
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.collect import Collector, RolloutCollector
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.evaluations import Best, Evaluations
from pipelines.training.interrupt import StopRequest, stop_on_interrupt
from pipelines.training.loop import Limits, Loop, Progress
from pipelines.training.options import Options
from pipelines.training.reference import make_reference
from pipelines.training.references import ReferenceCollector, References
from pipelines.training.rounds import Roller
from pipelines.training.update import Updater

OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["finished", "stopped early", "interrupted", "out of time"]
    step: int
    metrics: dict[str, float]


def train(config: ExperimentConfig, directory: Path, tokens: Path, options: Options, ranks: Ranks = ALONE) -> Outcome:
    """Run the configuration in `directory` on the arrays in `tokens`, from its newest checkpoint if there is one.

    All `ranks` must call this with the same configuration; rank 0 finds the checkpoint and writes into the directory.
    """
    with repeated_warnings() as warnings:
        checkpoints = Checkpoints(directory / config.checkpointing.checkpoint_dir, config.checkpointing)
        found = _found(checkpoints, options.resume, ranks)
        drawn = config.trainer.seed if config.trainer.seed >= 0 else ranks.told(secrets.randbelow(2**31))
        progress = Progress(seed=drawn) if found is None else Progress.from_dict(found.state)
        if config.trainer.seed not in (-1, progress.seed):
            raise CheckpointError(
                f"the checkpoint is of a run with seed {progress.seed}; here trainer.seed is {config.trainer.seed}",
                hint="resume from a checkpoint of this run (--resume STEP)",
            )
        backend.keep_threads(progress.threads)
        progress.threads = backend.threads()
        parts = build(config, tokens, progress, ranks)
        evaluations = Evaluations(config, parts.loaded, tokens)
        if found is not None:
            _restore(parts, progress, found)
        if found is not None and ranks.leads:
            checkpoints.forget_after(found.step)  # only now that it is known to work
        run_log = (RunLog if ranks.leads else Unwritten)(
            directory,
            config.monitoring,
            total_steps=config.trainer.num_training_steps,
            quiet=options.quiet,
            resume_step=None if found is None else found.step,
            settings=config.model_dump(mode="json") | {"seed": progress.seed},
        )
        with closing(parts.collector), run_log, stop_on_interrupt(run_log.stopping) as stop:
            warnings.to(run_log.repeat)
            _open(run_log, parts, progress, found, config)
            loop = _loop(config, options, parts, progress, checkpoints, run_log, evaluations, stop, ranks)
            metrics = loop.run()
    if loop.is_complete:
        whole = progress.step >= config.trainer.num_training_steps
        return Outcome("finished" if whole else "stopped early", progress.step, metrics)
    return Outcome("interrupted" if stop.asked else "out of time", progress.step, metrics)


def _found(checkpoints: Checkpoints, resume: str, ranks: Ranks) -> Checkpoint | None:
    """Where to go on from; the checkpoint that rank 0 has chosen, on every rank."""
    own = None
    if ranks.leads:
        own = checkpoints.latest() if resume == "auto" else checkpoints.at(resume)
    path = ranks.told(None if own is None else str(own.path.resolve()))
    return own if ranks.leads or path is None else checkpoint_files.read(Path(path))


@dataclass(frozen=True)
class Parts:
    """The objects behind a loop."""

    loaded: LoadedModel
    updater: Updater
    collector: Collector
    cursor: PromptCursor


def build(config: ExperimentConfig, tokens: Path, progress: Progress, ranks: Ranks = ALONE) -> Parts:
    """Everything that a run needs before its first step, on the arrays in `tokens`."""
    trainer = config.trainer
    algorithm = algorithms.create(trainer)
    loaded = load(config.model.model_path, bits=config.model.quantize_bits)
    if config.model.use_lora:
        apply_lora(loaded.model, config.model, progress.seed)
    else:
        refuse_unlike(loaded.model)
    updater = make_updater(
        loaded.model,
        algorithm,
        make_reference(loaded.model, trainer, config.model, uses_kl=algorithm.uses_rollouts),
        full_finetuning=not config.model.use_lora,
        temperature=config.generation.temperature if algorithm.uses_rollouts else 1.0,
        micro_batch_tokens=config.trainer.micro_batch_tokens,
        budget_tokens=config.data.max_gen_len,
        dropout=config.model.use_lora and config.model.lora_dropout > 0,
        ranks=ranks,
    )
    dataset = TokenDataset(tokens, "train")
    return Parts(
        loaded=loaded,
        updater=updater,
        collector=_collector(config, loaded, dataset, algorithm, progress.seed, ranks=ranks),
        cursor=PromptCursor(len(dataset), progress.seed, config.data.shuffle_data),
    )


def _loop(  # noqa: PLR0917 - the pieces of a run, each once
    config: ExperimentConfig,
    options: Options,
    parts: Parts,
    progress: Progress,
    checkpoints: Checkpoints,
    run_log: RunLog,
    evaluations: Evaluations,
    stop: StopRequest,
    ranks: Ranks,
) -> Loop:
    checkpointing, patience = config.checkpointing, config.trainer.early_stop_after
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
            iterations=config.trainer.num_iterations,
            max_seconds=options.max_seconds,
            checkpointing=checkpointing,
        ),
        run_log=run_log,
        dead=DeadUpdates(config.trainer.abort_after_dead_updates, progress.dead_updates),
        evaluations=evaluations,
        best=Best(checkpointing.best_metric, checkpointing.best_mode, patience, progress.best, progress.since_best),
        stop=stop,
        ranks=ranks,
    )


def _collector(
    config: ExperimentConfig,
    loaded: LoadedModel,
    dataset: TokenDataset,
    algorithm: BaseAlgorithm,
    seed: int,
    *,
    ranks: Ranks,
) -> Collector:
    references = References(dataset, config.data, loaded.tokenizer, tags_for(loaded.tokenizer, config.generation))
    if not algorithm.uses_rollouts:
        return ReferenceCollector(references)
    trainer, taught = config.trainer, None
    if trainer.use_sft_on_answer and trainer.sft_weight:
        taught = references.sequences if trainer.sft_mode == "weighted" else references.answers
    roller = Roller(loaded, dataset, ParallelComposer(config.rewards, config.plugin_files), config, seed, ranks=ranks)
    return RolloutCollector(roller, algorithm, taught)


def _writer(config: ExperimentConfig, parts: Parts) -> Callable[[Path], None]:
    """A function that writes the files of a checkpoint into a directory."""

    def write(directory: Path) -> None:
        model, loaded = parts.loaded.model, parts.loaded
        if config.model.use_lora:
            save_adapter(directory, model, config.model, config.model.model_path)
            copy_companions(directory, loaded.directory)
        else:
            save_full(directory, parts.updater.optimizer.exact_weights(), loaded.directory, loaded.stored_dtype)
        if config.checkpointing.save_optimizer_state:
            parts.updater.optimizer.save(directory / OPTIMIZER_FILE)
        if parts.updater.value_learner is not None:
            state = config.checkpointing.save_optimizer_state
            parts.updater.value_learner.save(directory, optimizer_state=state)

    return write


def _restore(parts: Parts, progress: Progress, found: Checkpoint) -> None:
    """Weights, optimizer and data cursor as they were at the checkpoint."""
    parts.cursor.load_state_dict(found.state["cursor"])
    state = found.path / OPTIMIZER_FILE
    if state.is_file():
        parts.updater.optimizer.restore(state)
    else:
        _load_weights(parts.loaded.model, found.path)
        parts.updater.optimizer.adopt_weights(progress.optimizer_steps)
    if parts.updater.value_learner is not None:
        parts.updater.value_learner.restore(found.path)


def _load_weights(model: nn.Module, directory: Path) -> None:
    file = next((path for name in ("adapters", "model") if (path := directory / f"{name}.safetensors").is_file()), None)
    if file is None:
        raise CheckpointError(f"{directory} holds no weights", hint="resume from another step (--resume STEP)")
    dtypes = {name: leaf.dtype for name, leaf in leaves(model.parameters()).items()}
    model.load_weights([(name, leaf.astype(dtypes[name])) for name, leaf in load_weights(file).items()], strict=False)


def _open(
    run_log: RunLog, parts: Parts, progress: Progress, found: Checkpoint | None, config: ExperimentConfig
) -> None:
    """What the log begins with."""
    trainable = sum(leaf.size for leaf in leaves(parts.loaded.model.trainable_parameters()).values())
    trainer = config.trainer
    sampled = isinstance(parts.collector, RolloutCollector)
    completions = f"{trainer.num_rollout_samples} completions" if sampled else "their references"
    update = f"{trainer.prompts_per_update} prompts x {completions} per update"
    steps = f"{trainer.num_training_steps} updates, seed {progress.seed}"
    run_log.note(f"{trainable:,} trainable parameters, {update}, {steps}")
    if idle := sorted(parts.updater.policy.stack.idle):
        others = f" and {len(idle) - 1} more" if idle[1:] else ""
        run_log.note(f"not trained, since the model gives them no gradient: {idle[0]}{others}")
    if warning := backend.busy():
        run_log.warn(warning)
    for clipped in check_layer_ranges(config, parts.loaded.num_layers):
        run_log.warn(clipped)
    if found is None:
        return
    run_log.note(f"resumed from step {found.step} ({found.path})")
    if not (found.path / OPTIMIZER_FILE).is_file():
        run_log.warn("the checkpoint has no optimizer state: from here on it is not the same run to the bit")


def describe(outcome: Outcome) -> dict[str, Any]:
    """The summary of a run for manifests and people."""
    shown = ("reward", "loss", "kl", "completions/mean_length", "completions/clipped_ratio", "num_tokens")
    scores = (name for name in outcome.metrics if name.startswith("eval/") and name.endswith("/accuracy"))
    return {"status": outcome.status, "step": outcome.step} | {
        name: outcome.metrics[name] for name in (*shown, *scores) if name in outcome.metrics
    }
