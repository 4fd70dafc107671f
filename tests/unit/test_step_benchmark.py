"""The benchmark of a whole step: no peer is passed over in silence, and its reward is the product's own."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

from pipelines.rewards import RewardContext
from pipelines.rewards.quality import RepetitionPenalty

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(path):
    """A script as a module."""
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


step = load(BENCHMARKS / "step.py")
measure = load(BENCHMARKS / "peers" / "measure.py")


def rows_of_table(**asked):
    """The name and the rest of each line under the headings."""
    told = {"python": [], "side": [], "blas": [], "trl_rows": None, "full": False, "clock": "CPU", **asked}
    return dict(line.split(maxsplit=1) for line in list(step.table(SimpleNamespace(**told), None))[2:])


def test_a_peer_that_is_not_there_is_listed(monkeypatch):
    monkeypatch.setattr(step, "installed", lambda python, package: False)
    assert rows_of_table() == dict.fromkeys(step.SIDES, "not installed")


def test_a_peer_that_knows_adapters_only_is_listed_where_all_weights_are_trained(monkeypatch):
    monkeypatch.setattr(step, "installed", lambda python, package: False)
    adapters_only = dict.fromkeys(("mlx-lm-lora", "textpolicy"), "not asked for all weights")
    assert rows_of_table(full=True) == dict.fromkeys(step.SIDES, "not installed") | adapters_only


def test_trl_has_a_line_for_each_number_of_rows():
    asked = SimpleNamespace(trl_rows=[2, 8], blas=[])
    ways = {name: step.ways(side, asked, None) for name, side in step.SIDES.items()}
    assert ways["trl"] == {", 2 rows": {"trl_rows": 2}, ", 8 rows": {"trl_rows": 8}}
    assert ways["grpo"] == step.ways(step.SIDES["trl"], SimpleNamespace(trl_rows=None), None) == {"": {}}


def test_trl_generates_a_step_at_once_and_accumulates_its_passes(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the script sets it for itself
    monkeypatch.setitem(sys.modules, "measure", measure)
    task = {"model": "", "prompts": 4, "group": 4, "tokens": 8, "rank": 8, "steps": 1, "seed": 0, "dtype": "bfloat16"}
    settings = load(BENCHMARKS / "peers" / "run_trl.py").settings
    passes = [settings(measure.Task(**task, full=False, folder="", trl_rows=rows), gpu=False) for rows in (None, 2)]
    named = ("per_device_train_batch_size", "gradient_accumulation_steps")
    assert [tuple(told[name] for name in named) for told in passes] == [(16, 1), (2, 8)]
    assert not any({"steps_per_generation", "generation_batch_size"} & told.keys() for told in passes)


def found(tokens):
    """What a side handed back: one step to warm up, and one that counts."""
    part = {"rollout": [2.0, 1.0], "update": [4.0, 3.0], "tokens": tokens}
    told = {"version": "1", "steps": [{}, part], "resident": 1, "device": None, "prompt_tokens": []}
    return step.summary(told, warm_up=1)


def test_a_step_is_both_its_parts_after_the_first_ones():
    assert found(40).seconds == {"rollout": (2.0, 1.0), "update": (4.0, 3.0), "step": (6.0, 4.0)}
    assert found(60).rate("CPU") == 15.0
    assert found(60).rate("wall") == 10.0


def test_a_peers_seconds_a_token_are_compared_with_ours():
    assert step.line("grpo", found(40), found(40), "CPU").split()[-1] == "1.00"
    assert step.line("peer", found(10), found(40), "wall").split()[-1] == "4.00"


@pytest.mark.parametrize("text", ["", "one two", "one One, two's two's one", "7 7 7 8"])
def test_the_reward_is_that_of_repeated_words(text):
    ours = RepetitionPenalty({"ngram_size": 1}).compute(RewardContext(generated_text=text))
    assert measure.reward(text) == pytest.approx(ours["reward"])


def test_random_weights_have_the_shape_of_the_config_and_the_files_beside_it(tmp_path):
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    named = {"model_type": "llama", "vocab_size": 96, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    source, made = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(named | shape))
    (source / "tokenizer.json").write_text("{}")
    (source / "old.safetensors").write_text("not these")
    load(BENCHMARKS / "random_model.py").write(source, made)
    model, _ = load_model(made)
    embeddings = model.model.embed_tokens.weight
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (embeddings.shape, embeddings.dtype) == ((96, 8), mx.bfloat16)
    assert mx.std(embeddings.astype(mx.float32)).item() == pytest.approx(0.02, rel=0.1)
    assert model.model.norm.weight.tolist() == [1.0] * 8
