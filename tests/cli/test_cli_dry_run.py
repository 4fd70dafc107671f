"""--dry-run and --explain of every stage command: they say what there is, and write nothing at all."""

import json
from pathlib import Path

import pytest
from stage_world import tree

from grpo_cli.app import run
from pipelines.stages import digest

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
COMMANDS = ("preprocess", "train", "eval", "sample", "inspect-rewards")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The built-in model and a few rows; preprocess is done, and nothing else."""
    place = tmp_path_factory.mktemp("dry")
    rows = ROWS.read_text().splitlines(keepends=True)
    (place / "rows.jsonl").write_text("".join(rows[:8]))
    (place / "more.jsonl").write_text("".join(rows[:9]))
    (place / "config.yaml").write_text("data: {train_path: rows.jsonl}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(["preprocess", "-q"]) == 0
    return place


@pytest.fixture
def grpo(project, monkeypatch, capsys):
    """The command line, which would remember every digest if it were allowed to write: (exit code, stdout)."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -3600.0)

    def call(*arguments):
        code = run(arguments)
        return code, capsys.readouterr().out

    return call


@pytest.mark.parametrize("option", ["--dry-run", "--explain"])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_written(project, grpo, command, option):
    before = tree(project)
    for extra in ((), ("--force",), ("--verify",), ("--json",), ("-s", "data.train_path=more.jsonl")):
        code, stdout = grpo(command, option, *extra)
        assert code == 0
        assert stdout
    assert tree(project) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_explain_says_what_there_is(grpo, command):
    code, stdout = grpo(command, "--explain", "--json")
    last = json.loads(stdout.splitlines()[-1])
    found = last["stages"][-1] if command == "train" else last
    assert (code, found["stage"], found["status"]) == (0, command, "cached" if command == "preprocess" else "missing")


@pytest.mark.parametrize("command", COMMANDS)
def test_explain_says_what_changed_first(grpo, command):
    code, stdout = grpo(command, "--explain", "-s", "data.max_prompt_len=63")
    assert code == 0
    assert "data.max_prompt_len: 64 -> 63" in stdout
