"""Every template passes `grpo config check` and trains the built-in model; advanced does what it switches on."""

import json
from pathlib import Path

import pytest

from grpo_cli.app import run
from pipelines.config.templates import TEMPLATES

SMALL = ["trainer.num_training_steps=2", "trainer.ppo_batch_size=8", "data.limit=60", "trainer.output_dir=run"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_trains(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for assignment in SMALL for word in ("--set", assignment)]
    assert run(["init-config", "-q", "--template", name, *words]) == 0
    assert run(["config", "check"]) == 0
    assert run(["train", "-q"]) == 0
    updates = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    updates = [update for update in updates if "loss" in update]
    assert len(updates) == 2
    assert any(update["grad_norm"] > 0 for update in updates)
    if name == "advanced":
        assert all(update["sft_loss"] > 0 for update in updates)
        assert any(update["loss/thinking"] and update["loss/answer"] for update in updates)
        assert {f"rewards/{reward}/mean" for reward in ("exact_match", "thinking_quality")} <= updates[0].keys()
        assert any("eval/exact_match/accuracy" in line for line in Path("run/metrics.jsonl").read_text().splitlines())
