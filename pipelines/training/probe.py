"""The worst update that a run can have, made for its memory alone: two of them, and everything is thrown away.

The longest prompts of the data are completed to `data.max_gen_len`, whatever the model says, and learnt from as in a
run: full rollouts, full micro-batches, a real optimizer step. No reward is asked, completions score 0 and 1 in turn.
The second update is the first that finds Adam's moments in memory, and the one whose time counts. Nothing is written
and no run goes on from here: MLX's memory is then as fresh in the run as it was here, and the run the same to the bit.
"""

import gc
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np

from pipelines.config import ExperimentConfig
from pipelines.errors import TrainingError
from pipelines.models.load import LoadedModel
from pipelines.rewards import RewardContext
from pipelines.rewards.composer import Failure, Scores
from pipelines.rewards.workers import ParallelComposer
from pipelines.tokens.dataset import TokenDataset
from pipelines.training import algorithms
from pipelines.training.collect import Collector, RolloutCollector
from pipelines.training.loop import Progress
from pipelines.training.rounds import Roller
from pipelines.training.run import Parts, build
from pipelines.training.sequences import Sequences
from pipelines.training.worst import longest


@dataclass(frozen=True)
class Probed:
    """What the worst update took."""

    peak: int
    """Bytes that MLX held at most, as in `memory/peak_gb`."""
    seconds: float


def probe(config: ExperimentConfig, tokens: Path) -> Probed:
    """Measure on the arrays in `tokens`. TrainingError where the device's memory is too small.

    (On a CPU that has too little the system ends the process instead.)
    """
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    try:
        seconds = _two_updates(config, tokens)
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        raise TrainingError(
            f"the worst update does not fit into memory: {error}",
            hint="lower trainer.micro_batch_tokens or generation.rollout_batch_size, or set trainer.grad_checkpoint",
        ) from error
    return Probed(mx.get_peak_memory(), seconds)


def _two_updates(config: ExperimentConfig, tokens: Path) -> float:
    """The seconds of the second."""
    seed, dataset = config.trainer.evaluation_seed, TokenDataset(tokens, "train")
    parts = build(config, tokens, Progress(seed=seed))
    sampled = algorithms.create(config.trainer).uses_rollouts
    rows = longest(dataset, config.trainer.prompts_per_update, references=not sampled)
    started = 0.0
    with closing(parts.collector):
        collector = _collector(config, parts, dataset, seed)
        for step in (1, 2):
            started = time.perf_counter()
            collected = collector.collect(step, len(rows), lambda count: rows[:count])
            mx.clear_cache()
            parts.updater.update(_heard(collected.sequences, parts), collected.references)
            mx.clear_cache()
    return time.perf_counter() - started


def _heard(sequences: Sequences, parts: Parts) -> Sequences:
    """Cut off while they think, as all rows are, some settings would leave them out: they are learnt from here."""
    heard = replace(sequences, silent=np.zeros(len(sequences), bool))
    return heard if heard.teach(parts.updater.passes.policy) else replace(heard, thinking=None)


def _collector(config: ExperimentConfig, parts: Parts, dataset: TokenDataset, seed: int) -> Collector:
    """The run's own, but for completions that do not end by themselves and the scores they get."""
    own = parts.collector
    if not isinstance(own, RolloutCollector):
        return own
    endless = config.model_copy(update={"generation": config.generation.model_copy(update={"stop": ()})})
    composer = cast("ParallelComposer", _InTurn())
    return RolloutCollector(
        Roller(_Endless(**vars(parts.loaded)), dataset, composer, endless, seed), own.algorithm, own.references
    )


class _Endless(LoadedModel):
    @property
    def eos_ids(self) -> frozenset[int]:
        return frozenset()


class _InTurn:
    """In place of the rewards: 0, 1, 0, 1, so that every group has something to learn."""

    def submit(self, contexts: Sequence[RewardContext], *, part: bool = False) -> Future[Scores]:  # noqa: ARG002
        scores = np.arange(len(contexts), dtype=np.float32) % 2
        done: Future[Scores] = Future()
        weights, details = np.ones(1, np.float32), tuple({} for _ in contexts)
        done.set_result(Scores(("turn",), scores[:, None], weights, scores, (), {"turn": 0.0}, details))
        return done

    def tolerate(self, failures: Sequence[Failure], samples: int) -> None:
        """Nothing can fail."""
