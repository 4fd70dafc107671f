"""From `model.model_path` to a directory; what is not found fails at once and says what may be given."""

import os
import subprocess
import sys

import pytest

from pipelines.errors import ModelError
from pipelines.models.locate import model_directory


def test_the_builtin_model_is_a_directory_with_weights():
    assert (model_directory("builtin:tiny") / "model.safetensors").is_file()


def test_a_directory_is_itself(tmp_path, monkeypatch):
    assert model_directory(str(tmp_path)) == tmp_path
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_directory("owner/name").resolve() == tmp_path / "owner" / "name"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_directory("~/owner") == tmp_path / "owner"


@pytest.mark.parametrize(
    "model_path", ["builtin:large", "builtin:a/b", "/no/such", "./no", "../no", "~/no", "no", "a/b/c"]
)
def test_what_cannot_be_a_model_is_refused_without_asking_the_hub(model_path):
    with pytest.raises(ModelError, match="no model directory at") as caught:
        model_directory(model_path)
    assert "builtin:tiny" in caught.value.hint


def test_adapters_are_no_model_and_the_hint_says_how_to_fuse_them(tmp_path):
    (tmp_path / "adapters.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text('{"model": "builtin:tiny"}')
    with pytest.raises(ModelError, match="holds adapters, not a whole model") as caught:
        model_directory(str(tmp_path))
    assert f"grpo export -s model.model_path=builtin:tiny --checkpoint {tmp_path} --output DIR" in caught.value.hint
    (tmp_path / "model.safetensors").touch()
    assert model_directory(str(tmp_path)) == tmp_path


def test_a_run_is_no_model_and_the_hint_names_its_newest_checkpoint(tmp_path):
    (tmp_path / "identity.json").touch()
    for step in ("step_000003", "step_000010"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    with pytest.raises(ModelError, match="is a run, not a model") as caught:
        model_directory(str(tmp_path))
    assert caught.value.hint.endswith("step_000010")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ModelError):
        model_directory(str(tmp_path / "model.safetensors"))


def test_a_hub_id_offline_fails_at_once(tmp_path):
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    script = (
        "from pipelines.errors import ModelError\n"
        "from pipelines.models.locate import model_directory\n"
        "try: model_directory('nobody/nothing')\n"
        "except ModelError as error: print(error.message); print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    message, hint = done.stdout.splitlines()
    assert "nobody/nothing is neither a directory nor reachable on the hub" in message
    assert "give the directory" in hint


def test_a_model_in_the_hubs_cache_needs_no_network(tmp_path):
    repository = tmp_path / "hub" / "models--nobody--cached"
    snapshot = repository / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    script = "from pipelines.models.locate import model_directory\nprint(model_directory('nobody/cached'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == str(snapshot), done.stderr
