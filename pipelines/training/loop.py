"""The training loop: collect, update, log, save; in this order, once per step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from pipelines.config import CheckpointingConfig
from pipelines.errors import CheckpointError
from pipelines.generation.seeds import row_key
from pipelines.monitoring.health import DeadUpdates
from pipelines.monitoring.sinks import RunLog
from pipelines.tokens.order import PromptCursor
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.collect import Collector
from pipelines.training.interrupt import StopRequest
from pipelines.training.update import Updater

Metrics = dict[str, float]


@dataclass
class Progress:
    """All of a run that is neither weights nor optimizer: what state.json holds."""

    seed: int
    step: int = 0
    optimizer_steps: int = 0
    """Updates that moved the weights: those in which some group had a spread."""
    num_tokens: int = 0
    dead_updates: int = 0

    def as_dict(self, cursor: PromptCursor) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "seed": self.seed,
            "step": self.step,
            "optimizer_steps": self.optimizer_steps,
            "num_tokens": self.num_tokens,
            "dead_updates": self.dead_updates,
            "cursor": cursor.state_dict(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Progress":
        """The inverse; CheckpointError if a key is missing."""
        try:
            names = ("seed", "step", "optimizer_steps", "num_tokens", "dead_updates")
            return cls(**{name: int(state[name]) for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"state.json lacks or spoils {error}", hint="resume from an earlier step (--resume STEP)"
            ) from error


@dataclass(frozen=True)
class Limits:
    """When a run ends, and how it is saved on the way."""

    total_steps: int
    prompts_per_update: int
    max_seconds: float | None
    checkpointing: CheckpointingConfig


@dataclass
class Loop:
    """What a run is made of; `run` takes it from `progress.step` to the end, or to a stop."""

    collector: Collector
    updater: Updater
    cursor: PromptCursor
    progress: Progress
    checkpoints: Checkpoints
    write: Callable[[Path], None]
    limits: Limits
    run_log: RunLog
    dead: DeadUpdates
    stop: StopRequest

    def run(self) -> Metrics:
        """Train; returns the metrics of the last step. A stop request or the time limit ends it after a checkpoint."""
        started = time.monotonic()
        metrics: Metrics = {}
        saved = self.progress.step
        while self.progress.step < self.limits.total_steps and not self._must_stop(started):
            metrics = self._step()
            every = self.limits.checkpointing.save_every
            if every and self.progress.step % every == 0:
                self._save(metrics)
                saved = self.progress.step
        if saved < self.progress.step:
            self._save(metrics)
        return metrics

    def _must_stop(self, started: float) -> bool:
        limit = self.limits.max_seconds
        return self.stop.asked or (limit is not None and time.monotonic() - started >= limit)

    def _step(self) -> Metrics:
        started = time.perf_counter()
        step = self.progress.step + 1
        collected = self.collector.collect(step, self.cursor.next(self.limits.prompts_per_update).tolist())
        metrics = dict(collected.metrics)
        mx.clear_cache()  # decoding and training want blocks of other sizes
        if self.run_log.wants_samples(step):  # before the update, so that they are there to look at if it fails
            self.run_log.samples(step, collected.samples())
        if collected.sequences.teach:
            mx.random.seed(row_key(self.progress.seed, "update", step, 0, 0)[0])  # dropout: MLX's own stream
            metrics |= self.updater.step(collected.sequences)
            self.progress.optimizer_steps += 1
            mx.clear_cache()
        self.progress.step = step
        self.progress.num_tokens += int(metrics["num_tokens"])
        metrics |= {
            "num_tokens": self.progress.num_tokens,
            "epoch": self.cursor.epoch + self.cursor.position / self.cursor.n,
            "memory/peak_gb": mx.get_peak_memory() / 1e9,
            "time/step_seconds": time.perf_counter() - started,
        }
        self.run_log.metrics(step, metrics)
        self.dead.after(metrics)
        self.progress.dead_updates = self.dead.in_a_row
        return metrics

    def _save(self, metrics: Metrics) -> None:
        self.run_log.flush()  # whoever resumes here finds a line for every update before
        metric = metrics.get(self.limits.checkpointing.best_metric)
        path = self.checkpoints.save(self.progress.step, self.write, self.progress.as_dict(self.cursor), metric)
        self.run_log.note(f"saved {path}")
