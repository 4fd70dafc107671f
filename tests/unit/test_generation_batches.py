"""Batches of unequal prompts on other architectures: as right as one by one, or refused; and how wide they are."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import gemma2, gemma3_text, gpt2, llama, mamba

from pipelines.config import GenerationConfig, ModelConfig
from pipelines.errors import ModelError
from pipelines.generation import caches, width
from pipelines.generation.engine import Rollouts, generate
from pipelines.generation.seeds import row_keys
from pipelines.models.lora import apply_lora, lora_modules

WINDOW = 8
PROMPTS = [np.arange(2, 22, dtype=np.int32), np.array([7], np.int32), np.array([3, 4, 5, 6, 7, 8], np.int32)]
KEYS = row_keys(0, "rollout", 1, range(3), 2)
EOS = frozenset({1, 9, 23})

GEMMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 16,
    "vocab_size": 40,
}
GPT2 = {
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 40,
}
MAMBA = {
    "model_type": "mamba",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 2,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
}


def build(architecture, arguments):
    """A small random model."""
    mx.random.seed(0)
    model = architecture.Model(architecture.ModelArgs.from_dict(arguments))
    model.eval()
    mx.eval(model.parameters())
    return model


def sliding():
    """One layer that sees the last 8 positions, and one that sees all."""
    extra = {
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
    }
    return build(gemma3_text, GEMMA | extra)


def capped(key_value_heads):
    """gemma2 with 4 heads; where they share key heads, its attention takes the rows of a mask for key heads."""
    extra = {"model_type": "gemma2", "num_key_value_heads": key_value_heads, "rms_norm_eps": 1e-5}
    return build(gemma2, GEMMA | extra)


def roll_out(model, prompts=PROMPTS, keys=KEYS, max_tokens=20, **sampling) -> Rollouts:
    return generate(
        model,
        prompts,
        group_size=len(keys) // len(prompts),
        sampling=GenerationConfig(**sampling),
        eos_ids=EOS,
        max_tokens=max_tokens,
        seeds=keys,
    )


@pytest.mark.parametrize(
    "model",
    [sliding, lambda: build(gpt2, GPT2), lambda: capped(4)],
    ids=["sliding window", "learned positions", "capped logits"],
)
def test_other_architectures_are_as_one_by_one_and_as_a_full_forward(model):
    model = model()
    together = roll_out(model)
    assert (together.lengths > 2 * WINDOW).any(), "the window must have rotated for this to prove anything"
    for row in range(len(KEYS)):
        prompt, completion = together.prompt(row), together.completion(row)
        alone = roll_out(model, [prompt], KEYS[row : row + 1])
        np.testing.assert_array_equal(alone.completion(0), completion)
        logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
        logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        expected = logprobs[np.arange(len(completion)), completion]
        np.testing.assert_allclose(together.logprobs[row, : len(completion)], expected, atol=1e-5)


def test_a_state_space_model_is_refused():
    with pytest.raises(ModelError, match="cannot batch this model's ArraysCache") as caught:
        roll_out(build(mamba, MAMBA))
    assert "sliding-window" in caught.value.hint


@pytest.mark.parametrize("key_value_heads", [1, 2])
def test_an_architecture_that_misreads_masks_is_refused_and_decodes_row_by_row(key_value_heads):
    model = capped(key_value_heads)
    with pytest.raises(ModelError, match="gemma2 cannot decode prompts of unequal length") as caught:
        roll_out(model)
    assert "rollout_batch_size to 1" in caught.value.hint
    rollouts = roll_out(model, rollout_batch_size=1)
    prompt, completion = rollouts.prompt(0), rollouts.completion(0)
    logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
    logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    expected = logprobs[np.arange(len(completion)), completion]
    np.testing.assert_allclose(rollouts.logprobs[0, : len(completion)], expected, atol=1e-5)


def test_silently_wrong_batches_are_found_too(monkeypatch):
    """With as many key heads as probe rows gemma2 computes something, but not what it computes one by one."""
    model = capped(2)
    monkeypatch.setattr(caches, "PROBE", caches.PROBE[:2])
    mx.eval(caches.prefill(model, caches.PROBE)[0])  # no error
    with pytest.raises(ModelError, match="gemma2"):
        caches.check_batching(model)


def test_a_model_is_probed_once(monkeypatch):
    model = sliding()
    caches.check_batching(model)
    monkeypatch.setattr(caches, "prefill", None)
    caches.check_batching(model)
    with pytest.raises(TypeError):
        caches.check_batching(sliding())


def test_rollouts_have_no_dropout_and_leave_the_model_training():
    model = build(llama, LLAMA)
    apply_lora(model, ModelConfig(use_lora=True, lora_dropout=0.5), seed=0)
    for number, (_, module) in enumerate(lora_modules(model)):
        module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    calm = roll_out(model.eval())
    model.train()
    np.testing.assert_array_equal(roll_out(model).logprobs, calm.logprobs)
    assert model.training
    assert all(module.training for _, module in lora_modules(model))


def test_the_width_follows_from_the_models_own_cache():
    """2 key heads of 16, keys and values, float32, 3 layers; 300 positions take two steps of 256."""
    model = build(llama, LLAMA)
    cache_bytes = 3 * 2 * (2 * 16) * 4 * 512
    row_bytes = cache_bytes + 4 * 4 * 100
    assert width.rows_that_fit(model, 300, 10 * row_bytes) == 10
    assert width.rows_that_fit(model, 300, 10 * row_bytes - 1) == 9
    assert width.rows_that_fit(model, 300, 0) == 1
    assert width.rows_that_fit(model, 300, 10**15) == width.MOST_ROWS


def test_the_caches_really_take_what_the_width_says():
    model = build(llama, LLAMA)
    _, cache = caches.prefill(model, [np.zeros(300, np.int32)] * 5)
    assert sum(layer.nbytes for layer in cache) == 5 * 3 * 2 * (2 * 16) * 4 * 512


def test_a_window_bounds_what_a_layer_keeps():
    row_bytes = 2 * (16) * 4 * WINDOW + 2 * (16) * 4 * 512 + 4 * 4 * 40
    assert width.rows_that_fit(sliding(), 300, 7 * row_bytes) == 7


@pytest.mark.parametrize(
    ("setting", "group_size", "expected"), [(1, 1, 1), (5, 8, 5), (8, 8, 8), (20, 8, 16), (7, 1, 7), (9, 4, 8)]
)
def test_groups_stay_whole_where_they_fit(setting, group_size, expected):
    config = GenerationConfig(rollout_batch_size=setting)
    assert width.rows_at_once(build(llama, LLAMA), PROMPTS, group_size, 4, config) == expected


def test_auto_takes_a_quarter_of_the_memory(monkeypatch):
    model = build(llama, LLAMA)
    row_bytes = 3 * 2 * (2 * 16) * 4 * 256 + 4 * 4 * 100
    monkeypatch.setattr(width, "memory_bytes", lambda: 4 * 11 * row_bytes)
    assert width.rows_at_once(model, PROMPTS, 1, 100, GenerationConfig()) == 11
    assert width.rows_at_once(model, PROMPTS, 4, 100, GenerationConfig()) == 8
    assert width.rows_at_once(model, [], 4, 100, GenerationConfig()) == 8


def test_little_memory_changes_nothing(monkeypatch):
    model = build(llama, LLAMA)
    usual = roll_out(model)
    monkeypatch.setattr(width, "memory_bytes", lambda: 0)
    np.testing.assert_array_equal(roll_out(model).tokens, usual.tokens)
