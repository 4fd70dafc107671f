"""Runs with several optimizer steps an update: they go on to the bit, and the schedule counts every step."""

import json
from functools import partial
from pathlib import Path

import pytest

from pipelines import preprocess, train
from pipelines.config import ExperimentConfig
from pipelines.training.loop import Loop
from pipelines.training.options import Options

DATA = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
PLUGIN = """
from pipelines.rewards import RewardRegistry

@RewardRegistry.register_function("letters_of_iterations")
def letters(context):
    return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97
"""
STEPS = 4
quiet = partial(Options, quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("iterations")
    (place / "rows.jsonl").write_text("".join(DATA.read_text().splitlines(keepends=True)[:40]))
    (place / "plugin.py").write_text(PLUGIN)
    preprocess.run(settings(place, "none"))
    return place


def settings(folder, name, **checkpointing):
    """Four updates of two steps; the schedule counts eight."""
    tree = {
        "trainer": {
            "output_dir": str(folder / name),
            "num_training_steps": STEPS,
            "num_iterations": 2,
            "ppo_batch_size": 4,
            "grpo_beta": 0.05,
            "loss": {"entropy_coef": 0.01, "top_entropy_quantile": 0.8},
            "lr_schedule_config": {"name": "linear_schedule", "arguments": [2e-3, 0.0, 8]},
        },
        "data": {"train_path": str(folder / "rows.jsonl"), "max_gen_len": 24},
        "rewards": [{"name": "letters_of_iterations"}],
        "plugins": [str(folder / "plugin.py")],
        "checkpointing": {"save_every": 1, "keep_last_n": 9} | checkpointing,
        "paths": {"stages": str(folder / "stages")},
    }
    return ExperimentConfig.model_validate(tree)


def records(config):
    """metrics.jsonl without what a clock or the memory says."""
    lines = (Path(config.trainer.output_dir) / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time", "memory")) and "per_second" not in k}
        for line in lines
    ]


def stopped(monkeypatch, config):
    """A run whose time was up after two updates."""
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= 2)
        assert train.run(config, options=quiet()).status == "partial"
    return config


def test_a_stopped_run_goes_on_to_the_bit_and_the_schedule_counts_every_step(folder, monkeypatch):
    whole = settings(folder, "whole")
    train.run(whole, options=quiet())
    broken = stopped(monkeypatch, settings(folder, "broken"))
    train.run(broken, options=quiet())
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        first, second = (Path(c.trainer.output_dir, "checkpoints", "step_000004", name) for c in (whole, broken))
        assert first.read_bytes() == second.read_bytes(), name
    assert records(whole) == records(broken)
    rates = [record["learning_rate"] for record in records(whole)]
    assert rates == pytest.approx([1.875e-3, 1.375e-3, 0.875e-3, 0.375e-3], rel=1e-4)
    state = json.loads(Path(whole.trainer.output_dir, "checkpoints", "step_000004", "state.json").read_text())
    assert state["state"]["optimizer_steps"] == 2 * STEPS
    assert any(record["clip_ratio/region_mean"] > 0 for record in records(whole))
    assert max(record["mismatch_kl"] for record in records(whole)) < 1e-5  # before the first step of each


def test_without_optimizer_state_the_schedule_goes_on_where_it_was(folder, monkeypatch):
    config = stopped(monkeypatch, settings(folder, "stateless", save_optimizer_state=False))
    train.run(config, options=quiet())
    rates = [record["learning_rate"] for record in records(config)]
    assert rates == pytest.approx([1.875e-3, 1.375e-3, 0.875e-3, 0.375e-3], rel=1e-4)
