"""What a failed self-check leaves of a run: two lines on stderr, and everything from before."""

import json
from pathlib import Path

from grpo_cli.app import run as grpo

DATA = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
PLUGIN = """
from pipelines.rewards import RewardRegistry

@RewardRegistry.register_function("from_the_third_on")
def from_the_third_on(context):
    if context.step < 3:
        return 1.0
    return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97
"""


def test_a_run_that_fails_keeps_what_it_had(tmp_path, monkeypatch, capsys):
    """Two updates without a spread, saved; the third is the first that counts, and its steps are too small."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(DATA.read_text().splitlines(keepends=True)[:40]))
    Path("plugin.py").write_text(PLUGIN)
    settings = {
        "trainer": {"num_training_steps": 4, "ppo_batch_size": 4, "learning_rate": 1e-9, "output_dir": "run"},
        "data": {"train_path": "rows.jsonl", "max_gen_len": 24},
        "rewards": [{"name": "from_the_third_on"}],
        "plugins": ["plugin.py"],
        "checkpointing": {"save_every": 1},
        "monitoring": {"log_samples_every": 1},
    }
    Path("config.yaml").write_text(json.dumps(settings))
    assert grpo(["train"]) == 1
    told = capsys.readouterr()
    *_, error, hint = told.err.splitlines()
    assert error.startswith("error: self-check: model.")
    assert error.endswith("received a gradient and did not move at learning rate 1e-09")
    assert hint == "hint: rounding swallows the step: raise trainer.learning_rate, and begin again with --fresh"
    assert (told.out, "Traceback" in told.err) == ("", False)
    steps = sorted(path.name for path in Path("run/checkpoints").glob("step_*"))
    assert steps == ["step_000001", "step_000002"]
    lines = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2]
    samples = {json.loads(line)["step"] for line in Path("run/samples.jsonl").read_text().splitlines()}
    assert samples == {1, 2, 3}  # what the failing update learnt from is there to look at
    assert grpo(["train", "-s", "trainer.learning_rate=1e-3", "--fresh", "--quiet"]) == 0
    assert Path("run.old-1/samples.jsonl").is_file()
