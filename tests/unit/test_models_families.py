"""What some architectures of mlx-lm do otherwise than a llama: small random models of theirs."""

from importlib import import_module

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import make_prompt_cache

from pipelines.config import ModelConfig
from pipelines.errors import ModelError
from pipelines.models.idle import idle_leaves
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import split_head
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.quantise import quantise_base
from pipelines.models.save import refuse_unlike

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 40,
    "head_dim": 16,
}
SHARED_KEYS = SIZES | {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 16,
    "vocab_size_per_layer_input": 40,
    "hidden_size_per_layer_input": 8,
}
"""gemma4: the last layers take keys and values of earlier ones, handed to them as a tuple."""
POSITIONS = {"original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.1, "rope_theta": 1e4, "type": "default"}
LOG_OF_POSITIONS = SIZES | {"num_hidden_layers": 2, "rope_parameters": POSITIONS}
"""ministral3: queries are scaled by a logarithm, which is infinite before position 0, where padding is."""

CHOSEN_EXPERTS = SIZES | {
    "num_hidden_layers": 2,
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "norm_topk_prob": True,
    "use_expert_bias": True,
    "max_position_embeddings": 64,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention"],
}
"""lfm2_moe: a bias decides which experts are asked, and nothing else."""

KEYS_IN_CACHES = {
    **SIZES,
    "model_type": "gemma3n_text",
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.0] * 4,
    "vocab_size_per_layer_input": 40,
    "hidden_size_per_layer_input": 8,
    "sliding_window": 8,
    "max_position_embeddings": 64,
    "rope_local_base_freq": 1e4,
    "rope_theta": 1e4,
    "final_logit_softcapping": 30.0,
    "altup_num_inputs": 2,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "altup_active_idx": 0,
    "laurel_rank": 4,
}
"""gemma3n: the last layers find keys and values of earlier ones in the cache, and have other ones without a cache."""

TWO_KINDS = SIZES | {
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "layer_types": ["linear_attention", "full_attention"],
}
"""olmo_hybrid: asks a layer for its class to know which mask it wants."""
STATES_BY_NAME = {"n_embd": 32, "vocab_size": 40, "n_positions": 64, "n_head": 2, "rotary_dim": 8, "n_layer": 2}
"""gptj: hands its layers everything by name."""

SCALED_HEAD = SIZES | {
    "num_hidden_layers": 2,
    "rope_theta": 1e4,
    "sliding_window": 8,
    "sliding_window_layers": [1],
    "conv_window": 2,
}
"""baichuan_m1: the rows of its head are given length 1 when it is loaded."""
TOGETHER = {
    "vocab_size": 40,
    "hidden_dim": 32,
    "num_layers": 2,
    "num_kv_reuse_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
}
"""afm7: queries, keys and values are one layer, with three adapters."""


def build(architecture, arguments):
    """A small random model; what would be constant is not."""
    mx.random.seed(0)
    module = import_module(f"mlx_lm.models.{architecture}")
    model = module.Model(module.ModelArgs.from_dict({"model_type": architecture} | arguments))
    random = [(name, leaf + 0.1 * mx.random.normal(leaf.shape)) for name, leaf in leaves(model.parameters()).items()]
    model.update(tree_unflatten(random))
    model.eval()
    return model


def gradients(stack, tokens):
    """Of a weighed sum of the last hidden states."""
    model, own = stack.model, stack.model.trainable_parameters()

    def loss(parameters):
        model.update(parameters)
        hidden = stack.run(tokens).hidden
        return (hidden * mx.random.normal(hidden.shape, key=mx.random.key(1))).sum()

    found = mx.grad(loss)(own)
    model.update(own)
    return leaves(found)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [("gemma4_text", SHARED_KEYS), ("olmo_hybrid", TWO_KINDS), ("gptj", STATES_BY_NAME)],
    ids=["keys handed on", "two kinds of layers", "states by name"],
)
def test_checkpointed_layers(architecture, arguments):
    model, tokens = build(architecture, arguments), mx.array([[3, 1, 4, 1, 5, 9]])
    plain, again = (
        gradients(LayerStack(model, split_head(model), checkpointing=checkpointing), tokens)
        for checkpointing in (False, True)
    )
    for name, leaf in plain.items():
        np.testing.assert_allclose(again[name], leaf, atol=1e-4, err_msg=name)


def test_a_pass_reads_a_row_as_decoding_does():
    model, tokens = build("gemma3n", {"text_config": KEYS_IN_CACHES}), mx.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
    cache, split = make_prompt_cache(model), split_head(model)
    decoded = mx.concatenate([model(tokens[:, [n]], cache=cache) for n in range(10)], axis=1)
    np.testing.assert_allclose(split.head(split.body(tokens)), decoded, atol=1e-4)
    plain, again = (
        gradients(LayerStack(model, split, checkpointing=checkpointing), tokens) for checkpointing in (False, True)
    )
    for name, leaf in plain.items():
        np.testing.assert_allclose(again[name], leaf, atol=1e-4, err_msg=name)
    assert "model.language_model.layers.3.self_attn.k_proj.weight" in idle_leaves(model, split)


