"""Benchmarks scored while a run goes on: the same items, prompts and random numbers as `grpo eval` would use.

Completions are drawn by keys of their own (`generation.seeds`), in evaluation mode and with nothing left behind, so a
run has the same weights to the bit with and without them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from pipelines.config import ExperimentConfig
from pipelines.errors import ConfigError
from pipelines.evaluation import scoring
from pipelines.evaluation.base import BaseEvaluator, Sources
from pipelines.evaluation.completions import Prompt
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.models.load import LoadedModel
from pipelines.models.modes import evaluating
from pipelines.tokens.dataset import TokenDataset

Metrics = dict[str, float]


@dataclass(frozen=True)
class Benchmark:
    """An evaluator with the prompts it is asked again and again."""

    name: str
    evaluator: BaseEvaluator
    prompts: Sequence[Prompt]


@dataclass
class Evaluations:
    """The benchmarks of `evaluation`, asked before the first update, every `trainer.eval_every`, and after the last.

    Their items are read at once, so that what is wrong with them is told before the run has any file.
    """

    config: ExperimentConfig
    loaded: LoadedModel
    tokens: Path
    """Directory of the preprocessed arrays."""

    def __post_init__(self) -> None:
        sources = Sources(self.loaded.tokenizer, self.config, lambda: TokenDataset(self.tokens, "val"))
        self._benchmarks = [
            self._benchmark(entry.name, EvaluatorRegistry.create(entry.name, entry.config), sources)
            for entry in (self.config.evaluation if self.config.trainer.eval_every else ())
        ]

    def due(self, step: int) -> bool:
        """Whether the model is scored after this step; 0 is the starting model."""
        trainer = self.config.trainer
        return bool(trainer.eval_every) and (step % trainer.eval_every == 0 or step == trainer.num_training_steps)

    def after(self, step: int) -> Metrics:
        """`eval/<benchmark>/<metric>` for every number a benchmark gives, and the seconds it took; empty if not due."""
        if not self.due(step):
            return {}
        started = time.perf_counter()
        metrics: Metrics = {}
        with evaluating(self.loaded.model):
            for benchmark in self._benchmarks:
                found = self._score(benchmark)
                metrics |= {f"eval/{benchmark.name}/{name}": value for name, value in found.items()}
        mx.clear_cache()
        return metrics | {"time/eval_seconds": time.perf_counter() - started}

    def _benchmark(self, name: str, evaluator: BaseEvaluator, sources: Sources) -> Benchmark:
        prompts = scoring.chosen(
            evaluator.items(sources), evaluator.settings.limit, self.config.trainer.evaluation_seed
        )
        return Benchmark(name, evaluator, prompts)

    def _score(self, benchmark: Benchmark) -> dict[str, Any]:
        records = scoring.score(
            benchmark.evaluator,
            benchmark.prompts,
            self.loaded,
            self.config.generation,
            max_tokens=self.config.data.max_gen_len,
            seed=self.config.trainer.evaluation_seed,
        )
        return benchmark.evaluator.metrics(records)


@dataclass
class Best:
    """The best value of one metric so far, and how many evaluations in a row have not bettered it."""

    metric: str
    mode: str
    patience: int
    """Evaluations without a better value that end the run; 0 = it never ends for that."""
    value: float | None = None
    since: int = 0

    def after(self, metrics: Metrics) -> bool:
        """Take one evaluation in; whether it is better than all before it.

        ConfigError if `checkpointing.best_metric` is none of its metrics though it is named like one.
        """
        if self.metric not in metrics:
            self._refuse_absent(metrics)
            return False
        sign = 1 if self.mode == "max" else -1
        now = metrics[self.metric]
        better = math.isfinite(now) and (self.value is None or sign * now > sign * self.value)
        self.value, self.since = (now, 0) if better else (self.value, self.since + 1)
        return better

    @property
    def is_stale(self) -> bool:
        """Whether the run should end."""
        return self.patience > 0 and self.since >= self.patience

    def _refuse_absent(self, metrics: Metrics) -> None:
        if self.metric.startswith("eval/"):
            known = ", ".join(name for name in metrics if name.startswith("eval/"))
            raise ConfigError(
                f"checkpointing.best_metric: no benchmark gives {self.metric}", hint=f"the benchmarks give {known}"
            )
