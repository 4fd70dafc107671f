"""A small world for tests of the train stage: a few rows, a plugin, and configurations that differ in a word or two."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config import ExperimentConfig
from pipelines.training.options import Options

ROWS = Path(__file__).resolve().parents[1] / "data" / "arithmetic" / "train.jsonl"

quiet = partial(Options, quiet=True)


def make_folder(place: Path, rows: int, plugin: str) -> Path:
    """The first rows of the built-in data set, and a plugin."""
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:rows]))
    (place / "plugin.py").write_text(plugin)
    return place


def settings(folder: Path, name: str, defaults: dict[str, Any], **changes: Any) -> ExperimentConfig:
    """A configuration in `<folder>/<name>`; `defaults`, then keyword arguments are merged into its sections."""
    tree: dict[str, Any] = {
        "trainer": {"output_dir": str(folder / name), "learning_rate": 1e-3},
        "data": {"train_path": str(folder / "rows.jsonl"), "max_gen_len": 24},
        "plugins": [str(folder / "plugin.py")],
        "monitoring": {"log_samples_every": 1},
        "paths": {"stages": str(folder / "stages")},
    }
    for part in (defaults, changes):
        for section, values in part.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return ExperimentConfig.model_validate(tree)


def checkpoint(config: ExperimentConfig, step: int | None = None) -> Path:
    """The directory of a step's checkpoint, by default the last one's."""
    step = config.trainer.num_training_steps if step is None else step
    return Path(config.trainer.output_dir) / "checkpoints" / f"step_{step:06d}"


def records(config: ExperimentConfig, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a log without what a clock or the memory says."""
    lines = (Path(config.trainer.output_dir) / file).read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time", "memory")) and "per_second" not in k}
        for line in lines
    ]
