"""`rewards`: the run's validation rows, judged by the very rewards that it is trained with.

For tasks with many right answers, where the reference is only one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.config import ExperimentConfig
from pipelines.errors import DataError
from pipelines.evaluation.base import BaseEvaluator, EvaluatorConfig, Sources, Verdict
from pipelines.evaluation.completions import Prompt, prompts_of
from pipelines.evaluation.records import Records, means, metrics
from pipelines.evaluation.statistics import bootstrap
from pipelines.rewards.code import sandbox_used
from pipelines.rewards.context import RewardContext
from pipelines.rewards.workers import ParallelComposer

if TYPE_CHECKING:
    from pipelines.rewards.composer import Scores

ROUNDING = 1e-6
"""Totals are float32."""
NO_VALUE = "no reward has a value"


class Rewarded(BaseEvaluator):
    """Every validation row, with exactly the prompts training would see; one without a reference too."""

    class Config(EvaluatorConfig):
        """Keys of rewards."""

        threshold: float = 1.0
        """A completion is right from this reward on, the weighted mean over the rewards that did not abstain."""

    reads = ("rewards",)
    settings: Config

    def items(self, sources: Sources) -> Sequence[Prompt]:
        self.composer = ParallelComposer(sources.config.rewards, sources.config.plugin_files)
        dataset = sources.validation()
        if not len(dataset):
            raise DataError(
                "there is no validation row",
                hint="set data.val_path, or data.val_fraction to set rows aside from the training rows",
            )
        return prompts_of(dataset, range(len(dataset)))

    def verdicts(self, contexts: Sequence[RewardContext]) -> list[Verdict]:
        scores = self.composer.score(contexts)
        return [self._verdict(scores, row, context) for row, context in enumerate(contexts)]

    def _verdict(self, scores: Scores, row: int, context: RewardContext) -> Verdict:
        total = _number(scores.totals[row])
        values = {name: _number(value) for name, value in zip(scores.names, scores.values[row], strict=True)}
        correct = total is not None and total >= self.settings.threshold - ROUNDING
        return Verdict(
            correct,
            context.answer,
            context.reference_answer,
            reason="" if correct else _reason(scores, row),
            details={"reward": total, "rewards": values},
        )

    def metrics(self, records: Records) -> dict[str, Any]:
        """Beside the accuracy the mean reward and, of several rewards, the mean of each where it has a value."""
        found = metrics(records) | _mean("reward", records, lambda record: record["reward"])
        if "reward" not in found:
            raise DataError(
                f"{NO_VALUE} for any completion",
                hint="the configured rewards abstain on the validation rows; `grpo inspect-rewards` shows why",
            )
        names = records[0]["rewards"]
        for name in names if len(names) > 1 else ():
            found |= _mean(f"reward_{name}", records, lambda record, name=name: record["rewards"][name])
        without = sum(record["reward"] is None for record in records)
        return found | ({"unrewarded": without / len(records)} if without else {})

    def conditions(self, config: ExperimentConfig) -> dict[str, Any]:
        return sandbox_used(config.rewards)


def _mean(name: str, records: Records, read: Callable[[Mapping[str, Any]], float | None]) -> dict[str, float]:
    """The mean over items of what is read of their records, with its interval; records that have None are left out."""
    values = list(means(records, read).values())
    if not values:
        return {}
    ends = bootstrap(values)
    return {name: sum(values) / len(values), f"{name}_low": ends.low, f"{name}_high": ends.high}


def _reason(scores: Scores, row: int) -> str:
    """What the rewards said about a completion and what went wrong with them; else, if so, that none has a value."""
    said = {name: told["reason"] for name, told in scores.details[row].items() if "reason" in told}
    failed = {each.name: f"failed: {each.error}" for each in scores.failures if each.row == row}
    silent = NO_VALUE if _number(scores.totals[row]) is None else ""
    return "; ".join([f"{name}: {reason}" for name, reason in {**said, **failed}.items()]) or silent


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