def test_prompts_are_not_shared_where_padding_gives_no_number():
    model = build("ministral3", LOG_OF_POSITIONS)
    assert not LayerStack(model, split_head(model)).shares


def test_a_bias_that_only_chooses_experts_is_not_trained():
    model = build("lfm2_moe", CHOSEN_EXPERTS)
    assert idle_leaves(model, split_head(model)) == {"model.layers.1.feed_forward.expert_bias"}
    stack = LayerStack(model, split_head(model))
    assert leaves(model.trainable_parameters()).keys() - stack.trainable().keys() == stack.idle


def test_adapters_of_what_is_not_used_are_not_trained():
    """With B at 0 no A has a gradient; that of others comes."""
    model = build("gemma4_text", SHARED_KEYS)
    model.layers[1].spare = nn.Linear(4, 4, bias=False)
    apply_lora(model, ModelConfig(use_lora=True), 0)
    assert idle_leaves(model, split_head(model)) == {"model.layers.1.spare.lora_a", "model.layers.1.spare.lora_b"}


def test_packed_numbers_are_not_trained():
    model = build("gemma4_text", SHARED_KEYS)
    model.layers[0].packed = mx.zeros(3, mx.uint8)
    assert idle_leaves(model, split_head(model)) == {"model.layers.0.packed"}


def test_adapters_on_weights_that_the_model_reads_itself_are_refused():
    with pytest.raises(ModelError, match=r"cannot sit on altup\.correction_coefs, altup\.prediction_coefs:") as caught:
        apply_lora(build("gemma3n", {"text_config": KEYS_IN_CACHES}), ModelConfig(use_lora=True), 0)
    named = tuple(caught.value.hint.partition("[")[2].rstrip("]").split(", "))
    model = build("gemma3n", {"text_config": KEYS_IN_CACHES})
    apply_lora(model, ModelConfig(use_lora=True, lora_target_modules=named), 0)
    assert "self_attn.q_proj" in named
    assert len(lora_modules(model)) == 4 * len(named)


def test_a_model_that_would_not_load_as_it_was_trained_is_refused():
    refuse_unlike(build("gemma4_text", SHARED_KEYS))
    with pytest.raises(ModelError, match=r"mlx-lm changes lm_head\.weight") as caught:
        refuse_unlike(build("baichuan_m1", SCALED_HEAD))
    assert "model.use_lora" in caught.value.hint


def test_layers_of_an_architectures_own_are_refused_with_a_hint():
    with pytest.raises(ModelError, match="no pair of matrices") as caught:
        apply_lora(build("afm7", TOGETHER), ModelConfig(use_lora=True), 0)
    assert "model.lora_target_modules" in caught.value.hint
    with pytest.raises(ModelError, match="cannot quantise"):
        quantise_base(build("afm7", TOGETHER), {}, 4)


SEES = {
    "text_config": SIZES
    | {"num_hidden_layers": 2, "model_type": "qwen3", "max_position_embeddings": 64, "rope_theta": 1e4}
}
STATES = SIZES | {
    "num_hidden_layers": 2,
    "num_heads": 4,
    "state_size": 8,
    "conv_kernel": 4,
    "n_groups": 1,
    "use_bias": False,
    "use_conv_bias": True,
    "layer_norm_epsilon": 1e-5,
    "time_step_limit": [0.0, 1e9],
    "time_step_rank": "auto",
}
POSITIONS_LEARNT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_ctx": 64, "n_positions": 64, "vocab_size": 40}


@pytest.mark.parametrize(
    ("architecture", "arguments", "tied", "head"),
    [
        ("qwen3_vl", SEES, False, "language_model.lm_head"),
        ("qwen3_vl", SEES, True, "language_model.model.embed_tokens"),
        ("mamba2", STATES, False, "lm_head"),
        ("mamba2", STATES, True, "backbone.embeddings"),
        ("gpt2", POSITIONS_LEARNT | {"layer_norm_epsilon": 1e-5}, True, "model.wte"),
    ],
)
def test_the_head_of_text_parts_and_of_bodies_of_other_names(architecture, arguments, tied, head):
    given = {"tie_word_embeddings": tied}
    arguments = {"text_config": arguments["text_config"] | given} if "text_config" in arguments else arguments | given
    model = build(architecture, arguments)
    split = split_head(model)
    assert dict(model.named_modules())[head] is split.head_module()
    assert split.body(mx.array([[1, 2, 3]])).shape == (1, 3, 32)
