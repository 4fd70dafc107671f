"""`grpo doctor` tells what works, and fails only for what is essential."""

import json

import pytest

from grpo_cli.app import run
from pipelines import backend

ON_A_CPU = "warning" if backend.prepare().device == "cpu" else "ok"
"""The verdict on what only a CPU needs."""


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"num_hidden_layers": 4}', encoding="utf-8")
    (directory / "tokenizer.json").touch()
    (directory / "model.safetensors").touch()
    return directory


def report(capsys, *arguments: str) -> tuple[int, dict[str, list[dict]]]:
    """Exit code, and the findings by topic."""
    code = run(["doctor", "--json", *arguments])
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert captured.err == "" or code != 0
    assert data["healthy"] == (code == 0)
    topics: dict[str, list[dict]] = {}
    for finding in data["findings"]:
        topics.setdefault(finding["topic"], []).append(finding)
    return code, topics


def test_a_healthy_machine(capsys, model):
    code, topics = report(capsys, "--set", f"model.model_path={model}")
    assert code == 0
    assert topics["mlx"][0]["verdict"] == "ok"
    assert "GFLOP/s" in topics["blas"][0]["value"]
    assert topics["sandbox"][0]["value"] in ("basic", "medium", "strong")
    assert any(finding["value"].startswith("limits: ") for finding in topics["sandbox"])
    assert "4 layers" in topics["model"][0]["value"]
    assert topics["data"][0]["value"].startswith("builtin:arithmetic")


def test_text_to_paste(capsys, model):
    assert run(["doctor", "--quiet", "--set", f"model.model_path={model}"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for word in ("python", "platform", "mlx-lm", "device", "memory", "blas", "compiler", "sandbox", "model", "data"):
        assert any(word in line.split()[:2] for line in captured.out.splitlines()), word


def test_missing_data_is_broken(capsys, model):
    code, topics = report(capsys, "-s", f"model.model_path={model}", "-s", "data.train_path=nowhere.jsonl")
    assert code == 1
    assert topics["data"][0]["verdict"] == "broken"
    assert "data.train_path" in topics["data"][0]["value"]


def test_half_a_model_is_broken(capsys, model):
    (model / "model.safetensors").unlink()
    code, topics = report(capsys, "-s", f"model.model_path={model}")
    assert code == 1
    assert "weights" in topics["model"][0]["value"]


def test_a_broken_configuration_hides_nothing_else(capsys):
    code, topics = report(capsys, "--set", "trainer.learning_rat=1")
    assert code == 1
    assert topics["configuration"][0]["verdict"] == "broken"
    assert "learning_rate" in topics["configuration"][0]["hint"]
    assert "blas" in topics


def test_a_hub_model_is_not_downloaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, topics = report(capsys, "--set", "model.model_path=nobody/nothing-of-that-name")
    assert code == 0
    assert topics["model"][0]["verdict"] == "warning"
    assert "not downloaded" in topics["model"][0]["value"]


def test_a_slow_blas_is_a_warning(capsys, model, monkeypatch):
    monkeypatch.setattr(backend, "blas_gflops", lambda: 4.0)
    code, topics = report(capsys, "-s", f"model.model_path={model}")
    assert code == 0
    assert "4 GFLOP/s" in topics["blas"][0]["value"]
    assert topics["blas"][0]["verdict"] == ON_A_CPU


def test_without_a_compiler(capsys, model, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, topics = report(capsys, "-s", f"model.model_path={model}")
    assert code == 0
    assert topics["compiler"][0]["verdict"] == ON_A_CPU
