"""The stored scores of a model, and of its base on the very same items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cards.origin import Origin
from pipelines.errors import StageError
from pipelines.evaluation.records import by_item
from pipelines.stages import manifest, store
from pipelines.stages.identity import Identity

if TYPE_CHECKING:
    from pipelines.evaluation.statistics import Paired

ITEMS_FILE = "items.jsonl"
WEIGHTS = ("checkpoint", "model")
"""The inputs of a score that say which model answered."""


@dataclass(frozen=True)
class Stored:
    """A score as the store has it."""

    directory: Path
    identity: Identity
    metrics: dict[str, Any]

    @property
    def weights(self) -> dict[str, str]:
        return {name: sha256 for name, sha256 in self.identity.inputs.items() if name in WEIGHTS}

    @property
    def question(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What was asked, whoever answered: settings and items."""
        items = {name: sha256 for name, sha256 in self.identity.inputs.items() if name not in WEIGHTS}
        return self.identity.config, items

    @property
    def benchmark(self) -> str:
        return str(self.identity.config["benchmark"]["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that somebody gave the benchmark."""
        given = {**self.identity.config["benchmark"]["config"], **self.identity.config.get("request", {})}
        return {key: value for key, value in given.items() if value is not None}

    def records(self) -> list[dict[str, Any]]:
        """What was noted of each completion; `StageError` if that cannot be read."""
        path = self.directory / ITEMS_FILE
        try:
            with path.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        except ValueError as error:
            raise StageError(f"{path} is damaged: {error}", hint="`grpo eval --verify` scores it again") from error

    @cached_property
    def by_item(self) -> dict[int, float]:
        """The score of each item."""
        return by_item(self.records())


def stored_scores(origin: Origin) -> list[tuple[Stored, Stored | None]]:
    """Every score of exactly this model with its base's, by benchmark, the newest first."""
    known = list(stored(origin.config.paths.stages))
    base = {} if origin.base is None else {"model": origin.digest_of(origin.base)}
    directory = origin.target.directory
    own = base if directory is None else {"checkpoint": origin.digest_of(directory)}
    if origin.target.is_adapter:
        own |= base
    mine = [score for score in known if own and score.weights == own]
    bases = [score for score in known if base and score.weights == base != own]
    paired = [(score, next((b for b in bases if b.question == score.question), None)) for score in mine]
    return sorted(paired, key=lambda pair: pair[0].benchmark)


def difference(score: Stored, base: Stored, seed: int) -> Paired:
    """Score against base on the items that both have."""
    from pipelines.evaluation.statistics import paired_bootstrap

    before, after = base.by_item, score.by_item
    items = sorted(before.keys() & after.keys())
    return paired_bootstrap([before[item] for item in items], [after[item] for item in items], seed=seed)


def stored(root: Path | str) -> Iterator[Stored]:
    """Every undamaged score in a store, the newest first."""
    for entry in store.entries(root, "eval"):
        try:
            record = manifest.read(entry)
        except StageError:
            continue  # a damaged entry tells nothing
        if record is not None and not manifest.damages(entry, record):
            yield Stored(entry, record.identity, record.summary)
