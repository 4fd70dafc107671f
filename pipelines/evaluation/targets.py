"""Which model is meant: a checkpoint directory, the newest of the run, or the model the run starts from. No mlx.

A checkpoint holds a whole model (`config.json`, `*.safetensors`, tokenizer) or adapters on `model.model_path`
(`adapters.safetensors`, `adapter_config.json`).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, StageError
from pipelines.files import read_json

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel

BASE = "base"
"""What is given instead of a directory to mean the model that training starts from."""

STEP_NAME = re.compile(r"step_(\d+)")
MANIFEST_FILE = "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A model to score or sample from. `directory` is None for the starting model; `name` is how tables call it."""

    name: str
    directory: Path | None = None

    @property
    def is_adapter(self) -> bool:
        return self.directory is not None and (self.directory / "adapters.safetensors").is_file()

    def describe(self, config: ExperimentConfig) -> str:
        """The target in words, such as `checkpoint outputs/run/checkpoints/step_000060`."""
        if self.directory is None:
            return f"the starting model, {config.model.model_path}"
        adapter = f", adapters on {config.model.model_path}" if self.is_adapter else ""
        return f"checkpoint {self.directory}{adapter}"

    def load(self, config: ExperimentConfig) -> LoadedModel:
        """The model and its tokenizer; an adapter is put on `model.model_path`."""
        from pipelines.models.load import load

        if self.directory is None:
            return load(config.model.model_path)
        if self.is_adapter:
            return load(config.model.model_path, adapter=self.directory)
        return load(str(self.directory.resolve()))


STARTING_MODEL = Target("base")


def target(config: ExperimentConfig, given: Path | str | None = None) -> Target:
    """What `--checkpoint` means: a directory, `base`, or nothing, which is the run's newest checkpoint if it has one.

    A run's directory, or its directory of checkpoints, stands for the newest complete checkpoint in it.
    """
    if given is not None and str(given) == BASE:
        return STARTING_MODEL
    if given is None:
        run = Path(config.trainer.output_dir) / config.checkpointing.checkpoint_dir
        newest = newest_checkpoint(run)
        return STARTING_MODEL if newest is None else Target(newest.name, newest)
    directory = Path(given).expanduser()
    if _holds_model(directory):
        return Target(directory.resolve().name, directory)
    newest = newest_checkpoint(directory / config.checkpointing.checkpoint_dir) or newest_checkpoint(directory)
    if newest is not None:
        return Target(newest.name, newest)
    raise CheckpointError(
        f"{directory} holds no checkpoint" if directory.is_dir() else f"there is no checkpoint directory {directory}",
        hint="give a directory with model.safetensors or adapters.safetensors, a run's output_dir, "
        f"or `{BASE}` for the model that training starts from",
    )


def newest_checkpoint(directory: Path) -> Path | None:
    """The complete `step_<n>` with the largest n; a damaged one is passed over with a warning.

    Complete: its manifest, written last, is there. Sizes are compared, contents are not: scoring reads them anyway.
    """
    found = [path for path in directory.glob("step_*") if STEP_NAME.fullmatch(path.name) and _is_complete(path)]
    for path in sorted(found, key=_step, reverse=True):
        damage = _damage(path)
        if not damage:
            return path
        log.warning("%s is damaged and not used: %s", path, damage)
    return None


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _is_complete(path: Path) -> bool:
    return (path / MANIFEST_FILE).is_file() and _holds_model(path)


def _damage(path: Path) -> str:
    """The first file whose size is not the manifest's; empty if there is none."""
    try:
        files = {str(record["path"]): record["size_bytes"] for record in read_json(path / MANIFEST_FILE)["files"]}
    except (StageError, KeyError, TypeError) as error:
        return f"{MANIFEST_FILE} cannot be read: {error}"
    for name, size_bytes in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size_bytes:
            return f"{name} is gone or has another size"
    return ""


def _holds_model(directory: Path) -> bool:
    if (directory / "adapters.safetensors").is_file():
        return (directory / "adapter_config.json").is_file()
    return (directory / "config.json").is_file() and any(directory.glob("*.safetensors"))
