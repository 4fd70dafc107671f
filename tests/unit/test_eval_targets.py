"""Which model `--checkpoint` means."""

import json

import pytest

from pipelines.config import CheckpointingConfig, ExperimentConfig, TrainerConfig
from pipelines.errors import CheckpointError, ModelError
from pipelines.evaluation.targets import STARTING_MODEL, newest_checkpoint, target
from pipelines.training.checkpoint_files import seal


def write(directory, *names):
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_text("")
    return directory


def sealed(directory, **recorded):
    """With a manifest that lists what is there, as a finished checkpoint has."""
    files = [{"path": path.name, "size_bytes": path.stat().st_size} for path in directory.iterdir()]
    (directory / "manifest.json").write_text(json.dumps({"files": files} | recorded))
    return directory


def full(directory):
    return write(directory, "config.json", "model.safetensors")


def adapter(directory):
    return write(directory, "adapter_config.json", "adapters.safetensors")


@pytest.fixture
def config(tmp_path):
    return ExperimentConfig(
        trainer=TrainerConfig(output_dir=str(tmp_path / "run")),
        checkpointing=CheckpointingConfig(checkpoint_dir="kept"),
    )


def test_without_a_run_it_is_the_starting_model(config):
    assert target(config) == STARTING_MODEL
    assert "builtin:tiny" in target(config).describe(config)


def test_the_newest_complete_checkpoint_by_number(config, tmp_path):
    kept = tmp_path / "run" / "kept"
    sealed(full(kept / "step_000090"))
    newest = sealed(full(kept / "step_000100"))
    full(kept / "step_000110")  # interrupted: no manifest
    sealed(write(kept / "step_000120"))  # no weights
    sealed(full(kept / "step_best"))
    assert newest_checkpoint(kept) == newest
    assert target(config).directory == newest
    assert target(config).name == "step_000100"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_checkpoint_whose_content_changed_is_not_loaded(config, tmp_path, file):
    """Its size is as it was, so that only its digest tells."""
    step = full(tmp_path / "run" / "kept" / "step_000007")
    (step / file).write_bytes(b"right")
    seal(step, 7, {}, "reward", None)
    (step / "optimizer.safetensors").write_bytes(b"it is nobody's business")
    (step / file).write_bytes(b"wrong")
    with pytest.raises(CheckpointError, match=f"step_000007 is damaged: {file}: content changed") as found:
        target(config).load(config)
    assert "grpo train --verify" in found.value.hint
    unverified = config.model_copy(update={"checkpointing": CheckpointingConfig(checkpoint_dir="kept", verify=False)})
    with pytest.raises(ModelError):  # it is no model
        target(unverified).load(unverified)


def test_a_damaged_checkpoint_is_passed_over_loudly(config, tmp_path, caplog):
    kept = tmp_path / "run" / "kept"
    intact = sealed(full(kept / "step_000001"))
    (sealed(full(kept / "step_000002")) / "model.safetensors").write_text("more")
    (sealed(full(kept / "step_000003")) / "config.json").unlink()
    (full(kept / "step_000004") / "manifest.json").write_text("{")
    assert target(config).directory == intact
    assert "step_000002 is damaged and not used: model.safetensors" in caplog.text
    assert "step_000004 is damaged and not used: manifest.json" in caplog.text


@pytest.mark.parametrize(("mode", "expected"), [("max", "step_000002"), ("min", "step_000004")])
def test_the_best_by_what_was_recorded(config, tmp_path, mode, expected):
    kept = tmp_path / "run" / "kept"
    for step, value in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.1)):
        sealed(full(kept / f"step_{step:06d}"), metric_name="reward", metric=value)
    sealed(full(kept / "step_000005"), metric_name="accuracy", metric=7.0 if mode == "max" else -7.0)
    sealed(full(kept / "step_000006"), metric_name="reward", metric=None)
    sealed(full(kept / "step_000007"))
    chosen = config.model_copy(update={"checkpointing": config.checkpointing.model_copy(update={"best_mode": mode})})
    found = target(chosen, "best")
    assert (found.name, found.directory, found.words) == (expected, kept / expected, "best")


def test_without_a_record_nothing_is_the_best(config, tmp_path):
    sealed(full(tmp_path / "run" / "kept" / "step_000001"))
    with pytest.raises(CheckpointError, match="recorded reward, so none is the best") as caught:
        target(config, "best")
    assert caught.value.hint.startswith("train first")
    sealed(full(tmp_path / "run" / "kept" / "step_000002"), metric_name="eval/sums/accuracy", metric=0.5)
    with pytest.raises(CheckpointError) as caught:
        target(config, "best")
    assert "set checkpointing.best_metric to eval/sums/accuracy" in caught.value.hint


def test_a_target_keeps_the_words_it_was_asked_in(config, tmp_path):
    """The newest may be another one tomorrow; a directory is always the same; equal models stay equal."""
    step = sealed(full(tmp_path / "run" / "kept" / "step_000001"))
    found = {words: target(config, words) for words in ("last", "base", str(step))}
    assert {words: each.words for words, each in found.items()} == {words: words for words in found}
    assert target(config).words == "last"
    assert found["last"] == found[str(step)] != found["base"]


def test_base_is_the_starting_model_whatever_was_trained(config, tmp_path):
    sealed(full(tmp_path / "run" / "kept" / "step_000100"))
    assert target(config, "base") == STARTING_MODEL


def test_a_run_or_its_checkpoints_stand_for_the_newest(config, tmp_path):
    newest = sealed(adapter(tmp_path / "other" / "kept" / "step_000007"))
    assert target(config, tmp_path / "other").directory == newest
    assert target(config, tmp_path / "other" / "kept").directory == newest


def test_a_model_or_adapter_directory_is_taken_as_it_is(config, tmp_path):
    assert not target(config, full(tmp_path / "model")).is_adapter
    found = target(config, adapter(tmp_path / "adapter"))
    assert found.is_adapter
    assert "adapters on builtin:tiny" in found.describe(config)


@pytest.mark.parametrize("name", ["missing", "empty", "half", "~nobody-here"])
def test_what_is_no_checkpoint_is_told(config, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty")
    write(tmp_path / "half", "adapters.safetensors")
    with pytest.raises(CheckpointError, match=name) as caught:
        target(config, name)
    assert "`base`" in caught.value.hint
