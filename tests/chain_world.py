"""A small llama and its gradients, by autodiff and by the chain of its layers."""

import mlx.core as mx
import numpy as np
from mlx_lm.models import llama

from pipelines import backend
from pipelines.config import ModelConfig
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import split_head
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.parts import installed
from pipelines.models.prefix import make_prefix

LAYERS, VOCABULARY, WIDTH, ROWS, LENGTH = 3, 40, 32, 3, 5
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
}


def make(*, lora=False, dropout=0.0):
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(SIZES | {"model_type": "llama", "tie_word_embeddings": False}))
    return with_adapters(model, dropout=dropout) if lora else model


def with_adapters(model, *, dropout=0.0, learnt=True):
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_layers=-1, lora_dropout=dropout), 0)
    for number, (_, module) in enumerate(lora_modules(model) if learnt else []):
        module.lora_b = 0.3 * mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    return model


def ask(beginnings, seed=1, length=LENGTH):
    """Tokens, which beginnings they continue if there are any, and the gradient of their last hidden states."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(np.arange(ROWS) % max(1, len(beginnings)))
    prefix = [rng.integers(0, VOCABULARY, length) for length in beginnings]
    tokens, weights = rng.integers(0, VOCABULARY, (ROWS, length)), rng.normal(size=(ROWS, length, WIDTH))
    return mx.array(tokens), make_prefix(prefix, members) if prefix else None, mx.array(weights, mx.float32)


def of_the_model(model, names, asked):
    """Gradients of the named leaves by autodiff, each row read from its beginning on its own."""
    tokens, prefix, weights = asked

    def loss(own):
        with installed(model, own):
            return sum((weights[row] * model.model(whole(row))[0, -tokens.shape[1] :]).sum() for row in range(ROWS))

    def whole(row):
        if prefix is None:
            return tokens[row : row + 1]
        member = prefix.members[row].item()
        return mx.concatenate([prefix.tokens[member, prefix.padding[member] :], tokens[row]])[None]

    return mx.grad(loss)({name: leaf for name, leaf in leaves(model.parameters()).items() if name in names})


def of_the_chain(stack, names, asked, lowest=0, launch=backend.launch):
    """Those of what follows the last layer added, as a pass that learns does it."""
    tokens, prefix, weights = asked
    tape = stack.record(tokens, launch, prefix=prefix)
    named = {name: leaf for name, leaf in leaves(stack.model.parameters()).items() if name in names}

    def loss(last, outside):
        with installed(stack.model, outside):
            return (weights * stack.finish(tokens, last)).sum()

    outside = {name: leaf for name, leaf in named.items() if stack.layer_of(name) is None}
    to_last, after = mx.grad(loss, argnums=(0, 1))(tape.last, outside)
    found = stack.backward(tape, to_last, frozenset(names), lowest, launch)
    return found | {name: leaf + found[name] for name, leaf in after.items() if name in found}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        scale = mx.abs(leaf).max().item()
        assert scale > 1e-4, name
        np.testing.assert_allclose(found[name], leaf, atol=1e-4 * scale, err_msg=name)


def stack_of(model):
    return LayerStack(model, split_head(model), checkpointing=True)


def body(model):
    """The trainable leaves of all but the head."""
    return [name for name in leaves(model.trainable_parameters()) if name.startswith("model.")]
