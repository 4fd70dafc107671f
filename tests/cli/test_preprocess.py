"""`grpo preprocess` as people call it: the account on stdout, JSON for programs, two lines and exit 2 for bad data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.models import tiny


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "model").mkdir()
    tiny.write_tokenizer(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(tiny.config()))
    rows = [{"prompt": f"{i}+1=?", "completion": str(i + 1)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.yaml").write_text(
        "model: {model_path: model}\ndata: {train_path: rows.jsonl, val_fraction: 0.3}\n"
    )
    return tmp_path


def grpo(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from grpo_cli.app import main; main()", "preprocess", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def entries(folder: Path) -> list[Path]:
    return list((folder / ".grpo" / "stages").glob("preprocess/*"))


def test_run_look_and_run_again(folder):
    dry = grpo(folder, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "<|user|>0+1=?<|end|><|assistant|>" in dry.stdout
    assert not entries(folder)

    explained = grpo(folder, "--explain", "--json")
    assert json.loads(explained.stdout)["status"] == "missing"

    ran = grpo(folder, "--output-train-path", "out/train")
    assert ran.returncode == 0, ran.stderr
    assert "rows kept of" in ran.stdout
    assert "prompts of train, in tokens" in ran.stdout
    assert "#" in ran.stdout
    assert (folder / "out" / "train_prompts_offsets.npy").is_file()

    again = grpo(folder, "--json", "-q")
    record = json.loads(again.stdout)
    assert (record["status"], again.stderr) == ("cached", "")
    assert record["summary"]["train"]["kept"] + record["summary"]["val"]["kept"] == 30

    forced = json.loads(grpo(folder, "--json", "--force").stdout)
    assert (forced["status"], forced["reasons"][0]) == ("ran", "forced")


def test_bad_data_is_two_lines_and_leaves_nothing(folder):
    with (folder / "rows.jsonl").open("a") as stream:
        stream.write('{"prompt": "a", "completion": 3}\n')
    result = grpo(folder)
    assert (result.returncode, result.stdout) == (2, "")
    *_, error, hint = result.stderr.splitlines()
    assert error == "error: rows.jsonl:31: completion is a number"
    assert hint.startswith("hint: ")
    assert not [path for path in entries(folder) if not path.name.startswith(".")]


def test_long_references_are_warned_of(folder):
    result = grpo(folder, "--set", "data.max_gen_len=2")
    assert result.returncode == 0
    assert "warning:" in result.stderr
    assert "data.max_gen_len = 2" in result.stderr
