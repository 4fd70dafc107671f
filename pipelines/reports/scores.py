"""The stored scores of runs: who answered the same questions, how well, and which answers changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cards.scores import Stored, difference, stored
from pipelines.reports.runs import Run
from pipelines.stages import manifest
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import canonical_json

if TYPE_CHECKING:
    from pipelines.evaluation.statistics import Paired

BASE = "starting model"
MEASURED = ("accuracy", "low", "high", "n")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """A model's answers to some questions; `run` is None for a model that a run began with."""

    model: str
    run: Run | None
    stored: Stored

    @property
    def accuracy(self) -> float | None:
        """None where nothing is right or wrong: there is no interval either, then."""
        found = self.stored.metrics
        return found["accuracy"] if all(isinstance(found.get(name), int | float) for name in MEASURED) else None

    @property
    def interval(self) -> str:
        """The ends of the accuracy's interval, in per cent."""
        found = self.stored.metrics
        return f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %"


@dataclass(frozen=True)
class Benchmark:
    """The same questions, put to several models: those that runs began with first, then checkpoints as they came.

    `settings` are the keys that somebody gave it, with the seed where that chose the items.
    """

    name: str
    settings: dict[str, Any]
    scores: list[Score]

    @property
    def title(self) -> str:
        """Its name with these settings."""
        return ", ".join([self.name, *(f"{key} {value}" for key, value in self.settings.items())])

    def base(self, run: Run | None) -> Score | None:
        """The model that a run began with; None if it was not asked."""
        if run is None:
            return None
        return next((score for score in self.scores if score.run is None and score.stored.weights == run.base), None)

    def newest(self, run: Run) -> Score | None:
        """The latest checkpoint of a run that was asked."""
        return next((score for score in reversed(self.scores) if score.run is run), None)

    def against(self, score: Score, other: Score | None, seed: int) -> Paired | None:
        """A score against another on the items of both; None where there is nothing to compare."""
        if other is None or other is score or score.accuracy is None:
            return None
        shared = score.stored.by_item.keys() & other.stored.by_item.keys()
        return difference(score.stored, other.stored, seed) if shared else None


def benchmarks(runs: Sequence[Run], root: Path | str) -> list[Benchmark]:
    """What the store knows of the models of these runs, by benchmark."""
    known = list(stored(root))
    if not known:
        return []
    found: dict[str, Benchmark] = {}
    cache = DigestCache(Path(root))
    for model, run, weights in _models(runs, cache):
        for score in known:
            if score.weights == weights and _is_intact(score):
                one = found.setdefault(_question(score), Benchmark(score.benchmark, _settings(score), []))
                if all(other.model != model for other in one.scores):  # the newest of several comes first
                    one.scores.append(Score(model, run, score))
    cache.save()
    return sorted(found.values(), key=lambda one: one.title)


def _is_intact(score: Stored) -> bool:
    """Whether its records are what was written; `stored` looks at sizes only."""
    record = manifest.read(score.directory)
    damage = ["gone"] if record is None else manifest.damages(score.directory, record, verify=True)
    if damage:
        log.warning("a score is left out, %s: %s", score.directory, "; ".join(damage))
    return not damage


def _settings(score: Stored) -> dict[str, Any]:
    seed = score.identity.config["trainer"]["seed"]
    return score.settings | ({"seed": seed} if "limit" in score.settings else {})


def _question(score: Stored) -> str:
    """Scores of one question stand together: whatever the seed of their runs, unless it chose the items."""
    settings, items = score.question
    trainer = settings["trainer"] if "limit" in score.settings else {}
    return canonical_json([settings | {"trainer": trainer}, items])


def _models(runs: Sequence[Run], cache: DigestCache) -> Iterator[tuple[str, Run | None, dict[str, str] | None]]:
    """Name, run and weights of every model, each starting model once."""
    bases: dict[str, list[Run]] = {}
    for run in runs:
        bases.setdefault(run.base["model"], []).append(run)
    for begun in bases.values():
        of = "" if len(bases) == 1 else " of " + ", ".join(run.name for run in begun)
        yield BASE + of, None, begun[0].base
    for run in runs:
        for checkpoint in run.checkpoints():
            model = checkpoint.name if len(runs) == 1 else f"{run.name}, {checkpoint.name}"
            yield model, run, run.weights(checkpoint, cache)


@dataclass(frozen=True)
class Change:
    """An item before and after: the records of its first sample."""

    before: dict[str, Any]
    after: dict[str, Any]


def changes(before: Score, after: Score) -> dict[str, list[Change]]:
    """Items by what became of them: `lost`, `won`, `still wrong`, `still right`; in the order of the benchmark."""
    old, new = before.stored.by_item, after.stored.by_item
    was = {record["item"]: record for record in reversed(before.stored.records())}
    now = {record["item"]: record for record in reversed(after.stored.records())}
    found: dict[str, list[Change]] = {"lost": [], "won": [], "still wrong": [], "still right": []}
    for item in sorted(old.keys() & new.keys()):
        if new[item] != old[item]:
            kind = "won" if new[item] > old[item] else "lost"
        else:
            kind = "still right" if new[item] >= 1 else "still wrong"
        found[kind].append(Change(was[item], now[item]))
    return found
