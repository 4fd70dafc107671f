"""A quantised base under adapters: loaded in memory, the same for training and scoring, refused where it cannot be."""

import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models import granite, seed_oss

from pipelines.bundled import bundled
from pipelines.config import ExperimentConfig, ModelConfig
from pipelines.errors import ModelError
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.models.leaves import leaves
from pipelines.models.load import floating_dtype, load
from pipelines.models.lora import adapters_off, apply_lora
from pipelines.models.quantise import quantise_base
from pipelines.models.save import load_weights, save_adapter, save_weights

TOKENS = mx.array([[4, 11, 80, 16, 11, 89, 91]])


def logits(model):
    model.eval()
    return np.array(model(TOKENS))


def test_eight_bits_say_nearly_the_same_and_two_do_not():
    exact = logits(load("builtin:tiny").model)
    spread = exact.std()
    errors = {bits: np.abs(logits(load("builtin:tiny", bits=bits).model) - exact).mean() / spread for bits in (8, 4, 2)}
    assert errors[8] < 0.02 < errors[2]
    assert errors[8] < errors[4] < errors[2]


def test_matrices_are_packed_in_groups_that_divide_them():
    loaded = load("builtin:tiny", bits=4)
    quantised = [module for module in loaded.model.modules() if isinstance(module, nn.QuantizedLinear)]
    assert len(quantised) == 3 * 7
    assert {module.group_size for module in quantised} == {32}  # 96 is no multiple of 64
    assert loaded.config["quantization"]["bits"] == 4


def test_layers_that_an_architecture_wants_in_other_groups():
    """Granite's want 8 bits in groups of 64; 96 is no multiple of those."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 32, "rope_theta": 1e4, "max_position_embeddings": 64}
    scales = dict.fromkeys(
        ("logits_scaling", "attention_multiplier", "embedding_multiplier", "residual_multiplier"), 1.0
    )
    plain = {"rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False}
    model = granite.Model(granite.ModelArgs.from_dict({"model_type": "granite"} | sizes | scales | plain))
    described = quantise_base(model, {}, 4)["quantization"]
    assert (model.layers[0].mlp.down_proj.bits, model.layers[0].mlp.down_proj.group_size) == (8, 32)
    assert described["model.layers.0.mlp.down_proj"] == {"bits": 8, "group_size": 32}
    assert described["model.layers.0.self_attn.o_proj"] == {"bits": 8, "group_size": 64}


def test_a_model_that_reads_its_weights_itself():
    """seed_oss multiplies with those of a tied embedding."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 32, "head_dim": 32, "rms_norm_eps": 1e-5}
    model = seed_oss.Model(seed_oss.ModelArgs.from_dict({"model_type": "seed_oss"} | sizes))
    with pytest.raises(ModelError, match="cannot be quantised: it reads weights itself"):
        quantise_base(model, {}, 4)


def test_scoring_has_the_base_that_training_had(tmp_path):
    config = ExperimentConfig(model=ModelConfig(use_lora=True, quantize_bits=4))
    trained = load("builtin:tiny", bits=4)
    base = logits(trained.model)
    np.testing.assert_array_equal(logits(STARTING_MODEL.load(config).model), base)
    apply_lora(trained.model, config.model, seed=0)
    for name, module in trained.model.named_modules():
        if name.endswith("q_proj"):
            module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(0))
    with adapters_off(trained.model):
        np.testing.assert_allclose(logits(trained.model), base, atol=1e-5)
    save_adapter(tmp_path, trained.model, config.model, "builtin:tiny")
    found = Target("checkpoint", tmp_path).load(config).model
    np.testing.assert_allclose(logits(found), logits(trained.model), atol=1e-5)
    assert not np.allclose(logits(found), base, atol=1e-2)
    assert all("lora" in name for name in leaves(trained.model.trainable_parameters()))


MANY = ModelConfig(use_lora=True, lora_rank=32, lora_layers=-1)
"""Adapters of more numbers than the scales and norms of a quantised base."""


def test_a_base_has_the_type_of_its_own_numbers_however_many_its_adapters_have():
    """The self-check goes by it: 16-bit weights round more than the float32 adapters on them."""
    model = load("builtin:tiny", bits=4).model
    model.set_dtype(mx.bfloat16)
    apply_lora(model, MANY, seed=0)
    assert floating_dtype(model) == mx.bfloat16


def test_a_base_is_computed_in_one_type_whatever_is_on_it(tmp_path):
    model = shutil.copytree(bundled("tiny-model"), tmp_path / "model")
    weights = load_weights(model / "model.safetensors")
    save_weights(model / "model.safetensors", {name: leaf.astype(mx.bfloat16) for name, leaf in weights.items()})
    trained = load(str(model), bits=4)
    apply_lora(trained.model, MANY, seed=0)
    save_adapter(tmp_path, trained.model, MANY, str(model))
    found = leaves(load(str(model), adapter=tmp_path, bits=4).model.parameters())
    expected = leaves(trained.model.parameters())
    assert {name: leaf.dtype for name, leaf in found.items()} == {name: leaf.dtype for name, leaf in expected.items()}


def test_what_is_quantised_already_is_refused():
    loaded = load("builtin:tiny", bits=4)
    with pytest.raises(ModelError, match=r"model\.quantize_bits: the model is quantised already"):
        quantise_base(loaded.model, loaded.config, 8)
