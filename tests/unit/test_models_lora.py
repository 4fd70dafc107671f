"""LoRA: B = 0 changes nothing, the base is seen exactly with the adapters off, what was named is adapted."""

import mlx.core as mx
import numpy as np
import pytest

from pipelines.config import ModelConfig
from pipelines.errors import ModelError
from pipelines.models.leaves import leaves
from pipelines.models.load import load
from pipelines.models.lora import adapters_off, apply_lora, lora_modules, lora_parameters

TOKENS = mx.array([[9, 10, 11, 12, 13]])
LINEAR = 7  # a layer of a llama: q, k, v, o, gate, up, down


def adapted(seed=0, **keys):
    model = load("builtin:tiny").model
    apply_lora(model, ModelConfig(use_lora=True, **keys), seed)
    return model


def logits(model):
    return np.array(model(TOKENS))


def shake(model):
    """Adapters as if they had learned."""
    for number, (_, module) in enumerate(lora_modules(model)):
        module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    return model


@pytest.fixture(scope="module")
def base():
    return logits(load("builtin:tiny").model)


def test_fresh_adapters_change_nothing(base):
    np.testing.assert_array_equal(logits(adapted()), base)


@pytest.mark.parametrize("targets", [None, ("self_attn.q_proj",), ("model.embed_tokens", "mlp.up_proj")])
def test_the_base_is_seen_exactly_with_the_adapters_off(base, targets):
    model = shake(adapted(lora_target_modules=targets))
    changed, modules = logits(model), [id(module) for _, module in lora_modules(model)]
    assert not np.allclose(changed, base, atol=1e-3)
    with adapters_off(model) as inside:
        assert inside is model
        assert lora_modules(model) == []
        np.testing.assert_array_equal(logits(model), base)
    np.testing.assert_array_equal(logits(model), changed)
    assert [id(module) for _, module in lora_modules(model)] == modules


def test_adapters_are_back_when_something_fails(base):
    model = shake(adapted(lora_layers=1))
    changed, trainable = logits(model), sorted(leaves(model.trainable_parameters()))
    with pytest.raises(RuntimeError, match="halfway"), adapters_off(model):
        raise RuntimeError("halfway")
    np.testing.assert_array_equal(logits(model), changed)
    assert sorted(leaves(model.trainable_parameters())) == trainable


def test_only_adapters_are_trainable():
    model = adapted()
    assert len(lora_modules(model)) == 3 * LINEAR
    names = leaves(model.trainable_parameters())
    assert len(names) == 2 * 3 * LINEAR
    assert all(name.endswith(("lora_a", "lora_b")) for name in names)


@pytest.mark.parametrize(("number", "expected"), [(-1, {0, 1, 2}), (1, {2}), (2, {1, 2}), (99, {0, 1, 2})])
def test_lora_layers_counts_from_the_last(number, expected):
    modules = lora_modules(adapted(lora_layers=number))
    assert {int(name.split(".")[2]) for name, _ in modules} == expected
    assert len(modules) == LINEAR * len(expected)


def test_target_modules_are_those_named():
    names = {name for name, _ in lora_modules(adapted(lora_target_modules=("self_attn.q_proj", "mlp.down_proj")))}
    assert names == {f"model.layers.{n}.{name}" for n in range(3) for name in ("self_attn.q_proj", "mlp.down_proj")}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("q_proj",), "has no q_proj"),
        (("self_attn.q_proj", "mlp.typo"), "has no mlp.typo"),
        (("self_attn",), "Attention"),
        (("input_layernorm",), "RMSNorm"),
    ],
)
def test_names_that_are_no_linear_layer_are_refused(names, said):
    with pytest.raises(ModelError, match=f"model.lora_target_modules: .*{said}") as caught:
        adapted(lora_target_modules=names)
    assert "self_attn.q_proj" in caught.value.hint


def test_the_scale_is_alpha_over_rank():
    config = ModelConfig(use_lora=True, lora_rank=4, lora_alpha=6, lora_dropout=0.25, lora_target_modules=("a.b",))
    assert lora_parameters(config) == {"rank": 4, "scale": 1.5, "dropout": 0.25, "keys": ["a.b"]}
    assert "keys" not in lora_parameters(ModelConfig())
    _, module = lora_modules(adapted(lora_rank=4, lora_alpha=6, lora_target_modules=("self_attn.q_proj",)))[0]
    assert module.scale == 1.5
    module.lora_b = mx.random.normal(module.lora_b.shape)
    x = mx.random.normal((2, 96))
    expected = module.linear(x) + 1.5 * (x @ module.lora_a @ module.lora_b)
    np.testing.assert_allclose(np.array(module(x)), np.array(expected), rtol=1e-4, atol=1e-4)


def test_the_seed_decides_and_nothing_else():
    def first(seed):
        mx.random.seed(int.from_bytes(np.random.default_rng().bytes(2), "little"))
        return {name: np.array(leaf) for name, leaf in leaves(adapted(seed).trainable_parameters()).items()}

    one, same, other = first(3), first(3), first(4)
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert name.endswith("lora_b") or not np.array_equal(one[name], other[name])
    drawn = [one[name].tobytes() for name in one if name.endswith("lora_a")]
    assert len(set(drawn)) == len(drawn), "no two modules share their numbers"


def test_a_is_drawn_within_one_over_the_root_of_its_inputs():
    for name, module in lora_modules(adapted(lora_rank=16)):
        inputs = module.linear.weight.shape[1]
        largest = float(mx.abs(module.lora_a).max())
        assert 0.9 * inputs**-0.5 < largest <= inputs**-0.5, name
        assert not mx.any(module.lora_b).item()


def test_adapters_of_experts_are_drawn_by_their_inputs_too():
    from mlx_lm.models import olmoe

    arguments = olmoe.ModelArgs(
        model_type="olmoe",
        hidden_size=64,
        num_hidden_layers=1,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=20,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=False,
    )
    model = olmoe.Model(arguments)
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_target_modules=("mlp.switch_mlp.up_proj",)), seed=0)
    ((_, module),) = lora_modules(model)
    assert module.lora_a.shape == (4, 2, 64)
    assert 0.9 * 64**-0.5 < float(mx.abs(module.lora_a).max()) <= 64**-0.5
