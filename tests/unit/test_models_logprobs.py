"""Log-probabilities and entropies of completions against numpy, with the head taken apart and whole."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import cohere, gemma2, qwen3

from pipelines.config import ModelConfig
from pipelines.models.logprobs import completion_logprobs, split_head
from pipelines.models.lora import apply_lora
from pipelines.models.modes import evaluating

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
}
QWEN3 = COMMON | {
    "model_type": "qwen3",
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "rope_theta": 1e4,
}
COHERE = COMMON | {"model_type": "cohere", "logit_scale": 0.0625}
GEMMA2 = COMMON | {"model_type": "gemma2", "head_dim": 16, "rms_norm_eps": 1e-5, "final_logit_softcapping": 3.0}

PROMPTS = [[1, 2, 3, 4], [5], [6, 7]]
COMPLETIONS = [[8, 9], [10, 11, 12, 13, 14], [15, 16, 17]]
STARTS = mx.array([4, 1, 2])
LENGTHS = [2, 5, 3]


def build(architecture, arguments):
    mx.random.seed(0)
    model = architecture.Model(architecture.ModelArgs.from_dict(arguments))
    model.eval()
    return model


def tied():
    return build(qwen3, QWEN3 | {"tie_word_embeddings": True})


def untied():
    return build(qwen3, QWEN3 | {"tie_word_embeddings": False})


def scaled():
    return build(cohere, COHERE)


def softcapped():
    return build(gemma2, GEMMA2)


models = pytest.mark.parametrize("make", [tied, untied, scaled, softcapped])


def padded(rows, fill=0):
    width = max(map(len, rows))
    return mx.array([row + [fill] * (width - len(row)) for row in rows])


def score(model, temperature=1.0, fill=0):
    sequences = padded([p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)], fill)
    return completion_logprobs(split_head(model), sequences, STARTS, padded(COMPLETIONS, fill), temperature)


def by_numpy(model, row, temperature):
    """Log-softmax in float64 of the unpadded row, at the positions that predict its completion `[C, V]`."""
    logits = np.array(model(mx.array([PROMPTS[row] + COMPLETIONS[row]])).astype(mx.float32))[0].astype(np.float64)
    logits = logits[len(PROMPTS[row]) - 1 : -1] / temperature
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@models
def test_logprobs_and_entropies_are_numpys(make, temperature):
    model = make()
    scored = score(model, temperature)
    for row, length in enumerate(LENGTHS):
        expected = by_numpy(model, row, temperature)
        chosen = expected[np.arange(length), COMPLETIONS[row]]
        entropies = -(np.exp(expected) * expected).sum(axis=-1)
        np.testing.assert_allclose(np.array(scored.logprobs)[row, :length], chosen, atol=1e-5)
        np.testing.assert_allclose(np.array(scored.entropies)[row, :length], entropies, atol=1e-5)


@pytest.mark.parametrize(("make", "apart"), [(tied, True), (untied, True), (scaled, False), (softcapped, False)])
def test_the_head_is_taken_apart_only_where_that_changes_nothing(make, apart):
    model = make()
    split = split_head(model)
    assert (split.body is model) == (not apart)
    tokens = mx.array([[1, 2, 3, 4, 5]])
    hidden = split.body(tokens)
    assert hidden.shape[-1] == (32 if apart else 40)
    np.testing.assert_array_equal(np.array(split.head(hidden)), np.array(model(tokens)))


def test_a_body_that_wants_more_than_tokens_is_not_taken_apart():
    """As that of rwkv7, whose model makes it a cache."""
    model = tied()

    class Demanding(type(model.model)):
        def __call__(self, inputs, cache, *rest):
            return super().__call__(inputs, cache, *rest)

    model.model.__class__ = Demanding
    assert split_head(model).body is model


@pytest.mark.parametrize("make", [tied, untied])
def test_what_fills_the_padding_changes_nothing(make):
    model = make()
    zeros, others = score(model), score(model, fill=39)
    for row, length in enumerate(LENGTHS):
        for one, other in zip(zeros, others, strict=True):
            np.testing.assert_allclose(np.array(one)[row, :length], np.array(other)[row, :length], atol=1e-6)


@models
def test_float32_whatever_the_model_is_in(make):
    model = make()
    exact = [score(model).logprobs[row, :length] for row, length in enumerate(LENGTHS)]
    model.set_dtype(mx.bfloat16)
    scored = score(model)
    assert (scored.logprobs.dtype, scored.entropies.dtype) == (mx.float32, mx.float32)
    for row, length in enumerate(LENGTHS):
        rounded = np.array(scored.logprobs)[row, :length]
        np.testing.assert_allclose(rounded, np.array(exact[row]), atol=0.1)
        np.testing.assert_allclose(rounded, by_numpy(model, row, 1.0)[np.arange(length), COMPLETIONS[row]], atol=0.05)
        bits = rounded.view(np.uint32)
        assert (bits & 0xFFFF).any(), "log-probabilities that fit 16 bits were rounded"


def test_gradients_flow_through_logprobs_and_not_through_entropies():
    model = untied()

    def total(which):
        return lambda weight: score(_with_head(model, weight))[which].sum()

    weight = model.lm_head.weight
    assert mx.abs(mx.grad(total(0))(weight)).max() > 1e-3
    assert mx.abs(mx.grad(total(1))(weight)).max() == 0


def _with_head(model, weight):
    model.lm_head.weight = weight
    return model


def test_a_head_with_an_adapter_stays_apart_and_counts():
    model = untied()
    before = np.array(score(model).logprobs)
    apply_lora(model, ModelConfig(use_lora=True, lora_target_modules=("lm_head",)), seed=0)
    split = split_head(model)
    assert split.body is not model
    np.testing.assert_array_equal(np.array(score(model).logprobs), before)
    model.lm_head.lora_b = mx.random.normal(model.lm_head.lora_b.shape)
    tokens = mx.array([[1, 2, 3]])
    np.testing.assert_array_equal(np.array(split.head(split.body(tokens))), np.array(model(tokens)))
    assert not np.allclose(np.array(score(model).logprobs), before)


def test_dropout_does_not_keep_the_head_on():
    model = tied()
    apply_lora(model, ModelConfig(use_lora=True, lora_dropout=0.5), seed=0)
    for layer in model.layers:
        layer.self_attn.q_proj.lora_b = mx.ones(layer.self_attn.q_proj.lora_b.shape)
    model.train()
    assert split_head(model).body is not model
    assert model.training


def test_evaluating_puts_the_mode_back_when_something_fails():
    model = tied().train()

    def fail():
        with evaluating(model):
            assert not model.layers[0].training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.layers[0].training
    with evaluating(model.eval()):
        pass
    assert not model.training
