"""What is saved loads again, here and in mlx-lm; what cannot be loaded says why and what to do."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm import utils as mlx_lm_utils

from pipelines.config import ModelConfig
from pipelines.errors import CheckpointError, ModelError
from pipelines.models.leaves import leaves
from pipelines.models.load import floating_dtype, load, load_tokenizer
from pipelines.models.locate import model_directory
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.save import load_weights, save_adapter, save_full, save_weights
from pipelines.models.tiny import write_blank

TOKENS = mx.array([[9, 10, 11, 12, 13]])
LORA = ModelConfig(use_lora=True, lora_rank=4, lora_alpha=8, lora_layers=2, lora_target_modules=("self_attn.q_proj",))


def logits(model):
    return np.array(model(TOKENS))


def copied(tmp_path, name="model"):
    return shutil.copytree(model_directory("builtin:tiny"), tmp_path / name)


def changed(loaded):
    """The weights after some learning."""
    return {
        name: leaf + 0.01 * mx.random.normal(leaf.shape) for name, leaf in leaves(loaded.model.parameters()).items()
    }


def test_a_full_checkpoint_loads_here_and_in_mlx_lm(tmp_path):
    loaded = load("builtin:tiny")
    weights = changed(loaded)
    save_full(tmp_path, weights, loaded.directory, loaded.stored_dtype)
    loaded.model.load_weights(list(weights.items()))
    expected = logits(loaded.model)
    again, (theirs, tokenizer) = load(str(tmp_path)), mlx_lm_utils.load(str(tmp_path))
    np.testing.assert_array_equal(logits(again.model), expected)
    np.testing.assert_array_equal(logits(theirs), expected)
    assert tokenizer.encode("1+1=2") == loaded.tokenizer.encode("1+1=2")
    assert tokenizer.has_chat_template
    assert (again.eos_ids, again.num_layers, again.config) == (loaded.eos_ids, 3, loaded.config)


def test_an_adapter_loads_here_and_in_mlx_lm(tmp_path):
    loaded = load("builtin:tiny")
    apply_lora(loaded.model, LORA, seed=0)
    for _, module in lora_modules(loaded.model):
        module.lora_b = mx.random.normal(module.lora_b.shape)
    expected = logits(loaded.model)
    save_adapter(tmp_path, loaded.model, LORA, "builtin:tiny")
    written = load_weights(tmp_path / "adapters.safetensors")
    assert sorted(written) == sorted(
        f"model.layers.{n}.self_attn.q_proj.{leaf}" for n in (1, 2) for leaf in ("lora_a", "lora_b")
    )
    again = load("builtin:tiny", adapter=tmp_path)
    theirs = mlx_lm_utils.load_adapters(mlx_lm_utils.load(str(loaded.directory))[0], str(tmp_path))
    np.testing.assert_array_equal(logits(again.model), expected)
    np.testing.assert_array_equal(logits(theirs), expected)


def test_16_bit_weights_are_computed_in_float32_on_a_cpu_and_stored_as_they_were(tmp_path):
    source = copied(tmp_path)
    weights = {name: leaf.astype(mx.bfloat16) for name, leaf in load_weights(source / "model.safetensors").items()}
    mx.eval(weights)
    save_weights(source / "model.safetensors", weights)
    loaded = load(str(source))
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    assert loaded.stored_dtype == mx.bfloat16
    assert floating_dtype(loaded.model) == (mx.float32 if on_cpu else mx.bfloat16)
    target = tmp_path / "saved"
    target.mkdir()
    save_full(target, leaves(loaded.model.parameters()), source, loaded.stored_dtype)
    assert {leaf.dtype for leaf in load_weights(target / "model.safetensors").values()} == {mx.bfloat16}
    assert (target / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_bytes_do_not_depend_on_the_order_of_the_weights(tmp_path):
    weights = {name: mx.random.normal((3, 5)) for name in "cab"}
    save_weights(tmp_path / "one.safetensors", weights)
    save_weights(tmp_path / "two.safetensors", dict(reversed(weights.items())))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    for name, leaf in load_weights(tmp_path / "one.safetensors").items():
        np.testing.assert_array_equal(np.array(leaf), np.array(weights[name]))


def test_a_transposed_view_is_stored_as_it_reads(tmp_path):
    view = mx.arange(6).reshape(2, 3).T
    save_weights(tmp_path / "view.safetensors", {"view": view})
    np.testing.assert_array_equal(np.array(load_weights(tmp_path / "view.safetensors")["view"]), np.array(view))


def test_a_full_disk_is_an_error_of_the_disk(tmp_path, files_of_a_kilobyte):
    with pytest.raises(OSError, match=r"^a\.safetensors: .*[Uu]nable to write"):
        save_weights(tmp_path / "a.safetensors", {"a": mx.ones((64, 64))})


def test_every_file_a_tokenizer_may_need_is_taken_over(tmp_path):
    source, target = copied(tmp_path), tmp_path / "saved"
    target.mkdir()
    for name in ("merges.txt", "vocab.json", "added_tokens.json", "special_tokens_map.json", "generation_config.json"):
        (source / name).write_text("{}")
    (source / "optimizer.safetensors").write_text("no part of a model")
    save_full(target, {"a": mx.ones(2)}, source, mx.float32)
    left_out = {"optimizer.safetensors", "README.md"}  # the card is about the model as it was
    assert {path.name for path in target.iterdir()} == {path.name for path in source.iterdir()} - left_out


def remove(*names):
    return lambda directory: [(directory / name).unlink() for name in names]


def write(name, content):
    return lambda directory: (directory / name).write_bytes(content)


def cut(name):
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:-1000])


def set_key(key, value):
    def change(directory):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | {key: value}))

    return change


DAMAGE = {
    "no configuration": remove("config.json"),
    "no weights": remove("model.safetensors"),
    "no tokenizer": remove("tokenizer.json"),
    "configuration cut": write("config.json", b'{"model_type":'),
    "configuration a list": write("config.json", b"[]"),
    "configuration empty": write("config.json", b"{}"),
    "unknown type": set_key("model_type", "zzz"),
    "fields missing": write("config.json", b'{"model_type": "llama"}'),
    "other shape": set_key("hidden_size", 64),
    "a word for a number": set_key("hidden_size", "wide"),
    "a word where only transformers looks": set_key("initializer_range", "wide"),
    "an architecture that needs another package": set_key("model_type", "olmo"),
    "weights cut": cut("model.safetensors"),
    "weights are noise": write("model.safetensors", b"\xff" * 300),
    "weights empty": write("model.safetensors", b""),
    "tokenizer cut": write("tokenizer.json", b"{"),
    "tokenizer of another kind": write("tokenizer.json", b"{}"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_directory_that_is_no_model_is_told_with_a_hint(tmp_path, damage):
    directory = copied(tmp_path)
    damage(directory)
    with pytest.raises(ModelError, match="loaded") as caught:
        load(str(directory))
    assert str(directory) in caught.value.message
    assert "config.json" in caught.value.hint


def test_a_class_of_mlx_lm_that_cannot_be_trained(monkeypatch):
    """As recurrent_gemma's, which is not set up as a module is."""
    bare = nn.Module.__new__(nn.Module)
    bare["weight"] = mx.zeros(1)
    monkeypatch.setattr(mlx_lm_utils, "load_model", lambda _directory: (bare, {}))
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        load("builtin:tiny")


