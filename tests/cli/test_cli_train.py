"""`grpo train` as people call it: what it shows first, what goes to which stream, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
CONFIG = """\
trainer:
  num_training_steps: 2
  ppo_batch_size: 4
  num_rollout_samples: 4
data:
  train_path: rows.jsonl
  max_gen_len: 24
"""
HEAVY = ("mlx.core", "mlx_lm", "numpy", "transformers", "sklearn", "datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli_train")
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:40]))
    (place / "config.yaml").write_text(CONFIG)
    return place


def grpo(folder, *words, after=""):
    """The command in a process of its own; `after` is Python that runs when it has ended."""
    script = f"import sys\nfrom grpo_cli.app import run\ncode = run(sys.argv[1:])\n{after}\nsys.exit(code)"
    command = [sys.executable, "-c", script, "train", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def trained(folder):
    """The first run of all, with every word it said."""
    dry = grpo(folder, "--dry-run", "-s", "trainer.grpo_beta=0.0")
    assert not (folder / "outputs").exists()
    return dry, grpo(folder)


def test_a_dry_run_shows_every_value_with_its_origin_and_does_nothing(trained):
    dry, _ = trained
    assert dry.returncode == 0, dry.stderr
    lines = dry.stdout.splitlines()
    assert "trainer.num_training_steps = 2  (config.yaml:2)" in lines
    assert "trainer.grpo_beta = 0.0  (--set)" in lines
    assert "trainer.grad_clip_norm = 1.0  (default)" in lines
    assert any(line.startswith("preprocess  missing") for line in lines)
    assert [line for line in lines if line.startswith("train  ")] == ["train  missing  outputs/run"]
    assert "  waits for preprocess" in lines
    assert "<|user|>" in dry.stdout


def test_reasons_come_before_the_work_and_only_data_is_on_stdout(trained):
    _, first = trained
    assert first.returncode == 0, first.stderr
    said = first.stderr.splitlines()
    order = [
        "preprocess  runs in ",
        "  never ran",
        "preprocess  ran",
        "train  runs in outputs/run",
        "  never ran",
        "342,432 trainable parameters",
        "step 1/2",
        "step 2/2",
        "saved outputs/run/checkpoints/step_000002",
    ]
    position = -1
    for words in order:
        position = next(i for i, line in enumerate(said) if i > position and line.startswith(words))
    assert first.stdout.startswith("train  ran  ")
    assert "  status: finished" in first.stdout.splitlines()
    assert "step 1/2" not in first.stdout


def test_a_finished_run_is_cached_and_needs_no_mlx(folder, trained):
    report = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    again = grpo(folder, "--json", "-q", after=report)
    assert (again.returncode, again.stderr) == (0, "")
    record, heavy = again.stdout.splitlines()
    assert json.loads(record)["status"] == "cached"
    assert json.loads(record)["summary"]["step"] == 2
    assert heavy == "[]"


def test_resume_on_a_finished_run_and_with_fresh(folder, trained):
    told = grpo(folder, "--resume", "1", "-q")
    assert told.returncode == 0
    assert "warning: the run is complete, so --resume changes nothing" in told.stderr
    both = grpo(folder, "--resume", "1", "--fresh")
    assert (both.returncode, both.stdout) == (2, "")
    assert both.stderr.startswith("error: --resume goes on from a checkpoint, --fresh")


def test_other_settings_are_refused_with_the_difference(folder, trained):
    refused = grpo(folder, "-s", "trainer.grpo_beta=0.5", "-q")
    assert (refused.returncode, refused.stdout) == (1, "")
    *error, hint = refused.stderr.splitlines()
    assert error[0].startswith("error: train: outputs/run belongs to a run with other settings")
    assert "  trainer.grpo_beta: 0.0 -> 0.5" in error
    assert all(way in hint for way in ("trainer.output_dir", "--fresh", "settings back"))
    why = grpo(folder, "-s", "trainer.grpo_beta=0.5", "--explain", "--json")
    stages = json.loads(why.stdout)["stages"]
    assert [stage["status"] for stage in stages] == ["cached", "stale"]
    assert stages[1]["why"] == ["trainer.grpo_beta: 0.0 -> 0.5"]


def test_partial_then_quiet_then_damaged(folder, trained):
    """Exit 0 when time is up; the next call says where it goes on, and damage is said even when quiet."""
    here = ("-s", "trainer.output_dir=timed", "-s", "checkpointing.save_every=1", "-s", "trainer.num_training_steps=3")
    partial = grpo(folder, *here, "--max-time", "0.0001", "--json")
    assert partial.returncode == 0, partial.stderr
    record = json.loads(partial.stdout)
    assert (record["status"], record["summary"]["status"]) == ("partial", "out of time")
    step = record["summary"]["step"]
    assert 1 <= step < 3
    weights = folder / "timed" / "checkpoints" / f"step_{step:06d}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    rest = grpo(folder, *here, "-q")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.startswith("train  ran")
    assert all(line.startswith("warning: ") for line in rest.stderr.splitlines())
    assert f"step_{step:06d} is damaged and not used: model.safetensors" in rest.stderr


def test_ppo_needs_nothing_but_its_name(folder):
    result = grpo(folder, "-s", "trainer.algorithm=ppo", "-s", "trainer.output_dir=ppo", "-q")
    assert (result.returncode, result.stderr) == (0, "")
    records = [json.loads(line) for line in (folder / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert all(record["value_loss"] > 0 for record in records)
    assert (folder / "ppo" / "checkpoints" / "step_000002" / "value_head.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-s", "trainer.algorithm=grp"), "trainer.algorithm: 'grp' is not registered"),
        (("-s", "checkpointing.best_metric=eval/x/accuracy"), "checkpointing.best_metric: eval/x/accuracy"),
        (("-s", "checkpointing.best_metric=rewrd"), "best_metric: no run logs rewrd; did you mean 'reward'?"),
        (("-s", "trainer.eval_every=2", "-s", "evaluation=[{name: gsm9k}]"), "evaluation.0: there is no benchmark"),
        (("-s", "generation.temperature=0"), "generation.temperature: 0"),
        (("-s", "plugins=[nowhere.py]"), "nowhere.py"),
        (("--max-time", "-1"), "--max-time"),
    ],
)
def test_what_cannot_work_is_exit_2_before_any_work(folder, words, told):
    result = grpo(folder, "-s", "trainer.output_dir=never", *words)
    assert (result.returncode, result.stdout) == (2, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert told in error
    assert hint.startswith("hint: ")
    assert not (folder / "never").exists()
