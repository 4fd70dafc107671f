"""A small world for tests of stages: rows, something that looks like a model from outside, and stages without work."""

from pathlib import Path
from typing import Any

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.evaluation.targets import LAST, target
from pipelines.stages import requests, store
from pipelines.stages.identity import Identity
from pipelines.stages.store import StageResult

MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors", "README.md")


def make_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in MODEL_FILES:
        (directory / name).write_text(f'"{name}"')
    return directory


def make_checkpoint(config: ExperimentConfig, step: int, reward: float = 0.0) -> Path:
    """A complete checkpoint of the configuration's run, unlike any other."""
    directory = make_model(Path(config.trainer.output_dir) / "checkpoints" / f"step_{step:06d}")
    (directory / "model.safetensors").write_text(f"weights after {step}")
    manifest = f'{{"files": [], "metric_name": "reward", "metric": {reward}}}'
    (directory / "manifest.json").write_text(manifest)
    return directory


def make_rows(path: Path, rows: str = '{"prompt": "1 + 1", "completion": "2"}\n') -> Path:
    path.write_text(rows)
    return path


def make_config(place: Path) -> ExperimentConfig:
    """The defaults on a model and rows of our own."""
    return ExperimentConfig.model_validate(
        {
            "model": {"model_path": str(make_model(place / "model"))},
            "data": {"train_path": str(make_rows(place / "train.jsonl"))},
        }
    )


def changed(config: ExperimentConfig, key: str, value: Any) -> Any:
    """A copy with one dotted key set, unchecked: rules between settings are not the point here."""
    name, _, rest = key.partition(".")
    return config.model_copy(update={name: changed(getattr(config, name), rest, value) if rest else value})


def finish(config: ExperimentConfig, identity: Identity, content: str = "output") -> StageResult:
    """Complete a stage without its work."""
    directory = plan.stage_directory(config, identity.stage, identity)
    return store.run_stage(identity, directory, lambda place: (place / "output").write_text(content) and None)


def preprocess(config: ExperimentConfig, content: str = "tokens") -> StageResult:
    return finish(config, plan.preprocess_identity(config), content)


def train(config: ExperimentConfig) -> StageResult:
    return finish(config, plan.train_identity(config))


def ask(config: ExperimentConfig, stage: str, of: str = LAST, **options: Any) -> StageResult:
    """Answer a request for `--checkpoint OF` and note it, as the stages do."""
    model = target(config, of)
    result = finish(config, plan.asked_identity(stage, config, model.directory, **options))
    requests.note(result.directory, model.words, options.get("files"))
    return result


def tree(*places: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below some places, with times and contents: equal before and after means that nothing was written."""
    paths = [path for place in places for path in (place, *place.rglob("*")) if path.exists()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}
