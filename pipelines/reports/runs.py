"""A run as its directory tells it: settings, metrics, samples, warnings, checkpoints, and how far it came."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from pipelines.errors import DataError, GrpoError, StageError
from pipelines.evaluation.targets import MANIFEST_FILE, STEP_NAME
from pipelines.models.files import model_files
from pipelines.monitoring import jsonl
from pipelines.stages import digest, locks, manifest
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import IDENTITY_FILE, Identity, read_identity
from pipelines.stages.manifest import Manifest

METRICS_FILE, SAMPLES_FILE, LOG_FILE = "metrics.jsonl", "samples.jsonl", "train.log"
WARNING = "  warning: "
SHARE = 10
"""What a run began with and came to are means over a tenth of its updates."""

LARGEST = 1e300
"""A value beyond this is as good as infinite: not even its chart could be drawn."""

Series = tuple[list[int], list[float]]
"""Updates, ascending, and a metric's values after them."""


@dataclass(frozen=True)
class Logged:
    """A logged completion without its texts; lengths are None in logs of versions that did not note them."""

    step: int
    length_tokens: int | None
    thinking_length_tokens: int | None
    is_cut: bool


@dataclass(frozen=True)
class Run:
    """One run; `name` is how a page calls it, `colour` how it draws it."""

    directory: Path
    name: str
    colour: int
    identity: Identity
    manifest: Manifest | None
    series: dict[str, Series]

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was keyed by: all that shaped it, without places and cadences."""
        return self.identity.config

    def setting(self, section: str, key: str) -> Any:
        """One of them; None if the version that trained it did not have it."""
        return self.settings.get(section, {}).get(key)

    @property
    def algorithm(self) -> str:
        return str(self.setting("trainer", "algorithm"))

    @property
    def planned(self) -> int:
        """The updates it was asked for."""
        return int(self.setting("trainer", "num_training_steps") or 0)

    @cached_property
    def step(self) -> int:
        """The last update that was logged."""
        return max((steps[-1] for steps, _ in self.series.values()), default=0)

    @cached_property
    def worker(self) -> str | None:
        """Who trains it now."""
        return locks.running(self.directory)

    @property
    def state(self) -> str:
        """How far it came, in words."""
        if self.worker is not None:
            return f"running ({self.worker}), {self.step} of {self.planned} updates done"
        if self.manifest is not None:
            return f"{self.manifest.summary.get('status', 'finished')} after {self.step} updates"
        return f"not finished: {self.step} of {self.planned} updates done"

    def values(self, name: str) -> list[float]:
        """A metric over the updates; empty if it was never logged."""
        return self.series.get(name, ([], []))[1]

    def total(self, name: str) -> float:
        """The sum of a metric over the updates; 0 if it was never logged."""
        return sum(self.values(name))

    def change(self, name: str) -> tuple[float, float] | None:
        """A metric's mean over the first and over the last tenth of the updates; None if it was never logged."""
        values = self.values(name)
        if not values:
            return None
        count = -(-len(values) // SHARE)
        return fmean(values[:count]), fmean(values[-count:])

    def warnings(self) -> list[str]:
        """What train.log warned of, each sentence once, in order."""
        try:
            with (self.directory / LOG_FILE).open(encoding="utf-8", errors="backslashreplace") as lines:
                found = [line.rstrip("\n").partition(WARNING) for line in lines]
        except FileNotFoundError:
            return []
        return list(dict.fromkeys(text for _, warning, text in found if warning))

    def samples(self, wanted: Collection[int]) -> Iterator[dict[str, Any]]:
        """The samples of some updates, as they were logged."""
        for record in self._records():
            if record.get("step") in wanted:
                yield record

    @cached_property
    def logged(self) -> list[Logged]:
        """What the samples of all updates have in numbers, in the order of the log."""
        return [
            Logged(
                step,
                _whole(record.get("length_tokens")),
                _whole(record.get("thinking_length_tokens")),
                record.get("finish_reason") == "length",
            )
            for record in self._records()
            if (step := _whole(record.get("step"))) is not None
        ]

    def sampled_steps(self) -> list[int]:
        """The updates that samples were logged of."""
        return sorted({one.step for one in self.logged})

    def _records(self) -> Iterator[dict[str, Any]]:
        path = self.directory / SAMPLES_FILE
        return jsonl.records(path) if path.is_file() else iter(())

    def checkpoints(self) -> list[Path]:
        """Its complete checkpoints, the earliest first, wherever below the run they lie."""
        walk = os.walk(self.directory)  # unlike a glob it does not mind what is deleted meanwhile
        found = [Path(place) for place, _, names in walk if MANIFEST_FILE in names]
        own = [path for path in found if self._trained(path)]
        named = {int(match[1]): path for path in own if (match := STEP_NAME.fullmatch(path.name))}
        return [named[step] for step in sorted(named) if any(named[step].glob("*.safetensors"))]

    def _trained(self, path: Path) -> bool:
        """Whether a directory in this one is of this run, and not of another that lies in it."""
        return self.directory == next((place for place in path.parents if (place / IDENTITY_FILE).is_file()), None)

    @property
    def base(self) -> dict[str, str]:
        """The inputs of a score of the model that the run began with."""
        return {"model": self.identity.inputs["model"]}

    def weights(self, checkpoint: Path, cache: DigestCache) -> dict[str, str] | None:
        """The inputs of a score of a checkpoint; None for one that cannot be read, or was deleted just now."""
        try:
            own = {"checkpoint": digest.of_tree(model_files(checkpoint), cache)}
        except GrpoError:
            return None
        return own | self.base if (checkpoint / "adapters.safetensors").is_file() else own


def read(directories: Sequence[Path]) -> list[Run]:
    """The runs in some directories, each once; DataError for one that holds no run, or none of whose updates is logged.

    Nothing is written, and a run that is going on is read as far as it came.
    """
    first: dict[str, Path] = {}
    for directory in directories:
        first.setdefault(os.path.realpath(directory), directory)
    places = list(first.values())
    return [_read(place, name, colour) for colour, (place, name) in enumerate(zip(places, _names(places), strict=True))]


def _read(directory: Path, name: str, colour: int) -> Run:
    identity = read_identity(directory)
    if identity is None or identity.stage != "train":
        there = "holds no run" if directory.is_dir() else "is a file" if directory.exists() else "is not there"
        raise DataError(f"{directory} {there}", hint="give the output_dir of a run, or train first")
    series = _series(directory / METRICS_FILE)
    if not series:
        raise DataError(
            f"{directory / METRICS_FILE} has no update to show", hint="wait for the run's first update, or train again"
        )
    try:
        record = manifest.read(directory)
    except StageError:
        record = None  # a damaged manifest says nothing; the run is shown as one that has not finished
    return Run(directory, name, colour, identity, record, series)


def _series(path: Path) -> dict[str, Series]:
    """Every metric of a log; values that were not finite are left out, and of two lines of an update the later counts.

    A process that died may leave lines that a resumed run writes again: they count only until then.
    """
    kept: dict[int, dict[str, Any]] = {}
    if path.is_file():
        for record in jsonl.records(path):
            if isinstance(step := record.pop("step", None), int):
                kept[step] = record
    found: dict[str, Series] = {}
    for step in sorted(kept):
        for name, value in kept[step].items():
            if name != "time" and _is_number(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(float(value))
    return found


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= LARGEST else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= LARGEST  # False for NaN


def _names(places: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell it from the others."""
    whole = [Path(os.path.realpath(place)).parts for place in places]
    return [_name(parts, whole) for parts in whole]


def _name(parts: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    ends = (parts[-count:] for count in range(1, len(parts) + 1))
    return "/".join(next(end for end in ends if sum(other[-len(end) :] == end for other in others) == 1))
