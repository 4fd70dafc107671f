"""The guide to adding an algorithm: its file trains, its formula is the one it states, its tables are complete."""

import inspect
import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from grpo_cli.app import run as grpo
from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm, Batch, Totals
from pipelines.config import TrainerConfig
from pipelines.models.save import load_weights
from pipelines.plugins import load_plugins

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "adding-an-algorithm.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(# raft\.py\n.*?)```", DOCUMENT, re.DOTALL)[1]
SETTINGS = yaml.safe_load(re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)[1])
ROWS = ROOT / "data" / "arithmetic" / "train.jsonl"
SMALL = {
    "trainer": {"num_training_steps": 2, "ppo_batch_size": 8, "learning_rate": 1e-3, "output_dir": "run"},
    "data": {"train_path": "rows.jsonl", "max_gen_len": 32},
    "checkpointing": {"save_every": 1},
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(AlgorithmRegistry, "_known", dict(AlgorithmRegistry._known))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The guide's file in the working directory."""
    (tmp_path / "raft.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def raft(folder):
    load_plugins(SETTINGS["plugins"])
    return AlgorithmRegistry.create(TrainerConfig(algorithm="raft"))


def trained(folder, name, **changes):
    """The guide's configuration, made small; metrics of each update."""
    settings = {**SMALL, **SETTINGS, "trainer": SMALL["trainer"] | SETTINGS["trainer"] | {"output_dir": name} | changes}
    (folder / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:40]))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert grpo(["train", "-q"]) == 0
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def test_the_file_of_the_guide_trains(folder):
    """Two updates on the built-in model; small micro-batches change nothing."""
    whole, split = trained(folder, "whole"), trained(folder, "split", micro_batch_tokens=64)
    assert [record["step"] for record in whole] == [1, 2]
    for record, other in zip(whole, split, strict=True):
        assert record["loss"] > 0  # a mean of -log p over the imitated tokens
        assert record["grad_norm"] > 0
        assert 0 < record["custom/imitated"] < 1
        for name in ("loss", "grad_norm", "custom/imitated", "reward"):
            assert other[name] == pytest.approx(record[name], rel=1e-4), name
    first, last = (load_weights(folder / f"whole/checkpoints/step_00000{n}/model.safetensors") for n in (1, 2))
    assert not any(mx.array_equal(first[name], leaf) for name, leaf in last.items())


def test_dual_gradients_and_several_steps_work_with_it(folder):
    changes = {"use_dual_gradients": True, "answer_layer_start": 1, "num_iterations": 2}
    for record in trained(folder, "dual", **changes):
        assert record["loss/thinking"] + record["loss/answer"] == pytest.approx(record["loss"], rel=1e-4)


def test_the_advantages_are_the_formula(raft):
    rewards = mx.array([[0.2], [0.9], [0.5], [0.9], [0.3], [0.3], [0.3], [0.3], [1.0], [0.0], [np.nan], [0.4]])
    found = raft.advantages(rewards, mx.ones(1), 4)
    assert found.values.tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    assert found.zero_variance.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_the_loss_is_the_formula(raft):
    rng = np.random.default_rng(0)
    logprobs, mask = -rng.random((3, 4)), np.arange(4) < np.array([[4], [2], [3]])
    advantages = np.array([1.0, 0.0, 1.0])
    expected = -(logprobs * mask * advantages[:, None]).sum() / mask.sum()
    given = np.where(mask, logprobs, np.nan).astype(np.float32)
    empty = mx.zeros((3, 4), mx.int32)
    thinking = mx.array(np.arange(4) < np.array([[1], [1], [2]]))
    batch = Batch(empty, mx.zeros(3), empty, mx.array(mask), thinking, mx.array(advantages.astype(np.float32)))
    totals = Totals(int(mask.sum()), 3, 4)

    def loss(**changes):
        return float(raft.loss(mx.array(given), mx.zeros((3, 4)), batch._replace(**changes), totals).loss)

    assert loss() == pytest.approx(expected, rel=1e-6)
    assert loss(weights=thinking) + loss(weights=~thinking) == pytest.approx(expected, rel=1e-6)


def named(heading, column=r"\| (`.+?) \|"):
    """What the first column of the first table after a text names."""
    table = DOCUMENT.partition(heading)[2].partition("\n\n|")[2].partition("\n\n")[0]
    return re.findall(r"`(\w+)`", " ".join(re.findall(rf"^{column}", table, re.MULTILINE)))


def test_the_tables_name_every_field():
    assert named("`batch`, n rows") == list(Batch._fields)
    assert named("`totals`, of the whole update") == list(Totals._fields)
    members = {name for name, _ in inspect.getmembers(BaseAlgorithm) if not name.startswith("_")} | {"config"}
    assert set(named("## What is asked of it")) == members
