"""What status says of a pipeline, stage by stage, and what it does not object to."""

from pathlib import Path
from typing import Any

import pytest

from pipelines import plan
from pipelines.config import ExperimentConfig
from pipelines.stages import store


def make_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors", "README.md"):
        (directory / name).write_text(name)
    return directory


def make_rows(path: Path) -> Path:
    path.write_text('{"prompt": "1 + 1", "completion": "2"}\n')
    return path


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ExperimentConfig.model_validate(
        {
            "model": {"model_path": str(make_model(tmp_path / "model"))},
            "data": {"train_path": str(make_rows(tmp_path / "train.jsonl"))},
        }
    )


def changed(config: ExperimentConfig, key: str, value: Any) -> Any:
    """A copy with one dotted key set, unchecked: rules between settings are not the point here."""
    name, _, rest = key.partition(".")
    return config.model_copy(update={name: changed(getattr(config, name), rest, value) if rest else value})


def preprocess(config: ExperimentConfig, content: str = "tokens") -> None:
    identity = plan.preprocess_identity(config)
    directory = plan.stage_directory(config, "preprocess", identity)
    store.run_stage(identity, directory, lambda place: (place / "train_prompts.npy").write_text(content) and None)


def train(config: ExperimentConfig) -> None:
    identity = plan.train_identity(config)
    directory = plan.stage_directory(config, "train", identity)
    store.run_stage(identity, directory, lambda place: (place / "metrics.jsonl").write_text("{}") and None)


def table(config: ExperimentConfig) -> dict[str, tuple[str, list[str]]]:
    return {state.stage: (state.status, state.reasons) for state in plan.pipeline_status(config)}


def behind(config: ExperimentConfig) -> list[str]:
    return [state.stage for state in plan.needs_work(plan.pipeline_status(config))]


def test_status_before_anything(config):
    found = table(config)
    assert list(found) == list(plan.STAGES)
    assert found["preprocess"] == ("missing", ["never ran"])
    assert found["train"] == ("missing", ["waits for preprocess"])
    assert found["eval"][0] == "missing"
    assert behind(config) == ["preprocess", "train"]
    assert not Path(config.paths.stages).exists()


def test_status_of_a_finished_pipeline(config):
    preprocess(config)
    assert table(config)["train"] == ("missing", ["never ran"])
    train(config)
    assert [table(config)[stage] for stage in ("preprocess", "train")] == [("cached", []), ("cached", [])]
    assert behind(config) == []


def test_status_tells_what_changed(config):
    preprocess(config)
    train(config)
    assert table(changed(config, "trainer.grpo_beta", 0.04))["train"] == (
        "stale",
        ["trainer.grpo_beta: 0.0 -> 0.04"],
    )
    both = changed(changed(config, "trainer.grpo_beta", 0.04), "data.limit", 7)
    assert table(both)["preprocess"] == ("stale", ["data.limit: null -> 7"])
    assert table(both)["train"] == ("stale", ["waits for preprocess", "trainer.grpo_beta: 0.0 -> 0.04"])
    assert behind(both) == ["preprocess", "train"]


def test_status_survives_missing_inputs(config):
    preprocess(config)
    train(config)
    gone = changed(config, "data.train_path", "gone.jsonl")
    assert table(gone)["preprocess"] == ("stale", ["data.train_path: there is nothing at gone.jsonl"])
    assert table(gone)["train"] == ("stale", ["waits for preprocess"])
    nowhere = changed(config, "model.model_path", "./gone")
    assert table(nowhere)["train"][0] == "stale"


def evaluate(config: ExperimentConfig, **options: Any) -> None:
    identity = plan.eval_identity(config, **options)
    directory = plan.stage_directory(config, "eval", identity)
    store.run_stage(identity, directory, lambda place: (place / "items.jsonl").write_text("{}") and None)


def test_evaluations_count_once_they_exist(config):
    preprocess(config)
    train(config)
    evaluate(config, request={"samples": 4})
    assert table(config)["eval"] == ("cached", [])
    hotter = changed(config, "generation.temperature", 0.5)
    assert table(hotter)["eval"] == ("stale", ["generation.temperature: 1.0 -> 0.5"])
    assert behind(hotter) == ["train", "eval"]


def test_a_new_checkpoint_makes_the_evaluation_stale(config):
    preprocess(config)
    evaluate(config)
    checkpoint = make_model(Path(config.trainer.output_dir) / "checkpoints" / "step_000010")
    (checkpoint / "manifest.json").write_text('{"files": []}')
    status, reasons = table(config)["eval"]
    assert status == "stale"
    assert any(line.startswith("inputs.checkpoint: (absent) -> ") for line in reasons)


def test_unused_entries(config):
    preprocess(config)
    evaluate(config)
    old = plan.eval_identity(config)
    assert plan.unused(config)(old) == []
    assert plan.unused(config)(plan.preprocess_identity(config)) == []
    limited = changed(config, "data.limit", 7)
    assert plan.unused(limited)(plan.preprocess_identity(config)) == ["data.limit: null -> 7"]
    assert plan.unused(limited)(old) == []  # nobody knows yet whether the tokens change
    preprocess(limited, "fewer tokens")
    assert [line.split(":")[0] for line in plan.unused(limited)(old)] == ["inputs.preprocess"]
    hotter = changed(config, "generation.temperature", 0.5)
    assert plan.unused(hotter)(old) == ["generation.temperature: 1.0 -> 0.5"]
