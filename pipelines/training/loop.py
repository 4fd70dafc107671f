"""The training loop: collect, update, evaluate if it is time, log, save; in this order, once per step."""

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
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.evaluations import Best, Evaluations
from pipelines.training.interrupt import StopRequest
from pipelines.training.update import Updater

Metrics = dict[str, float]


@dataclass
class Progress:
    """All of a run that is neither weights nor optimizer: what state.json holds."""

    seed: int
    step: int = 0
    optimizer_steps: int = 0
    """Steps of the optimizer: `num_iterations` for each update in which something could be learnt."""
    num_tokens: int = 0
    dead_updates: int = 0
    best: float | None = None
    """The best value of `checkpointing.best_metric` that an evaluation found."""
    since_best: int = 0
    """Evaluations since then."""
    threads: int | None = None
    """Of the BLAS, on which the last bits of gradients depend; None on a GPU."""

    def as_dict(self, cursor: PromptCursor) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "seed": self.seed,
            "step": self.step,
            "optimizer_steps": self.optimizer_steps,
            "num_tokens": self.num_tokens,
            "dead_updates": self.dead_updates,
            "best": self.best,
            "since_best": self.since_best,
            "threads": self.threads,
            "cursor": cursor.state_dict(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Progress":
        """The inverse; CheckpointError if a key is missing."""
        try:
            names = ("seed", "step", "optimizer_steps", "num_tokens", "dead_updates", "since_best")
            best, threads = state["best"], state.get("threads")
            return cls(
                **{name: int(state[name]) for name in names},
                best=None if best is None else float(best),
                threads=None if threads is None else int(threads),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"state.json lacks or spoils {error}", hint="resume from an earlier step (--resume STEP)"
            ) from error


@dataclass(frozen=True)
class Limits:
    """When a run ends, and how it is saved on the way."""

    total_steps: int
    prompts_per_update: int
    iterations: int
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
    evaluations: Evaluations
    best: Best
    stop: StopRequest
    ranks: Ranks = ALONE

    def run(self) -> Metrics:
        """Train; returns the metrics of the last step. A stop request or the time limit ends it after a checkpoint."""
        started = time.monotonic()
        metrics: Metrics = {}
        saved = self.progress.step
        if saved == 0:
            self._baseline()
        while not self.is_complete and not self._must_stop(started):
            metrics, is_best = self._step()
            every = self.limits.checkpointing.save_every
            if is_best or (every and self.progress.step % every == 0):
                self._save(metrics)
                saved = self.progress.step
        if saved < self.progress.step:
            self._save(metrics)
        return metrics

    @property
    def is_complete(self) -> bool:
        """Whether all updates are made, or the evaluations have stopped getting better."""
        return self.progress.step >= self.limits.total_steps or self.best.is_stale

    def _must_stop(self, started: float) -> bool:
        limit = self.limits.max_seconds
        own = self.stop.asked or (limit is not None and time.monotonic() - started >= limit)
        return any(self.ranks.gathered(own))

    def _baseline(self) -> None:
        """The starting model's evaluation, which later ones are compared with: the line of step 0."""
        if metrics := self._evaluated(0):
            self.run_log.metrics(0, metrics)
            self._judge(metrics)

    def _evaluated(self, step: int) -> Metrics:
        return self.ranks.told(self.evaluations.after(step) if self.ranks.leads else {})

    def _judge(self, evaluated: Metrics) -> bool:
        """Remember how good an evaluation was; whether it was the best so far."""
        is_best = self.best.after(evaluated)
        self.progress.best, self.progress.since_best = self.best.value, self.best.since
        return is_best

    def _step(self) -> tuple[Metrics, bool]:
        """One update; its metrics, and whether its evaluation was the best so far."""
        started = time.perf_counter()
        step = self.progress.step + 1
        collected = self.collector.collect(step, self.limits.prompts_per_update, lambda n: self.cursor.next(n).tolist())
        metrics = dict(collected.metrics)
        mx.clear_cache()  # decoding and training want blocks of other sizes
        if self.run_log.wants_samples(step):  # before the update, so that they are there to look at if it fails
            self.run_log.samples(step, collected.samples())
        if self.updater.learns(collected.sequences, collected.references):
            mx.random.seed(row_key(self.progress.seed, "update", step, self.ranks.rank, 0)[0])  # dropout: MLX's stream
            metrics |= self.updater.update(collected.sequences, collected.references)
            self.progress.optimizer_steps += self.limits.iterations
            mx.clear_cache()
        self.progress.step = step
        self.progress.num_tokens += int(metrics["num_tokens"])
        metrics |= {
            "num_tokens": self.progress.num_tokens,
            "epoch": self.cursor.epoch + self.cursor.position / self.cursor.n,
            "memory/peak_gb": mx.get_peak_memory() / 1e9,
            "time/step_seconds": time.perf_counter() - started,
        }
        evaluated = self._evaluated(step)
        metrics |= evaluated
        self.run_log.metrics(step, metrics)
        self.dead.after(metrics)
        self.progress.dead_updates = self.dead.in_a_row
        return metrics, bool(evaluated) and self._judge(metrics)

    def _save(self, metrics: Metrics) -> None:
        if not self.ranks.leads:
            return
        self.run_log.flush()  # whoever resumes here finds a line for every update before
        metric = metrics.get(self.limits.checkpointing.best_metric)
        path = self.checkpoints.save(self.progress.step, self.write, self.progress.as_dict(self.cursor), metric)
        self.run_log.note(f"saved {path}")
