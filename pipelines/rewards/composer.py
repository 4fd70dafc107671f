"""Several rewards become one number per completion: the weighted mean over those that did not abstain.

Shapes: N completions, K rewards. Values are `[N, K]` float32 with NaN where a reward abstained or failed.
A failure is never a quiet 0: it is recorded with its row, and too many of them end the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import RewardConfig
from pipelines.errors import ConfigError, RewardError
from pipelines.rewards.base import BaseReward
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry

Floats = npt.NDArray[np.float32]

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Failure:
    """A reward that raised, or returned something that is no finite number, at one row of a call."""

    row: int
    name: str
    error: str


@dataclass(frozen=True)
class Scores:
    """What `RewardComposer.score` found in one call."""

    names: tuple[str, ...]
    values: Floats  # [N, K]
    weights: Floats  # [K]
    totals: Floats  # [N], NaN where every reward abstained
    failures: tuple[Failure, ...]
    seconds: dict[str, float]
    details: tuple[dict[str, dict[str, Any]], ...]
    """Row by row, what a reward said beside its number: {name: {reason: value}}."""


class RewardComposer:
    """The rewards of a configuration, made once and asked for every batch."""

    def __init__(self, configs: Sequence[RewardConfig], *, max_failure_fraction: float = 0.01) -> None:
        if not configs:
            raise ConfigError("rewards: the list is empty", hint="add one, such as {name: exact_match, weight: 1.0}")
        self.rewards = [
            RewardRegistry.create(entry.name, entry.config, where=f"rewards[{index}]")
            for index, entry in enumerate(configs)
        ]
        self.names = _distinct([RewardRegistry.canonical(entry.name) for entry in configs])
        self.weights: Floats = np.array([entry.weight for entry in configs], dtype=np.float32)
        self.max_failure_fraction = max_failure_fraction
        self.scored = 0
        self.failed = 0

    def score(self, contexts: Sequence[RewardContext]) -> Scores:
        """Every reward on every completion. Raises RewardError when more than the allowed share of rows failed."""
        values: Floats = np.full((len(contexts), len(self.rewards)), np.nan, dtype=np.float32)
        details: tuple[dict[str, dict[str, Any]], ...] = tuple({} for _ in contexts)
        failures: list[Failure] = []
        seconds: dict[str, float] = {}
        for column, (name, reward) in enumerate(zip(self.names, self.rewards, strict=True)):
            start = perf_counter()
            for row, context in enumerate(contexts):
                value, reasons, error = score_one(reward, context)
                values[row, column] = value
                if reasons:
                    details[row][name] = reasons
                if error:
                    failures.append(Failure(row, name, error))
            seconds[name] = perf_counter() - start
        self._tolerate(failures, len(contexts))
        totals = weighted_mean(values, self.weights)
        return Scores(self.names, values, self.weights, totals, tuple(failures), seconds, details)

    def _tolerate(self, failures: list[Failure], samples: int) -> None:
        """Count rows with a failure, in this call and in all; above the limit the run ends."""
        failed = len({failure.row for failure in failures})
        self.scored += samples
        self.failed += failed
        for bad, seen in ((failed, samples), (self.failed, self.scored)):
            if bad > self.max_failure_fraction * seen and failures:
                first = failures[0]
                raise RewardError(
                    f"reward {first.name!r} failed: {first.error} (first at row {first.row}; "
                    f"{bad} of {seen} completions failed, {self.max_failure_fraction:.1%} are allowed)",
                    hint="`grpo inspect-rewards` shows each failure with its text",
                )


def score_one(reward: BaseReward, context: RewardContext) -> tuple[float, dict[str, Any], str]:
    """One reward on one completion: (value, reasons, error). NaN without an error means that it abstained."""
    try:
        result = reward.compute(context)
        return _read(result)
    except Exception as error:  # noqa: BLE001 - the boundary to code that users write; counted and fatal above a limit
        return math.nan, {}, f"{type(error).__name__}: {error}".rstrip(": ")


def _read(result: object) -> tuple[float, dict[str, Any], str]:
    """Take the number out of what `compute` returned; raise TypeError or ValueError if there is none."""
    reasons: dict[str, Any] = {}
    if isinstance(result, Mapping):
        reasons = {str(key): entry for key, entry in result.items() if key != "reward"}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if "reward" not in result:
            raise ValueError('returned a dict without "reward"')
        result = result["reward"]  # pyright: ignore[reportUnknownVariableType]
    if result is None:
        return math.nan, reasons, ""
    if not isinstance(result, int | float | np.integer | np.floating | np.bool_):
        raise TypeError(f"returned {type(result).__name__}, not a number")  # pyright: ignore[reportUnknownArgumentType]
    value = float(result)  # pyright: ignore[reportUnknownArgumentType]
    if not abs(value) <= LARGEST:
        raise ValueError(f"returned {value}, which is not a finite number")
    return value, reasons, ""


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Total of a row = sum(w * v) / sum(w) over rewards with a value; [N, K], [K] -> [N], NaN if none has one."""
    present = ~np.isnan(values)
    weight = np.where(present, weights.astype(np.float64), 0.0)  # [N, K]
    total = np.where(present, values.astype(np.float64), 0.0) * weight
    sums = weight.sum(axis=1)
    return np.divide(total.sum(axis=1), sums, out=np.full(len(values), np.nan), where=sums != 0).astype(np.float32)


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Two rewards of one name are told apart by a number: exact_match, exact_match_2."""
    taken: list[str] = []
    for name in names:
        word, number = name, 1
        while word in taken or (number > 1 and word in names):
            number += 1
            word = f"{name}_{number}"
        taken.append(word)
    return tuple(taken)
