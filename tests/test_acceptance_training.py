"""The acceptance configuration trains as it stands: only paths are replaced, and its 2500 updates end after four.

On a random model of 36 layers, like the one it was written for: layers 18 to 30 learn from thinking, 24 to 32 from
answers, all but 18 to 30 from the references.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
import wandb
from mlx_lm.models.llama import Model, ModelArgs

from pipelines import preprocess, train
from pipelines.config import ExperimentConfig
from pipelines.config.loader import resolve
from pipelines.models import tiny
from pipelines.models.leaves import leaves
from pipelines.models.save import load_weights, save_weights
from pipelines.training.loop import Loop
from pipelines.training.options import Options

pytestmark = pytest.mark.slow

CONFIGURATION = Path(__file__).with_name("unit") / "acceptance.yaml"
LAYERS, UPDATES, COMPLETIONS = 36, 4, 8
THINKING, ANSWER = range(18, 31), range(24, 33)


def write_model(directory: Path, seed: int) -> None:
    """A llama as deep as the real one and very narrow, with an embedding and a head of its own."""
    directory.mkdir()
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1}
    settings = tiny.config() | narrow | {"num_hidden_layers": LAYERS, "tie_word_embeddings": False}
    (directory / "config.json").write_text(json.dumps(settings))
    tiny.write_tokenizer(directory)
    blank = sorted(leaves(Model(ModelArgs.from_dict(settings)).parameters()).items())
    keys = mx.random.split(mx.random.key(seed), len(blank))
    weights = {
        name: mx.ones(leaf.shape) if leaf.ndim == 1 else 0.05 * mx.random.normal(leaf.shape, key=key)
        for key, (name, leaf) in zip(keys, blank, strict=True)
    }
    save_weights(directory / "model.safetensors", weights)


def row(a: int, b: int) -> str:
    thinking = f"Start at {a}, count on by {b}: {a} + {b} = {a + b}. Back: {a + b} - {b} = {a}."
    completion = f"<think>{thinking}</think>The sum of {a} and {b} is {a + b}."
    return json.dumps({"prompt": f"What is the sum of {a} and {b}?", "completion": completion})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("acceptance")
    write_model(place / "model", seed=1)
    write_model(place / "reference", seed=2)
    (place / "rows.jsonl").write_text("\n".join(row(a, b) for a in (12, 23, 34, 45) for b in (11, 22, 33, 44)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(place / name))
        yield place
        wandb.teardown()


class Run(NamedTuple):
    """What a run left behind."""

    directory: Path
    config: ExperimentConfig
    warnings: list[str]
    moved: set[str]

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]

    @property
    def moved_layers(self) -> set[int]:
        return {layer for layer in range(LAYERS) if any(name in self.moved for name in names_of(layer))}


def names_of(layer: int) -> set[str]:
    """The leaves of a llama layer."""
    linear = {f"self_attn.{part}_proj" for part in "qkvo"} | {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    return {f"model.layers.{layer}.{part}.weight" for part in (*linear, "input_layernorm", "post_attention_layernorm")}


def trained(folder: Path, name: str, *changes: str, updates: int) -> Run:
    """Preprocess and train, as `grpo train` does; as if time were up after some updates."""
    directory = folder / name
    paths = {
        "trainer.output_dir": directory,
        "model.model_path": folder / "model",
        "model.ref_model_path": folder / "reference",
        "data.train_path": folder / "rows.jsonl",
        "paths.stages": folder / "stages",
    }
    loaded = resolve([CONFIGURATION], [*(f"{key}={path}" for key, path in paths.items()), *changes], {})
    preprocess.run(loaded.config)
    with pytest.MonkeyPatch.context() as patch:  # a shorter run would be a shorter schedule
        patch.setattr(Loop, "_must_stop", lambda self, _started: self.progress.step >= updates)
        train.run(loaded.config, options=Options(quiet=True))
    start = load_weights(folder / "model" / "model.safetensors")
    end = load_weights(directory / "checkpoints" / f"step_{updates:06d}" / "model.safetensors")
    assert start.keys() == end.keys()
    moved = {name for name, leaf in end.items() if (np.array(leaf) != np.array(start[name])).any()}
    return Run(directory, loaded.config, loaded.warnings, moved)


def test_it_trains_as_it_stands(folder):
    run = trained(folder, "whole", updates=UPDATES)
    (warning,) = (text for text in run.warnings if "num_rollout_samples" in text)
    assert "completions of different prompts (the 8 of one update)" in warning
    metrics, samples = run.lines("metrics.jsonl"), run.lines("samples.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, UPDATES + 1))
    for line in metrics:
        assert line["kl"] > 0
        assert line["sft_loss"] > 0
        assert line["grad_norm"] > 0
        assert line["rewards/failures"] == 0
        advantages = [sample["advantage"] for sample in samples if sample["step"] == line["step"]]
        assert len(advantages) == COMPLETIONS
        assert any(advantages)
    rates = [line["learning_rate"] for line in metrics]
    assert rates == pytest.approx([1e-6 + (1e-5 - 1e-6) * step / 250 for step in range(UPDATES)], rel=1e-5)
    assert run.moved_layers == set(range(LAYERS))
    state = json.loads((run.directory / "checkpoints" / f"step_{UPDATES:06d}" / "state.json").read_text())["state"]
    assert 0 <= state["seed"] < 2**31
    assert f"seed {state['seed']}" in (run.directory / "train.log").read_text()


def test_its_tracker_gets_the_run(folder):
    (file,) = (folder / "whole" / "wandb").glob("offline-run-*/*.wandb")
    wandb.teardown()  # only when its process has ended is the file surely whole
    sent = file.read_bytes()
    for part in (b"mlx-grpo-project", b"sft_loss", b"optimizer_beta2"):
        assert part in sent
    assert b"What is the sum of" not in sent


def test_the_policy_alone_moves_only_layers_18_to_32(folder):
    run = trained(folder, "policy", "trainer.use_sft_on_answer=false", "trainer.seed=1", updates=2)
    assert run.moved == set().union(*map(names_of, {*THINKING, *ANSWER}))
    assert "sft_loss" not in run.lines("metrics.jsonl")[0]


def test_the_references_alone_move_only_layers_outside_18_to_30(folder):
    weights = ("trainer.thinking_gradient_weight=0", "trainer.answer_gradient_weight=0")
    run = trained(folder, "references", *weights, "trainer.seed=1", updates=2)
    assert run.moved == set().union(*map(names_of, set(range(LAYERS)) - set(THINKING)))
    assert all(line["grad_norm"] > 0 for line in run.lines("metrics.jsonl"))
