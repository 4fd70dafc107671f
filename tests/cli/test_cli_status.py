"""`grpo status` and `grpo gc` as processes: tables on stdout, exit codes, JSON lines, and what --yes removes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import plan
from pipelines.config.loader import load
from pipelines.stages import store


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with a configuration, rows and something that looks like a model from outside."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1", "completion": "2"}\n')
    (tmp_path / "config.yaml").write_text("model: {model_path: ./model}\ndata: {train_path: rows.jsonl}\n")
    return tmp_path


def grpo(*arguments):
    command = [sys.executable, "-c", "from grpo_cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def finish(*overrides, tokens="tokens"):
    """Complete preprocess and train without their work."""
    config = load(None, overrides).config
    for stage, identify in (("preprocess", plan.preprocess_identity), ("train", plan.train_identity)):
        identity = identify(config)
        directory = plan.stage_directory(config, stage, identity)
        store.run_stage(identity, directory, lambda place: (place / "output").write_text(tokens) and None)


def states(*arguments):
    found = [json.loads(line) for line in grpo("status", "--json", *arguments).stdout.splitlines()]
    return {state["stage"]: state for state in found}


def test_before_anything(project):
    done = grpo("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["stage", "state", "directory", "why"]
    assert [line[:2] for line in lines[1:3]] == [["preprocess", "missing"], ["train", "missing"]]
    assert "waits for preprocess" in done.stdout
    assert sorted(path.name for path in project.iterdir()) == ["config.yaml", "model", "rows.jsonl"]


def test_check_finds_what_is_behind(project):
    done = grpo("status", "--check")
    assert done.returncode == 3
    assert done.stderr == "not up to date: preprocess, train\n"
    finish()
    assert grpo("status", "--check").returncode == 0
    assert grpo("status", "--check", "--set", "trainer.grpo_beta=0.04").returncode == 3


def test_check_is_silent_about_what_nobody_asked_for(project):
    finish()
    found = states()
    assert [found[stage]["status"] for stage in plan.STAGES] == ["cached", "cached", "missing", "missing", "missing"]
    assert grpo("status", "--check").returncode == 0


def test_reasons_are_the_same_lines_everywhere(project):
    finish()
    overrides = ("--set", "trainer.grpo_beta=0.04", "--set", "trainer.seed=7")
    lines = ["trainer.grpo_beta: 0.0 -> 0.04", "trainer.seed: 0 -> 7"]
    assert states(*overrides)["train"]["reasons"] == lines
    shown = grpo("status", *overrides).stdout
    assert all(line in shown for line in lines)


def test_verify_finds_a_flipped_byte(project):
    finish()
    output = Path(states()["preprocess"]["directory"]) / "output"
    output.write_text("tOkens")
    assert states()["preprocess"]["status"] == "cached"
    assert states("--verify")["preprocess"]["status"] == "damaged"
    assert grpo("status", "--check", "--verify").returncode == 3


def test_status_asks_no_network(project):
    """A hub id that is not in the local cache is a reason, at once, not a download."""
    reasons = states("--set", "model.model_path=nobody/nothing")["preprocess"]["reasons"]
    assert len(reasons) == 1
    assert "nobody/nothing" in reasons[0]


def test_imports_nothing_heavy(project):
    finish()
    script = (
        "import sys\nfrom grpo_cli.app import run\ncode = run(['status', '--check'])\n"
        "heavy = ('mlx', 'mlx_lm', 'numpy', 'datasets', 'sklearn', 'transformers')\n"
        "sys.stderr.write(f'{code} {[name for name in heavy if name in sys.modules]}')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "0 []"


def test_gc_lists_then_frees(project):
    finish()
    finish("data.limit=7", "trainer.output_dir=./other", tokens="fewer")
    kept, freed = (Path(states(*extra)["preprocess"]["directory"]) for extra in ((), ("--set", "data.limit=7")))
    listing = grpo("gc")
    assert listing.returncode == 0
    assert str(freed) in listing.stdout
    assert "data.limit: 7 -> null" in listing.stdout
    assert str(kept) not in listing.stdout
    assert "--yes" in listing.stderr
    assert freed.exists()
    (line,) = grpo("gc", "--yes", "--json").stdout.splitlines()
    record = json.loads(line)
    assert (record["directory"], record["freed"]) == (str(freed), True)
    assert not freed.exists()
    assert states()["preprocess"]["status"] == "cached"
    assert "0 B in 0 directories" in grpo("gc").stderr
    assert (project / "other" / "output").exists()
