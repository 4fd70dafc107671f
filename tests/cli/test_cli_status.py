"""`grpo status` and `grpo gc`: tables on stdout, exit codes, JSON lines, what --yes removes and what it never does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stage_world import ask, finish, make_model, make_rows, tree

from grpo_cli.app import run
from pipelines import plan
from pipelines.config.loader import load
from pipelines.stages import gc, store
from pipelines.stages.identity import read_sealed, write_sealed


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with a configuration, rows and something that looks like a model from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as status sets it for itself
    make_model(tmp_path / "model")
    make_rows(tmp_path / "rows.jsonl")
    (tmp_path / "config.yaml").write_text("model: {model_path: ./model}\ndata: {train_path: rows.jsonl}\n")
    return tmp_path


@pytest.fixture
def grpo(project, capsys):
    """The command line: (exit code, stdout, stderr)."""

    def call(*arguments):
        code = run(arguments)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def states(grpo):
    """Stages by name, as --json tells them."""

    def call(*arguments):
        return {
            state["stage"]: state for state in map(json.loads, grpo("status", "--json", *arguments)[1].splitlines())
        }

    return call


def finish_pipeline(*overrides, tokens="tokens"):
    """Complete preprocess and train without their work."""
    config = load(None, overrides).config
    for identify in (plan.preprocess_identity, plan.train_identity):
        finish(config, identify(config), tokens)


def test_before_anything(project, grpo):
    code, stdout, stderr = grpo("status")
    assert (code, stderr) == (0, "")
    lines = [line.split() for line in stdout.splitlines()]
    assert lines[0] == ["stage", "state", "directory", "why"]
    assert [line[:2] for line in lines[1:3]] == [["preprocess", "missing"], ["train", "missing"]]
    assert "waits for preprocess" in stdout
    assert sorted(path.name for path in project.iterdir()) == ["config.yaml", "model", "rows.jsonl"]


def test_check_finds_what_is_behind(grpo):
    code, _, stderr = grpo("status", "--check")
    assert (code, stderr) == (3, "not up to date: preprocess, train\n")
    finish_pipeline()
    assert grpo("status", "--check")[0] == 0
    assert grpo("status", "--check", "--set", "trainer.grpo_beta=0.04")[0] == 3


def test_check_is_silent_about_what_nobody_asked_for(grpo, states):
    finish_pipeline()
    assert [state["status"] for state in states().values()] == ["cached", "cached", "missing", "missing", "missing"]
    assert grpo("status", "--check")[0] == 0


def test_check_asks_the_same_again(grpo):
    """An evaluation of the starting model is as good as ever after another checkpoint; one of the newest is not."""
    finish_pipeline()
    config = load().config
    ask(config, "eval", "base", benchmark="exact_match", request={"limit": 50})
    code, stdout, _ = grpo("status", "--check")
    assert code == 0
    assert "base: exact_match, limit=50" in stdout
    assert stdout.split()[:5] == ["stage", "state", "asked", "for", "directory"]
    ask(config, "eval", "last", benchmark="exact_match")
    (Path(config.trainer.output_dir) / "checkpoints").mkdir()
    checkpoint = make_model(Path(config.trainer.output_dir) / "checkpoints" / "step_000010")
    (checkpoint / "manifest.json").write_text('{"files": []}')
    code, stdout, stderr = grpo("status", "--check", "--json")
    found = {state["asked"]: state["status"] for state in map(json.loads, stdout.splitlines()) if state["asked"]}
    assert found == {"base: exact_match, limit=50": "cached", "last: exact_match": "stale"}
    assert (code, stderr) == (3, "not up to date: eval\n")


def test_reasons_are_the_same_lines_everywhere(grpo, states):
    finish_pipeline()
    overrides = ("--set", "trainer.grpo_beta=0.04", "--set", "trainer.seed=7")
    lines = ["trainer.grpo_beta: 0.0 -> 0.04", "trainer.seed: 0 -> 7"]
    assert states(*overrides)["train"]["reasons"] == lines
    shown = grpo("status", *overrides)[1]
    assert all(line in shown for line in lines)


def test_a_note_on_the_code_that_made_a_stage(grpo, states):
    finish_pipeline()
    path = Path(states()["preprocess"]["directory"]) / "manifest.json"
    write_sealed(path, read_sealed(path) | {"code": "0" * 64})
    assert states()["preprocess"] | {"directory": ""} == {
        "stage": "preprocess",
        "directory": "",
        "status": "cached",
        "reasons": [],
        "asked": "",
        "note": "made with other code of grpo",
    }
    assert "note: made with other code of grpo" in grpo("status", "--check")[1]
    assert grpo("status", "--check")[0] == 0
    assert "note: made with other code of grpo" in grpo("preprocess", "--explain")[1]


def test_verify_finds_a_flipped_byte(grpo, states):
    finish_pipeline()
    output = Path(states()["preprocess"]["directory"]) / "output"
    output.write_text("tOkens")
    assert states()["preprocess"]["status"] == "cached"
    assert states("--verify")["preprocess"]["status"] == "damaged"
    assert grpo("status", "--check", "--verify")[0] == 3


SCRIPT = """
import sys
from grpo_cli.app import run
code = run(sys.argv[1:])
heavy = ("mlx", "mlx_lm", "numpy", "datasets", "sklearn", "transformers")
sys.stderr.write(f"{code} {[name for name in heavy if name in sys.modules]}")
"""


def process(*arguments):
    """The command in a process of its own, which ends with its exit code and the heavy modules it imported."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_imports_nothing_heavy(project):
    finish_pipeline()
    assert process("status", "--check").stderr == "0 []"


