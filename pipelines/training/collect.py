"""From prompts to the rows of an update: rollouts, rewards, advantages, and who is left out."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from pipelines.algorithms.advantages import Advantages, kept_rows
from pipelines.algorithms.base import BaseAlgorithm
from pipelines.config import TrainerConfig
from pipelines.rewards.composer import Scores
from pipelines.training.rollout_metrics import (
    length_correlation,
    reward_metrics,
    rollout_metrics,
    sample_records,
)
from pipelines.training.rounds import Roller, Round, joined
from pipelines.training.sequences import Adjustments, Sequences

log = logging.getLogger(__name__)

Draw = Callable[[int], list[int]]
"""The next so many rows of the data set."""


@dataclass(frozen=True)
class Collected:
    """Rows for the update (perhaps none, when no group had a spread), metrics, and what samples.jsonl would show."""

    sequences: Sequences
    metrics: dict[str, float]
    samples: Callable[[], list[dict[str, Any]]]
    references: Sequences | None = None
    """What the supervised term beside the loss learns from."""


class Collector(Protocol):
    """Turns the prompts of one update into sequences."""

    def collect(self, step: int, prompts: int, draw: Draw) -> Collected:
        """The rows of update `step` (counted from 1), from `prompts` rows of the data set."""
        ...

    def close(self) -> None:
        """End what was started for collecting."""
        ...


class RolloutCollector:
    """Sampled completions, scored and turned into advantages."""

    def __init__(
        self,
        roller: Roller,
        algorithm: BaseAlgorithm,
        references: Callable[[int, Sequence[int]], Sequences] | None = None,
    ) -> None:
        self.roller = roller
        self.algorithm = algorithm
        self.references = references

    @property
    def trainer(self) -> TrainerConfig:
        """The section that everything here reads."""
        return self.algorithm.config

    def collect(self, step: int, prompts: int, draw: Draw) -> Collected:
        """Rows of groups that teach something; fresh prompts take the place of the others, `refill` times at most."""
        started = time.perf_counter()
        indices = draw(prompts)
        rounds, drawn = [self.roller.round(step, indices)], list(indices)
        for _ in range(self.trainer.advantage.refill):
            missing = prompts - len(self._kept(joined(rounds).scores)[1]) // self.roller.group_size
            if missing <= 0:  # fewer where the whole update is compared: what was flat may be so no longer
                break
            fresh = draw(missing)
            rounds.append(self.roller.round(step, fresh, before=drawn))
            drawn += fresh
        found = joined(rounds)
        for failure in found.scores.failures:
            log.warning("step %d: reward %s failed at row %d: %s", step, failure.name, failure.row, failure.error)
        advantages, kept = self._kept(found.scores)
        values, equal = np.array(advantages.values), np.array(advantages.zero_variance)
        metrics = rollout_metrics(found.rollouts, found.thinking)
        compared = equal if self.algorithm.compares_completions else None
        metrics |= reward_metrics(found.scores, compared, self.roller.group_size)
        metrics |= length_correlation(found.scores.totals, found.rollouts.lengths, self.roller.group_size)
        metrics["time/reward_seconds"] = time.perf_counter() - started - found.rollouts.seconds
        if self.trainer.advantage.refill:
            metrics["groups/refilled"] = len(drawn) - prompts
        return Collected(
            self._sequences(found, values, kept),
            metrics,
            samples=lambda: sample_records(found.rollouts, found.thinking, found.contexts, found.scores, values),
            references=None if self.references is None else self.references(step, indices),
        )

    def close(self) -> None:
        """End the workers that score."""
        self.roller.composer.close()

    def _kept(self, scores: Scores) -> tuple[Advantages, list[int]]:
        """Advantages, and the rows that enter the update.

        Of the totals, in which abstained rewards are left out; of each reward for normalize_then_sum.
        """
        apart = self.trainer.advantage.aggregation == "normalize_then_sum"
        rewards, weights = (scores.values, scores.weights) if apart else (scores.totals[:, None], np.ones(1))
        found = self.algorithm.advantages(mx.array(rewards), mx.array(weights), self.roller.group_size)
        return found, kept_rows(found, drop=self.trainer.advantage.drop_zero_variance_groups)

    def _sequences(self, found: Round, advantages: np.ndarray, kept: list[int]) -> Sequences:
        rollouts = found.rollouts
        truncated = np.array([reason == "length" for reason in rollouts.finish_reasons])
        silent = truncated if self.trainer.loss.mask_truncated_completions else np.zeros_like(truncated)

        def ragged(values: np.ndarray | None) -> list[np.ndarray] | None:
            return None if values is None else [values[row, : rollouts.lengths[row]] for row in kept]

        adjustments = Adjustments(
            ragged(rollouts.shift_ids),
            ragged(rollouts.shift_values),
            self.roller.config.generation.repetition_penalty,
        )
        return Sequences(
            prompts=[rollouts.prompt(row) for row in kept],
            completions=[rollouts.completion(row) for row in kept],
            advantages=advantages[kept],
            silent=silent[kept],
            thinking=found.thinking[kept],
            inactive=ragged(rollouts.forced),
            sampler_logprobs=ragged(rollouts.logprobs),
            drawn_logprobs=ragged(rollouts.drawn_logprobs),
            adjustments=adjustments if adjustments.any else None,
        )
