"""`grpo train --dry-run` and `--probe-memory`: what a run would take, said before it is begun."""

import json
from pathlib import Path

import pytest
from stage_world import tree

from grpo_cli.app import run
from pipelines.stages import locks

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
CONFIG = """\
trainer: {num_training_steps: 3, ppo_batch_size: 2, num_rollout_samples: 2}
data: {train_path: rows.jsonl, max_gen_len: 8}
"""


@pytest.fixture
def grpo(tmp_path, monkeypatch, capsys):
    """The command line in a folder of its own: (exit code, stdout)."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:8]))
    Path("config.yaml").write_text(CONFIG)

    def call(*arguments):
        code = run(arguments)
        return code, capsys.readouterr().out

    return call


def test_a_dry_run_says_what_the_run_would_take(grpo):
    code, stdout = grpo("train", "--dry-run")
    *_, memory, parts, rows, time = stdout.splitlines()
    assert code == 0
    assert memory.startswith("memory  ")
    assert " MB at the most, of " in memory
    assert "weights 1.37 MB, optimizer 2.74 MB" in parts
    assert rows.endswith("prompts of 64 tokens, completions of 8 (the configuration's limits: preprocess has not run)")
    assert time == "time  not known: no update of this run has been made; --probe-memory makes and times the longest"


def test_a_probe_measures_what_was_estimated_and_writes_nothing(grpo, tmp_path):
    assert grpo("preprocess", "-q")[0] == 0
    before = tree(tmp_path)
    code, stdout = grpo("train", "--probe-memory", "--json")
    found = json.loads(stdout)
    assert code == 0
    assert found["measured"]["peak_gb"] > found["memory"]["weights_gb"]
    assert found["time"]["left_updates"] == 3
    assert found["memory"]["rows_of"] == "the longest in the data"
    assert tree(tmp_path) == before


def test_the_time_is_that_of_the_run_so_far(grpo):
    assert grpo("train", "-q", "--max-time", "0")[0] == 0
    assert "time  not known" in grpo("train", "--dry-run")[1]
    assert grpo("train", "-q")[0] == 0
    assert "for the 0 updates to come: the median of 3 updates in outputs/run/metrics.jsonl" in grpo(
        "train", "--dry-run"
    )[1].replace("\\", "/")
    Path("outputs/run/manifest.json").unlink()
    with locks.hold(Path("outputs/run"), "train"):  # as if it were under way
        assert "the median of 3 updates" in grpo("train", "--dry-run")[1]
        assert "time  not known" in grpo("train", "--dry-run", "-s", "trainer.seed=7")[1]


def test_a_model_that_is_not_here_is_not_downloaded_for_an_estimate(grpo):
    code, stdout = grpo("train", "--dry-run", "--json", "-s", "model.model_path=nobody/nothing")
    assert code == 0
    assert "would be downloaded" in json.loads(stdout)["memory"]["unknown"]
