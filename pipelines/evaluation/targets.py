"""Which model is meant: a checkpoint directory, the newest or best of the run, or the model it starts from. No mlx.

A checkpoint holds a whole model (`config.json`, `*.safetensors`, tokenizer) or adapters on `model.model_path`
(`adapters.safetensors`, `adapter_config.json`).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.config import ExperimentConfig
from pipelines.errors import CheckpointError, NoCheckpointError, StageError
from pipelines.files import at_home, read_json, sha256_of_file
from pipelines.models.files import model_files

if TYPE_CHECKING:
    from pipelines.models.load import LoadedModel

BASE, LAST, BEST = "base", "last", "best"
"""What is given instead of a directory: the model that training starts from, the run's newest or best checkpoint."""

STEP_NAME = re.compile(r"step_(\d+)")
MANIFEST_FILE = "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A model to score or sample from. `directory` is None for the starting model; `name` is how tables call it."""

    name: str
    directory: Path | None = None
    words: str = field(default="", compare=False)
    """How it was asked for: `base`, `last`, `best`, or a directory; a run may have another answer tomorrow."""

    def __post_init__(self) -> None:
        if not self.words:
            object.__setattr__(self, "words", BASE if self.directory is None else str(self.directory))

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
        """The model and its tokenizer; an adapter is put on `model.model_path`.

        CheckpointError for a checkpoint that is not what was saved; digests are compared if `verify` is on.
        """
        from pipelines.models.load import load

        if self.directory is not None and config.checkpointing.verify:
            _refuse_changed(self.directory)
        if self.directory is None:
            return load(config.model.model_path, bits=config.model.quantize_bits)
        if self.is_adapter:
            return load(config.model.model_path, adapter=self.directory, bits=config.model.quantize_bits)
        return load(str(self.directory.resolve()))


STARTING_MODEL = Target("base")


def target(config: ExperimentConfig, given: Path | str | None = None) -> Target:
    """What `--checkpoint` means: a directory, `base`, `best` or `last`.

    `last`, the run's newest checkpoint, is meant without it too; before there is one it is the starting model. A run's
    directory, or its directory of checkpoints, stands for the newest complete checkpoint in it.
    """
    words = LAST if given is None else str(given)
    if words == BASE:
        return STARTING_MODEL
    if words in (LAST, BEST):
        return replace(_of_run(config, words), words=words)
    directory = at_home(words)
    if _holds_model(directory):
        return Target(directory.resolve().name, directory, words)
    newest = newest_checkpoint(directory / config.checkpointing.checkpoint_dir) or newest_checkpoint(directory)
    if newest is not None:
        return Target(newest.name, newest, words)
    raise NoCheckpointError(
        f"{directory} holds no checkpoint" if directory.is_dir() else f"there is no checkpoint directory {directory}",
        hint="give a directory with model.safetensors or adapters.safetensors, a run's output_dir, "
        f"`{BEST}`, `{LAST}`, or `{BASE}` for the model that training starts from",
    )


def _of_run(config: ExperimentConfig, words: str) -> Target:
    """The newest or best checkpoint of the configuration's run."""
    run = Path(config.trainer.output_dir) / config.checkpointing.checkpoint_dir
    if words == LAST:
        found = newest_checkpoint(run)
        return STARTING_MODEL if found is None else Target(found.name, found)
    metric, mode = config.checkpointing.best_metric, config.checkpointing.best_mode
    found = best_checkpoint(run, metric, mode)
    if found is None:
        others = " or ".join(sorted({name for path in _complete(run) if (name := _recorded(path)[0])}))
        way = f"set checkpointing.best_metric to {others}, which they recorded" if others else "train first"
        raise CheckpointError(
            f"no checkpoint in {run} recorded {metric}, so none is the best", hint=f"{way}, or take `{LAST}`"
        )
    return Target(found.name, found)


def newest_checkpoint(directory: Path) -> Path | None:
    """The complete `step_<n>` with the largest n; a damaged one is passed over with a warning.

    Complete: its manifest, written last, is there. Sizes are compared here, contents when it is loaded.
    """
    return _first_intact(sorted(_complete(directory), key=step_of, reverse=True))


def best_checkpoint(directory: Path, metric: str, mode: str) -> Path | None:
    """The complete `step_<n>` with the best value of a metric, its largest (`max`) or smallest; the first of equals."""
    sign = -1 if mode == "max" else 1
    recorded = {path: _recorded(path) for path in _complete(directory)}
    values = {path: value for path, (name, value) in recorded.items() if name == metric}
    return _first_intact(sorted(values, key=lambda path: (sign * values[path], step_of(path))))


def _complete(directory: Path) -> list[Path]:
    return [path for path in directory.glob("step_*") if STEP_NAME.fullmatch(path.name) and _is_complete(path)]


def _first_intact(paths: list[Path]) -> Path | None:
    for path in paths:
        damage = _damage(path)
        if not damage:
            return path
        log.warning("%s is damaged and not used: %s", path, damage)
    return None


def _recorded(path: Path) -> tuple[str, float]:
    """The metric that a checkpoint recorded, and its value; without a name if there is none that can be read."""
    try:
        record = cast("dict[str, Any]", read_json(path / MANIFEST_FILE))
        return str(record["metric_name"]), float(record["metric"])
    except (StageError, KeyError, TypeError, ValueError):
        return "", 0.0


def step_of(path: Path) -> int:
    """The update after which a checkpoint was written."""
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


def _refuse_changed(path: Path) -> None:
    """CheckpointError where a file that loading reads has another content than the manifest says, if there is one."""
    if not (path / MANIFEST_FILE).is_file():
        return
    record = read_json(path / MANIFEST_FILE, CheckpointError)
    if not isinstance(record, dict) or record.get("kind") != "grpo checkpoint":
        return  # somebody else's
    saved = {str(file["path"]): file["sha256"] for file in cast("dict[str, Any]", record)["files"]}
    for name, file in model_files(path).items():
        if name in saved and sha256_of_file(file) != saved[name]:
            raise CheckpointError(
                f"{path} is damaged: {name}: content changed (sha256 differs)",
                hint="take another checkpoint (--checkpoint DIR); grpo train --verify makes a run's own again",
            )


def _holds_model(directory: Path) -> bool:
    if (directory / "adapters.safetensors").is_file():
        return (directory / "adapter_config.json").is_file()
    return (directory / "config.json").is_file() and any(directory.glob("*.safetensors"))