ADAPTER = b'{"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0, "dropout": 0.0}}'


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"adapter_config.json": b"{}"},
        {"adapter_config.json": ADAPTER},
        {"adapter_config.json": ADAPTER, "adapters.safetensors": b"\xff" * 99},
    ],
    ids=["empty", "no settings", "no weights", "damaged"],
)
def test_an_adapter_that_cannot_be_loaded_is_told_by_its_own_name(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="adapter cannot be loaded") as caught:
        load("builtin:tiny", adapter=tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "adapter_config.json" in caught.value.hint


def test_an_adapter_of_another_model_is_refused(tmp_path):
    loaded = load("builtin:tiny")
    apply_lora(loaded.model, LORA, seed=0)
    save_adapter(tmp_path, loaded.model, LORA, "builtin:tiny")
    weights = {name: leaf[..., :-1] for name, leaf in load_weights(tmp_path / "adapters.safetensors").items()}
    mx.eval(weights)
    save_weights(tmp_path / "adapters.safetensors", weights)
    with pytest.raises(ModelError, match="does not match"):
        load("builtin:tiny", adapter=tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 99, "cut"])
def test_damaged_weights_are_a_checkpoint_error(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content == "cut":
        save_weights(path, {"a": mx.ones((100, 100))})
        path.write_bytes(path.read_bytes()[:-1])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read") as caught:
        load_weights(path)
    assert "another checkpoint" in caught.value.hint


def test_load_tokenizer_alone_knows_every_eos_id(tmp_path):
    directory = copied(tmp_path)
    (directory / "model.safetensors").unlink()
    set_key("eos_token_id", [1, 5])(directory)
    assert set(load_tokenizer(str(directory)).eos_token_ids) == {1, 5}


def test_quantised_weights_stay_quantised(tmp_path):
    from mlx import nn

    write_blank(tmp_path)
    model = load(str(tmp_path)).model
    nn.quantize(model, group_size=32, bits=8)
    save_weights(tmp_path / "model.safetensors", leaves(model.parameters()))
    set_key("quantization", {"group_size": 32, "bits": 8})(tmp_path)
    again = load(str(tmp_path)).model
    assert again.model.layers[0].self_attn.q_proj.weight.dtype == mx.uint32
    np.testing.assert_array_equal(logits(again), logits(model))
