"""What one update learns from: rollouts with their rewards, or the references of the data set."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from pipelines.algorithms.advantages import Advantages, kept_rows
from pipelines.algorithms.base import Algorithm
from pipelines.algorithms.regions import tags_for
from pipelines.config import DataConfig, ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.completions import completion_contexts, thinking_lengths
from pipelines.generation.engine import Rollouts, generate
from pipelines.generation.seeds import row_keys
from pipelines.models.load import LoadedModel
from pipelines.rewards import RewardComposer, RewardContext
from pipelines.rewards.composer import Scores
from pipelines.tokens.dataset import TokenDataset
from pipelines.training.sequences import Sequences

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """Rows for the update (perhaps none, when no group had a spread), metrics, and what samples.jsonl would show."""

    sequences: Sequences
    metrics: dict[str, float]
    samples: Callable[[], list[dict[str, Any]]]


class Collector(Protocol):
    """Turns the prompts of one update into sequences."""

    def collect(self, step: int, indices: Sequence[int]) -> Collected:
        """Rows of the data set at `indices` `[B]`, for update `step` (counted from 1)."""
        ...


class ReferenceCollector:
    """Teacher forcing: the reference completions are the completions."""

    def __init__(self, dataset: TokenDataset, data: DataConfig) -> None:
        self.dataset = dataset
        self.data = data

    def collect(self, step: int, indices: Sequence[int]) -> Collected:
        prompts = [self.dataset.prompt_tokens(i) for i in indices]
        completions = [self.dataset.completion_tokens(i) for i in indices]
        for index, completion in zip(indices, completions, strict=True):
            if len(completion) == 0:
                raise DataError(
                    f"{self._place(index)}: no reference completion to learn from (update {step})",
                    hint="give every row a completion, or train with rewards (trainer.algorithm: grpo)",
                )
        lengths = np.array([len(c) for c in completions])
        metrics = length_metrics(lengths) | {"num_tokens": float(lengths.sum())}
        none = np.zeros(len(prompts))
        return Collected(Sequences(prompts, completions, none.astype(np.float32), none.astype(bool)), metrics, list)

    def _place(self, index: int) -> str:
        """`file:line` of a row; the data set itself knows only which of the files it was."""
        source = self.dataset.row(index).source
        name, _, line = source.rpartition(":")
        path = {"train": self.data.train_path, "val": self.data.val_path}.get(name)
        return source if path is None else f"{path}:{line}"


class RolloutCollector:
    """Sampled completions, scored and turned into advantages."""

    def __init__(
        self,
        *,
        loaded: LoadedModel,
        dataset: TokenDataset,
        composer: RewardComposer,
        algorithm: Algorithm,
        config: ExperimentConfig,
        seed: int,
    ) -> None:
        self.loaded = loaded
        self.dataset = dataset
        self.composer = composer
        self.algorithm = algorithm
        self.config = config
        self.seed = seed
        self.group_size = config.trainer.num_rollout_samples
        self.tags = tags_for(loaded.tokenizer, config.generation)

    def collect(self, step: int, indices: Sequence[int]) -> Collected:
        rollouts = self._roll_out(step, indices)
        started = time.perf_counter()
        preopened = [self.dataset.preopened(i) for i in indices]
        tokenizer = self.loaded.tokenizer
        thinking = thinking_lengths(rollouts, preopened, tokenizer, self.tags)
        rows = [self.dataset.row(i) for i in indices]
        contexts = completion_contexts(rollouts, rows, preopened, tokenizer, self.tags, step=step, lengths=thinking)
        scores = self.composer.score(contexts)
        for failure in scores.failures:
            log.warning("step %d: reward %s failed at row %d: %s", step, failure.name, failure.row, failure.error)
        advantages = self._advantages(scores)
        values, equal = np.array(advantages.values), np.array(advantages.zero_variance)
        kept = kept_rows(advantages, drop=self.config.trainer.advantage.drop_zero_variance_groups)
        metrics = rollout_metrics(rollouts, thinking) | reward_metrics(scores, equal, self.group_size)
        metrics["time/reward_seconds"] = time.perf_counter() - started
        return Collected(
            self._sequences(rollouts, values, kept),
            metrics,
            samples=lambda: sample_records(rollouts, contexts, scores, values),
        )

    def _advantages(self, scores: Scores) -> Advantages:
        """Of the totals, in which abstained rewards are left out; of each reward for normalize_then_sum."""
        apart = self.config.trainer.advantage.aggregation == "normalize_then_sum"
        rewards, weights = (scores.values, scores.weights) if apart else (scores.totals[:, None], np.ones(1))
        return self.algorithm.advantages(mx.array(rewards), mx.array(weights), self.group_size)

    def _roll_out(self, step: int, indices: Sequence[int]) -> Rollouts:
        keys = row_keys(self.seed, "rollout", step, distinct(indices, len(self.dataset)), self.group_size)
        return generate(
            self.loaded.model,
            [self.dataset.prompt_tokens(i) for i in indices],
            group_size=self.group_size,
            sampling=self.config.generation,
            eos_ids=self.loaded.eos_ids,
            max_tokens=self.config.data.max_gen_len,
            seeds=keys,
        )

    def _sequences(self, rollouts: Rollouts, advantages: np.ndarray, kept: list[int]) -> Sequences:
        truncated = np.array([reason == "length" for reason in rollouts.finish_reasons])
        silent = truncated if self.config.trainer.loss.mask_truncated_completions else np.zeros_like(truncated)
        return Sequences(
            prompts=[rollouts.prompt(row) for row in kept],
            completions=[rollouts.completion(row) for row in kept],
            advantages=advantages[kept],
            silent=silent[kept],
            sampler_logprobs=[rollouts.logprobs[row, : rollouts.lengths[row]] for row in kept],
        )


def distinct(indices: Sequence[int], rows: int) -> list[int]:
    """Names for the prompts of one update: a prompt that stands in it twice is sampled anew the second time."""
    seen: dict[int, int] = {}
    names = []
    for index in indices:
        names.append(int(index) + rows * seen.get(index, 0))
        seen[index] = seen.get(index, 0) + 1
    return names


def length_metrics(lengths: np.ndarray) -> dict[str, float]:
    """Completion lengths in tokens."""
    return {
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
    }


def rollout_metrics(rollouts: Rollouts, thinking: np.ndarray) -> dict[str, float]:
    """Lengths, truncation and decoding speed of N rollouts."""
    tokens = float(rollouts.lengths.sum())
    return length_metrics(rollouts.lengths) | {
        "completions/mean_thinking_length": float(thinking.mean()),
        "completions/mean_answer_length": float((rollouts.lengths - thinking).mean()),
        "completions/clipped_ratio": float(np.mean([reason == "length" for reason in rollouts.finish_reasons])),
        "num_tokens": tokens,
        "time/rollout_seconds": rollouts.seconds,
        "rollout/tokens_per_second": tokens / rollouts.seconds,
    }


def reward_metrics(scores: Scores, equal: np.ndarray, group_size: int) -> dict[str, float]:
    """Means and deviations over completions; rows in which a reward abstained are left out of its figures."""
    metrics = _spread("reward", "reward_std", scores.totals)
    for name, column in zip(scores.names, scores.values.T, strict=True):
        metrics |= _spread(f"rewards/{name}/mean", f"rewards/{name}/std", column)
    fraction = float(equal.mean())
    metrics["rewards/failures"] = len(scores.failures)
    return metrics | {"frac_reward_zero_std": fraction, "groups/all_equal": round(fraction * len(equal) / group_size)}


def _spread(mean: str, std: str, values: np.ndarray) -> dict[str, float]:
    present = values[~np.isnan(values)].astype(np.float64)
    if not present.size:
        return {}
    return {mean: float(present.mean()), std: float(present.std(ddof=1)) if present.size > 1 else 0.0}


def sample_records(
    rollouts: Rollouts, contexts: Sequence[RewardContext], scores: Scores, advantages: np.ndarray
) -> list[dict[str, Any]]:
    """One record a completion for samples.jsonl."""
    return [
        {
            "prompt": context.prompt_text,
            "completion": context.generated_text,
            "thinking": context.thinking,
            "answer": context.answer,
            "reference": context.reference_completion,
            "reward": _number(scores.totals[n]),
            "rewards": {name: _number(v) for name, v in zip(scores.names, scores.values[n], strict=True)},
            "advantage": float(advantages[n]),
            "length_tokens": int(rollouts.lengths[n]),
            "finish_reason": context.finish_reason,
        }
        for n, context in enumerate(contexts)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