def test_status_asks_no_network(project):
    """A hub id that is not in the local cache is a reason, at once, not a download."""
    done = process("status", "--json", "--set", "model.model_path=nobody/nothing")
    [reason] = json.loads(done.stdout.splitlines()[0])["reasons"]
    assert "nobody/nothing" in reason


def test_gc_lists_then_frees(project, grpo, states):
    finish_pipeline()
    finish_pipeline("data.limit=7", "trainer.output_dir=./other", tokens="fewer")
    kept, freed = (Path(states(*extra)["preprocess"]["directory"]) for extra in ((), ("--set", "data.limit=7")))
    code, stdout, stderr = grpo("gc")
    assert code == 0
    assert str(freed) in stdout
    assert "data.limit: 7 -> null" in stdout
    assert str(kept) not in stdout
    assert "--yes" in stderr
    assert freed.exists()
    [record] = map(json.loads, grpo("gc", "--yes", "--json")[1].splitlines())
    assert (record["kind"], record["path"], record["freed"]) == ("entry", str(freed), True)
    assert record["size_bytes"] > 0
    assert not freed.exists()
    assert states()["preprocess"]["status"] == "cached"
    assert grpo("gc")[2] == grpo("gc", "--yes")[2] == "nothing to free\n"
    assert (project / "other" / "output").exists()


def test_gc_tells_of_earlier_runs_and_keeps_them(project, grpo):
    finish_pipeline()
    config = load().config
    identity = plan.train_identity(config)
    store.run_stage(identity, Path(config.trainer.output_dir), lambda _: None, fresh=True)
    earlier = project / "outputs" / "run.old-1"
    day_ago = time.time() - 86400
    os.utime(earlier, (day_ago, day_ago))
    for arguments in (("gc",), ("gc", "--yes"), ("gc", "--old-runs")):
        code, stdout, stderr = grpo(*arguments)
        assert code == 0
        assert earlier.name in stdout
        assert "1 day" in stdout
        assert gc.EARLIER_RUN in stdout
        assert ("1 earlier run: kept" in stderr) == ("--old-runs" not in arguments)
        assert (earlier / "output").exists()
    assert "freed" in grpo("gc", "--old-runs", "--yes")[2]
    assert not earlier.exists()
    assert (project / "outputs" / "run" / "manifest.json").exists()


def test_gc_frees_what_it_can_while_the_data_is_away(project, grpo):
    """Without the rows nobody can tell which arrays are in use: those stay, and what is half done can go."""
    finish_pipeline()
    half = project / ".grpo" / "stages" / "preprocess" / "0123456789ab"
    half.mkdir()
    (project / "rows.jsonl").rename(project / "away.jsonl")
    [record] = map(json.loads, grpo("gc", "--json")[1].splitlines())
    assert record["path"].endswith(half.name)
    assert record["reasons"] == [gc.UNFINISHED]


def test_looking_writes_nothing(project, grpo):
    finish_pipeline()
    before = tree(project)
    for arguments in (("status",), ("status", "--verify", "--check"), ("gc",), ("gc", "--old-runs", "--json")):
        grpo(*arguments)
    assert tree(project) == before


# Another run in the same place, and the three ways out.


@pytest.fixture
def trained(grpo, monkeypatch):
    """A run that is complete; training is one file."""
    monkeypatch.setattr("pipelines.train._work", lambda config, place, _: (place / "output").write_text("run") and {})
    finish_pipeline()
    code, stdout, stderr = grpo("train", "-q", "-s", "trainer.grpo_beta=0.04")
    *error, hint = stderr.splitlines()
    assert (code, stdout) == (1, "")
    assert error == [
        "error: train: outputs/run belongs to a run with other settings or inputs:",
        "  trainer.grpo_beta: 0.0 -> 0.04",
    ]
    assert hint.startswith("hint: give another directory (--set trainer.output_dir=DIR), or keep the old run as")
    return ("train", "-q", "-s", "trainer.grpo_beta=0.04")


def test_force_does_not_overwrite_another_run(project, grpo, trained):
    before = tree(project / "outputs" / "run")
    assert grpo(*trained, "--force")[0] == 1
    assert tree(project / "outputs" / "run") == before


def test_first_way_out_another_directory(project, grpo, trained):
    before = tree(project / "outputs" / "run")
    code, stdout, _ = grpo(*trained, "-s", "trainer.output_dir=outputs/other")
    assert (code, stdout.split()[:2]) == (0, ["train", "ran"])
    assert tree(project / "outputs" / "run") == before


def test_second_way_out_fresh(project, grpo, trained):
    code, stdout, stderr = grpo(*trained, "--fresh")
    assert (code, stdout.split()[:2]) == (0, ["train", "ran"])
    assert "the earlier run is kept in" in stderr
    assert (project / "outputs" / "run.old-1" / "output").read_text() == "tokens"


def test_third_way_out_the_settings_as_they_were(grpo, trained):
    code, stdout, _ = grpo("train", "-q")
    assert (code, stdout.split()[:2]) == (0, ["train", "cached"])
