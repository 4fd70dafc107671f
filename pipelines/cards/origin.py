"""Where a model comes from, each thing from where it was recorded; what is not recorded is not known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, ModelError
from pipelines.evaluation.targets import MANIFEST_FILE, Target
from pipelines.files import read_json
from pipelines.models.files import CONFIG_FILE, model_files
from pipelines.models.locate import is_hub_name, local_model
from pipelines.monitoring import curves
from pipelines.stages import digest
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import Identity, read_identity

CARD_FILE, METRICS_FILE = "README.md", "metrics.jsonl"
LICENCE_KEYS = ("license", "license_name", "license_link")
LEVELS = 4
"""How many folders above a checkpoint its run may lie."""


@dataclass(frozen=True)
class Origin:
    """The base, the run and the settings behind a model."""

    config: ExperimentConfig
    target: Target

    @cached_property
    def run_directory(self) -> Path | None:
        """The run that the checkpoint lies in; None if it lies in none."""
        if self.target.directory is None:
            return None
        above = list(self.target.directory.resolve().parents)[:LEVELS]
        return next((place for place in above if _trained_in(place)), None)

    @cached_property
    def run(self) -> Identity | None:
        """What the run was keyed by: the settings that shaped it, and digests of what it read."""
        return None if self.run_directory is None else read_identity(self.run_directory)

    @cached_property
    def step(self) -> int | None:
        """The update after which the checkpoint was saved."""
        record = self.target.directory and read_json(self.target.directory / MANIFEST_FILE, CheckpointError)
        return record.get("step") if isinstance(record, dict) else None

    @cached_property
    def base(self) -> Path | None:
        """The model below: `model.model_path`, unless the checkpoint is whole and was not trained from that.

        None also where it is not on this machine: nothing is downloaded for a card.
        """
        directory = local_model(self.config.model.model_path)
        whole = self.target.directory is not None and not self.target.is_adapter
        return None if directory is None or (whole and not self._is_recorded(directory)) else directory

    @property
    def base_is_another(self) -> bool:
        """Whether adapters are put on other weights than those they were trained on."""
        return self.run is not None and self.base is not None and not self._is_recorded(self.base)

    def _is_recorded(self, directory: Path) -> bool:
        return self.run is not None and self.run.inputs.get("model") == self.digest_of(directory)

    def digest_of(self, directory: Path) -> str:
        """The digest of a model's files, as the keys of stages have it."""
        return digest.of_tree(model_files(directory), self._cache)

    @cached_property
    def _cache(self) -> DigestCache:
        return DigestCache(Path(self.config.paths.stages))

    @property
    def base_name(self) -> str:
        """The base as it was named, without the folders of whoever exports it."""
        path = self.config.model.model_path
        return Path(path).expanduser().name if Path(path).expanduser().is_dir() else path

    @property
    def hub_name(self) -> str | None:
        """The base's name on the hub; None for any other base."""
        path = self.config.model.model_path
        return path if self.base is not None and is_hub_name(path) and not Path(path).is_dir() else None

    @cached_property
    def licence(self) -> dict[str, str]:
        """What the base says about its licence, by the hub's keys, in its card or its config.json; empty if nothing."""
        if self.base is None:
            return {}
        said = {**(read_json(self.base / CONFIG_FILE, ModelError) or {}), **front_matter(self.base / CARD_FILE)}
        return {key: str(said[key]) for key in LICENCE_KEYS if said.get(key)} if said.get("license") else {}

    @cached_property
    def curves(self) -> curves.Series:
        """The run's metrics up to the checkpoint."""
        if self.run_directory is None or self.step is None:
            return {}
        return curves.series(self.run_directory / METRICS_FILE, self.step)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The whole configuration if the run was trained with it; otherwise what the run recorded of its own."""
        if self.run is None:
            return {}
        recipe, now = plan.RECIPES["train"], self.config.model_dump(mode="json")
        chosen = json.loads(json.dumps(plan.chosen(now, recipe.keys, recipe.without)))
        recorded = {key: self.run.config.get(key) for key in chosen}
        return now if chosen == recorded else dict(self.run.config)


def front_matter(path: Path) -> dict[str, Any]:
    """The YAML between the dashes that a card begins with; empty if there is none that can be read."""
    try:
        opening, _, rest = path.read_text(encoding="utf-8").partition("\n")
        found = yaml.safe_load(rest.partition("\n---")[0]) if opening.rstrip() == "---" else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _trained_in(directory: Path) -> bool:
    identity = read_identity(directory)
    return identity is not None and identity.stage == "train"
