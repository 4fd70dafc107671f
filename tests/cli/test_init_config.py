"""`grpo init-config` as a user runs it."""

import json
import subprocess
import sys

import pytest

from grpo_cli.app import run
from pipelines.config.loader import resolve


@pytest.fixture
def init(tmp_path):
    def run(*arguments):
        code = "from grpo_cli.app import main; main()"
        command = [sys.executable, "-c", code, "init-config", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


def test_it_writes_a_file_once(init, tmp_path):
    done = init()
    assert (done.returncode, done.stdout) == (0, "config.yaml\n")
    assert "grpo train" in done.stderr
    text = (tmp_path / "config.yaml").read_text()
    assert resolve([tmp_path / "config.yaml"], [], {}).config.model.model_path == "builtin:tiny"

    again = init("--template", "minimal")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.splitlines() == [
        "error: config.yaml exists",
        "hint: --force overwrites it, --output names another file",
    ]
    assert (tmp_path / "config.yaml").read_text() == text

    assert init("--template", "minimal", "--force").returncode == 0
    assert (tmp_path / "config.yaml").read_text() != text


def test_what_is_set_is_written_and_told_as_json(init, tmp_path):
    done = init(
        *("--template", "advanced", "--model-path", "./m", "--data-path", "d.jsonl", "--output", "own.yaml"),
        *("--set", "trainer.seed=7", "--json", "-q"),
    )
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "file": "own.yaml",
        "template": "advanced",
        "model_path": "./m",
        "train_path": "d.jsonl",
    }
    assert done.stderr == "warning: data.train_path: there is no d.jsonl yet\n"
    assert resolve([tmp_path / "own.yaml"], [], {}).config.trainer.seed == 7


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--template", "huge"], "minimal"),
        (["--set", "trainer.sed=1"], "trainer.sed: unknown key"),
        (["--data-path", "rows.csv"], "data.loader_type and data.train_path"),
        (["--output", "nowhere/c.yaml"], "nowhere/c.yaml: No such file or directory"),
    ],
)
def test_mistakes_exit_with_two_and_write_nothing(init, tmp_path, arguments, part):
    done = init(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert part in error
    assert hint.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


def test_layers_follow_the_depth_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"num_hidden_layers": 30}')
    for model, layers in (("./model", [7, 21, 15, 29]), ("builtin:tiny", [0, 1, 1, 2]), ("some/where", [None] * 4)):
        assert run(["init-config", "-q", "--template", "advanced", "--force", "--model-path", model]) == 0
        text = (tmp_path / "config.yaml").read_text()
        trainer = resolve(["config.yaml"], [], {}).config.trainer
        regions = [f"{region}_layer_{end}" for region in ("thinking", "answer") for end in ("start", "end")]
        assert [getattr(trainer, key) for key in regions] == layers
        chosen = "  # those from a quarter to three quarters of the depth, the answer those of the upper half.\n"
        assert (chosen in text) == (layers[0] is not None)
