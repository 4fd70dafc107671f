"""Gradient checkpointing: the same gradients from layers that are computed twice, in less memory."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama, qwen2

from pipelines import backend, preprocess, train
from pipelines.config import ExperimentConfig, ModelConfig
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import split_head
from pipelines.models.lora import apply_lora
from pipelines.training.options import Options


def make(layers, hidden=32):
    mx.random.seed(0)
    return llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=4 * hidden,
            num_attention_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=40,
            tie_word_embeddings=True,
        )
    )


def gradients(model, tokens, *, checkpointing, entry=None):
    stack = LayerStack(model, split_head(model), checkpointing=checkpointing)

    def loss(parameters):
        model.update(parameters)
        passed = stack.run(tokens, entry=entry, note=1)
        weights = mx.random.normal(passed.hidden.shape, key=mx.random.key(2))
        return (weights * passed.hidden).sum(), passed.entry

    own = model.trainable_parameters()
    (value, noted), found = mx.value_and_grad(loss)(own)
    model.update(own)
    mx.eval(value, found)
    return value.item(), leaves(found), noted


@pytest.mark.parametrize("adapter", [False, True])
def test_gradients_are_the_same(adapter):
    model = make(3)
    if adapter:
        apply_lora(model, ModelConfig(use_lora=True), seed=0)
        for layer in model.layers:
            layer.self_attn.q_proj.lora_b = mx.ones(layer.self_attn.q_proj.lora_b.shape)
    tokens = mx.random.randint(0, 40, (2, 9), key=mx.random.key(1))
    value, plain, entry = gradients(model, tokens, checkpointing=False)
    for begun in (None, entry):  # and of a pass that begins at layer 1
        expected = plain if begun is None else gradients(model, tokens, checkpointing=False, entry=begun)[1]
        again, found, _ = gradients(model, tokens, checkpointing=True, entry=begun)
        assert again == pytest.approx(value, rel=1e-6)
        assert found.keys() == expected.keys()
        for name, leaf in expected.items():
            np.testing.assert_allclose(found[name], leaf, atol=1e-4, err_msg=name)
    assert max(mx.abs(leaf).max().item() for leaf in plain.values()) > 1e-2
    assert not [layer for layer in model.layers if not isinstance(layer, llama.TransformerBlock)]


def test_it_takes_less_memory():
    model, tokens = make(12, 64), mx.zeros((8, 128), mx.int32)
    mx.eval(model.parameters())

    def peak_bytes(checkpointing):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        gradients(model, tokens, checkpointing=checkpointing)
        return mx.get_peak_memory() - before

    plain = peak_bytes(checkpointing=False)
    assert peak_bytes(checkpointing=True) < plain / 2


def test_a_run_with_checkpointing_and_a_quantised_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def trained(name, **trainer):
        sizes = {"output_dir": name, "num_training_steps": 2, "ppo_batch_size": 4, "learning_rate": 1e-3}
        config = ExperimentConfig.model_validate(
            {"trainer": sizes | trainer, "model": {"use_lora": True, "lora_rank": 2, "quantize_bits": 8}}
        )
        preprocess.run(config)
        assert train.run(config, options=Options(quiet=True)).summary["status"] == "finished"
        return leaves(mx.load(str(tmp_path / name / "checkpoints/step_000002/adapters.safetensors")))

    plain, checkpointed = trained("plain"), trained("checkpointed", grad_checkpoint=True)
    for name, leaf in plain.items():
        np.testing.assert_allclose(checkpointed[name], leaf, atol=1e-4, err_msg=name)


def test_a_model_that_shows_a_copy_of_its_layers(monkeypatch):
    """Qwen2's `layers` is a new list each time; the one that it goes through is its body's."""
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    mx.random.seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
    arguments = shape | {"rms_norm_eps": 1e-5, "vocab_size": 40, "num_key_value_heads": 2, "model_type": "qwen2"}
    model = qwen2.Model(qwen2.ModelArgs.from_dict(arguments))
    assert model.layers is not model.layers
    stack = LayerStack(model, split_head(model))
    assert (stack.resumable, stack.chains, stack.shares) == (True, True, True)
    assert LayerStack(model, split_head(model), tried=False).chains
