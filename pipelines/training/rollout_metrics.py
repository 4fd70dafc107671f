"""What an update says about its completions: metrics for metrics.jsonl, records for samples.jsonl."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.generation.rollouts import Rollouts
from pipelines.rewards import RewardContext
from pipelines.rewards.composer import Scores

EQUAL = 1e-9
"""Equal numbers are a rounding away from their mean, which is no difference to follow."""


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


def reward_metrics(scores: Scores, equal: np.ndarray | None, group_size: int) -> dict[str, float]:
    """Means and deviations over completions, and what each reward took; rows in which it abstained are not in its mean.

    `equal` `[N]` marks the rows of groups whose rewards were all equal; None where an algorithm compares none.
    """
    metrics = _spread("reward", "reward_std", scores.totals)
    for name, column in zip(scores.names, scores.values.T, strict=True):
        metrics |= _spread(f"rewards/{name}/mean", f"rewards/{name}/std", column)
    metrics |= {f"time/rewards/{name}": seconds for name, seconds in scores.seconds.items()}
    metrics["rewards/failures"] = len(scores.failures)
    metrics["rewards/sandbox_failures"] = sum(
        "sandbox_failure" in said for row in scores.details for said in row.values()
    )
    if equal is None:
        return metrics
    fraction = float(equal.mean())
    return metrics | {"frac_reward_zero_std": fraction, "groups/all_equal": round(fraction * len(equal) / group_size)}


def length_correlation(rewards: np.ndarray, lengths: np.ndarray, group_size: int) -> dict[str, float]:
    """How far the reward of a completion follows its length, both `[N]`, where both differ.

    Pearson's correlation of what each is above its group's mean, so that a prompt that asks for more does not count;
    over all N where a prompt has one completion. Rows with NaN in `rewards` are left out.
    """
    shape = (-1, group_size if group_size > 1 else len(rewards))
    present = ~np.isnan(rewards.reshape(shape))
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)

    def above(values: np.ndarray) -> np.ndarray:
        known = np.where(present, values.astype(np.float64).reshape(shape), 0.0)
        return (known - known.sum(axis=1, keepdims=True) / count)[present]

    reward, length = above(rewards), above(lengths)
    if not present.any() or min(np.ptp(reward), np.ptp(length)) < EQUAL:
        return {}
    return {"reward_length_correlation": float(np.corrcoef(reward, length)[0, 1])}


def _spread(mean: str, std: str, values: np.ndarray) -> dict[str, float]:
    present = values[~np.isnan(values)].astype(np.float64)
    if not present.size:
        return {}
    return {mean: float(present.mean()), std: float(present.std(ddof=1)) if present.size > 1 else 0.0}


def sample_records(
    rollouts: Rollouts,
    thinking: np.ndarray,
    contexts: Sequence[RewardContext],
    scores: Scores,
    advantages: np.ndarray,
) -> list[dict[str, Any]]:
    """One record a completion for samples.jsonl; `thinking` `[N]` is the length of its first region."""
    return [
        {
            "prompt": context.prompt_text,
            "completion": context.generated_text,
            "thinking": context.thinking,
            "answer": context.answer,
            "reference": context.reference_completion,
            "reward": _number(scores.totals[n]),
            "rewards": {name: _number(v) for name, v in zip(scores.names, scores.values[n], strict=True)},
            "advantage": _number(advantages[n]),
            "length_tokens": int(rollouts.lengths[n]),
            "thinking_length_tokens": int(thinking[n]),
            "finish_reason": context.finish_reason,
        }
        for n, context in enumerate(contexts)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
