"""Which models are a chain of layers, and which are not."""

import mlx.core as mx
import pytest
from chain_world import (
    LAYERS,
    SIZES,
    VOCABULARY,
    WIDTH,
    ask,
    assert_same,
    body,
    make,
    of_the_chain,
    of_the_model,
    stack_of,
    with_adapters,
)
from mlx import nn
from mlx_lm.models import gemma2

from pipelines import backend
from pipelines.models import layers
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import split_head
from pipelines.models.parts import installed


class Block(nn.Module):
    def __init__(self, read=lambda: 0.0):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self._read = read

    def __call__(self, states, other=None):
        added = other if isinstance(other, mx.array) else 0.0
        return states + mx.tanh(self.linear(states) + added + self._read())


class Body(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.embed_tokens, self.norm = nn.Embedding(VOCABULARY, WIDTH), nn.RMSNorm(WIDTH)
        self.layers = [Block() for _ in range(LAYERS)]
        self._call = call

    def __call__(self, tokens):
        return self.norm(self._call(self.layers, self.embed_tokens(tokens)))


class Tiny(nn.Module):
    """Three layers, called as `call` does it, (layers, states) -> states."""

    def __init__(self, call):
        super().__init__()
        mx.random.seed(0)
        self.model, self.lm_head = Body(call), nn.Linear(WIDTH, VOCABULARY)

    @property
    def layers(self):
        return self.model.layers

    def __call__(self, tokens):
        return self.lm_head(self.model(tokens))


def one_by_one(layers, states):
    for layer in layers:
        states = layer(states)
    return states


def with_a_mask(layers, states):
    for layer in layers:
        states = layer(states, mx.ones(WIDTH))
    return states


def by_name(layers, states):
    for number, layer in enumerate(layers):
        states = layer(states, other=mx.full(WIDTH, number) if number else None)
    return states


def beside_what_comes_before(layers, states):
    return states + one_by_one(layers, states)


def told_something_else(layers, states):
    for layer in layers:
        states = layer(states, (1, 2))
    return states


def twice(layers, states):
    return one_by_one(layers, one_by_one(layers, states))


def beside_each_other(layers, states):
    return layers[2](layers[0](states) + layers[1](states))


def leaving_one_out(layers, states):
    return layers[2](layers[0](states))


def doubled_between(layers, states):
    return layers[2](layers[1](2 * layers[0](states)))


def a_little_past_the_others(layers, states):
    first = layers[0](states)
    return layers[2](layers[1](first)) + 0.001 * mx.stop_gradient(first)


def handed_the_first_result(layers, states):
    first = layers[0](states)
    return layers[2](layers[1](first, first), first)


def handed_what_comes_before(layers, states):
    """As models with inputs of their own for each layer do it."""
    first = states
    for layer in layers:
        states = layer(states, first)
    return states


@pytest.mark.parametrize("call", [one_by_one, with_a_mask, by_name, beside_what_comes_before])
def test_models_that_are_chains(call):
    stack, asked = stack_of(model := Tiny(call)), ask(())
    assert stack.chains
    assert_same(of_the_chain(stack, body(model), asked), of_the_model(model, body(model), asked))


@pytest.mark.parametrize(
    "call",
    [told_something_else, twice, beside_each_other, leaving_one_out, doubled_between, a_little_past_the_others],
)
def test_models_whose_layers_do_not_just_follow_each_other(call):
    assert not stack_of(Tiny(call)).chains


def test_one_layer_in_two_places():
    model = Tiny(one_by_one)
    model.layers[1] = model.layers[0]
    assert not stack_of(model).chains


def test_layers_that_may_drop_some_of_their_inputs():
    """Computed again, they would drop others."""
    assert stack_of(make(lora=True).eval()).chains
    assert not stack_of(make(lora=True, dropout=0.1).eval()).chains


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
def test_adapters_on_a_model_in_any_type(dtype, learnt, monkeypatch):
    """They are float32 whatever the model is, and their gradients as exact as the model's own type."""
    monkeypatch.setattr(layers, "SAME_GRADIENT", {dtype.size: layers.SAME_GRADIENT[dtype.size]})
    model = make()
    model.set_dtype(dtype)
    with_adapters(model, learnt=learnt)
    assert stack_of(model.eval()).chains


def test_a_head_that_is_not_apart():
    for softcap in (3.0, None):
        sizes = SIZES | {"model_type": "gemma2", "final_logit_softcapping": softcap or 1e9}
        split = split_head(model := gemma2.Model(gemma2.ModelArgs.from_dict(sizes)))
        assert not split.apart
        assert not LayerStack(model, split, checkpointing=True).chains


def test_a_model_of_which_nothing_learns():
    model = make()
    model.freeze()
    assert not stack_of(model).chains
    model.layers[1].unfreeze()
    assert stack_of(model).chains


@pytest.mark.usefixtures("as_on_a_cpu")
def test_a_cpu_that_may_keep_everything_does():
    model = make()
    assert not LayerStack(model, split_head(model)).chains


@pytest.mark.parametrize("call", [handed_the_first_result, handed_what_comes_before])
def test_checkpointed_layers_hand_a_gradient_to_all_that_they_are_given(call):
    stack, asked = stack_of(model := Tiny(call)), ask(())

    def loss(own):
        with installed(model, own):
            return (asked[2] * stack.run(asked[0]).hidden).sum()

    own = {name: leaf for name, leaf in leaves(model.parameters()).items() if name in body(model)}
    assert_same(mx.grad(loss)(own), of_the_model(model, own, asked))


def reading(leaf, layer=1):
    """A model one of whose layers reads a leaf that is not its own."""
    model = Tiny(one_by_one)
    model.layers[layer] = Block(lambda: leaf(model)[0])
    return model


@pytest.mark.parametrize(
    ("make", "checkpointing"),
    [
        pytest.param(make, checkpointing, id=f"{name}, {'checkpointed' if checkpointing else 'GPU'}")
        for name, make in [
            ("a result", lambda: Tiny(handed_the_first_result)),
            ("what comes before", lambda: Tiny(handed_what_comes_before)),
            ("a leaf of the first", lambda: reading(lambda model: model.layers[0].linear.weight)),
            ("a leaf of the second", lambda: reading(lambda model: model.layers[1].linear.weight, 2)),
            ("the embedding", lambda: reading(lambda model: model.model.embed_tokens.weight)),
        ]
        for checkpointing in (False, True)
    ],
)
def test_layers_that_depend_on_more_than_the_one_before(make, checkpointing, monkeypatch):
    monkeypatch.setattr(backend, "on_gpu", lambda: not checkpointing)
    model = make()
    assert not LayerStack(model, split_head(model), checkpointing=checkpointing).chains


class Pair(Block):
    def __call__(self, states):
        return super().__call__(states), states


def test_layers_that_give_more_than_states():
    def in_pairs(layers, states):
        for layer in layers:
            states, _ = layer(states)
        return states

    model = Tiny(in_pairs)
    model.model.layers = [Pair() for _ in range(LAYERS)]
    stack = stack_of(model)
    assert (stack.chains, stack.resumable, stack.shares) == (False, False, False)
