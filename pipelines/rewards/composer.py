"""Several rewards become one number per completion: the weighted mean over those that did not abstain.

Shapes: N completions, K rewards. Values are `[N, K]` float32 with NaN where a reward abstained or failed.
A failure is never a quiet 0: it is recorded with its row, and too many of them end the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, cast

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


class Item(NamedTuple):
    """What one reward found at one row: a number or NaN, reasons as plain data, and an error or nothing."""

    row: int
    column: int
    value: float
    reasons: dict[str, Any]
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
    """Time spent in each reward by the clock, summed over workers: more than the call took where several worked."""
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
        self.names = component_names([entry.name for entry in configs])
        self.weights: Floats = np.array([entry.weight for entry in configs], dtype=np.float32)
        self.max_failure_fraction = max_failure_fraction

    def score(self, contexts: Sequence[RewardContext]) -> Scores:
        """Every reward on every completion. Raises RewardError when more than the allowed share of rows failed."""
        return self.gathered(*score_block(dict(enumerate(self.rewards)), contexts), len(contexts))

    def gathered(self, items: Iterable[Item], seconds: Mapping[int, float], rows: int, *, part: bool = False) -> Scores:
        """The scores that items in any order make; `seconds` by column. Raises RewardError as `score` does.

        A `part` of a batch is too small to be judged by its failures: `tolerate` judges the whole.
        """
        values: Floats = np.full((rows, len(self.names)), np.nan, dtype=np.float32)
        details: tuple[dict[str, dict[str, Any]], ...] = tuple({} for _ in range(rows))
        failures: list[Failure] = []
        for item in sorted(items, key=lambda item: (item.column, item.row)):
            values[item.row, item.column] = item.value
            if item.reasons:
                details[item.row][self.names[item.column]] = item.reasons
            if item.error:
                failures.append(Failure(item.row, self.names[item.column], item.error))
        if not part:
            self.tolerate(failures, rows)
        spent = {name: seconds.get(column, 0.0) for column, name in enumerate(self.names)}
        totals = weighted_mean(values, self.weights)
        return Scores(self.names, values, self.weights, totals, tuple(failures), spent, details)

    def tolerate(self, failures: Sequence[Failure], samples: int) -> None:
        """RewardError when more than the allowed share of a batch's rows have a failure."""
        bad = len({failure.row for failure in failures})
        if bad > self.max_failure_fraction * samples:
            first = failures[0]
            raise RewardError(
                f"reward {first.name!r} failed: {first.error} (first at row {first.row}; "
                f"{bad} of {samples} completions failed, {self.max_failure_fraction:.1%} are allowed)",
                hint="`grpo inspect-rewards` shows each failure with its text",
            )


def score_block(
    rewards: Mapping[int, BaseReward],
    contexts: Sequence[RewardContext],
    *,
    skipped: Collection[tuple[int, int]] = (),
    begin: Callable[[int, int], None] | None = None,
) -> tuple[list[Item], dict[int, float]]:
    """Each reward, by its column, on each completion, and the seconds each took; rows count within the block.

    `begin(row, column)` is called before every item; items that are `skipped` are left out.
    """
    items: list[Item] = []
    seconds: dict[int, float] = {}
    for column, reward in rewards.items():
        start = perf_counter()
        for row, context in enumerate(contexts):
            if (row, column) in skipped:
                continue
            if begin is not None:
                begin(row, column)
            items.append(Item(row, column, *score_one(reward, context)))
        seconds[column] = perf_counter() - start
    return items, seconds


def score_one(reward: BaseReward, context: RewardContext) -> tuple[float, dict[str, Any], str]:
    """One reward on one completion: (value, reasons, error). NaN without an error means that it abstained."""
    try:
        result = reward.compute(context)
        return _read(result)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary to code that users write; counted and fatal above a limit
        return math.nan, {}, f"{type(error).__name__}: {error}".rstrip(": ")


def _read(result: object) -> tuple[float, dict[str, Any], str]:
    """Take the number out of what `compute` returned; raise TypeError or ValueError if there is none."""
    reasons: dict[str, Any] = {}
    if isinstance(result, Mapping):
        said = cast("Mapping[object, object]", result)
        reasons = {str(key): plain_data(entry) for key, entry in said.items() if key != "reward"}
        if "reward" not in said:
            raise ValueError('returned a dict without "reward"')
        result = said["reward"]
    if result is None:
        return math.nan, reasons, ""
    if not isinstance(result, int | float | np.integer | np.floating | np.bool_):
        raise TypeError(f"returned {type(result).__name__}, not a number")
    value = float(cast("float", result))
    if not abs(value) <= LARGEST:
        raise ValueError(f"returned {value}, which is not a finite number")
    return value + 0.0, reasons, ""  # of -0.0 this makes 0.0, which is how it is shown


def plain_data(value: object) -> Any:
    """A reason as JSON knows it: what is no number, text, list or mapping becomes text."""
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, np.generic):
        return cast("object", value.item())
    if isinstance(value, Mapping):
        return {str(key): plain_data(entry) for key, entry in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain_data(entry) for entry in cast("Sequence[object]", value)]
    if isinstance(value, set | frozenset):
        return [plain_data(entry) for entry in sorted(cast("Collection[object]", value), key=str)]
    return str(value)


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Total of a row = sum(w * v) / sum(w) over rewards with a value; [N, K], [K] -> [N], NaN if none has one."""
    present = ~np.isnan(values)
    weight = np.where(present, weights.astype(np.float64), 0.0)  # [N, K]
    total = np.where(present, values.astype(np.float64), 0.0) * weight
    sums = weight.sum(axis=1)
    return np.divide(total.sum(axis=1), sums, out=np.full(len(values), np.nan), where=sums != 0).astype(np.float32)


def component_names(configured: Sequence[str]) -> tuple[str, ...]:
    """Names under which rewards are logged: no aliases, and two of one name as exact_match and exact_match_2."""
    names = [RewardRegistry.canonical(name) for name in configured]
    taken: list[str] = []
    for name in names:
        word, number = name, 1
        while word in taken or (number > 1 and word in names):
            number += 1
            word = f"{name}_{number}"
        taken.append(word)
    return tuple(taken)
