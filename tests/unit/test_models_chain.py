"""Layers gone back through one by one: the gradients of the whole model."""

import mlx.core as mx
import pytest
from chain_world import (
    LAYERS,
    LENGTH,
    ROWS,
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
from mlx.utils import tree_map
from mlx_lm.models import llama

from pipelines import backend
from pipelines.models import chain


@pytest.fixture(params=["cpu", "gpu"])
def _device(request, monkeypatch):
    """On the second layers are compiled, whatever device there is."""
    monkeypatch.setattr(backend, "on_gpu", lambda: request.param == "gpu")


beginnings = pytest.mark.parametrize("beginnings", [(), (4, 2)], ids=["whole rows", "shared prompts"])


@pytest.mark.usefixtures("_device")
@beginnings
@pytest.mark.parametrize("lora", [False, True])
def test_gradients_are_those_of_the_whole_model(lora, beginnings):
    stack, asked = stack_of(model := make(lora=lora)), ask(beginnings)
    assert stack.chains
    names = body(model)
    assert {stack.layer_of(name) for name in names} == {0, 1, 2} | (set() if lora else {None})
    assert_same(of_the_chain(stack, names, asked), of_the_model(model, names, asked))


@beginnings
def test_only_the_named_leaves_from_the_lowest_layer_on_are_gone_back_to(beginnings):
    stack, asked, launched = stack_of(model := make()), ask(beginnings), []
    names = [f"model.layers.{name}.weight" for name in ("1.self_attn.k_proj", "2.mlp.up_proj", "2.input_layernorm")]
    found = of_the_chain(stack, ["model.embed_tokens.weight", *names], asked, lowest=1, launch=launched.append)
    assert_same(found, of_the_model(model, names, asked))
    calls = 2 if beginnings else 1
    there, back = launched[: calls * LAYERS], launched[calls * LAYERS :]
    shape = (ROWS, LENGTH, WIDTH)
    assert sum(given.shape == shape for (given,) in there) == LAYERS
    assert [(len(each), each[-1].shape) for each in back] == [(2 + calls, shape), (1 + calls, shape)]


@pytest.mark.usefixtures("_device")
@beginnings
def test_what_is_compiled_keeps_no_weights_and_no_beginnings(beginnings):
    """The weights change, the frozen ones too; so do prompts, first in arrays of the same shapes."""
    stack = stack_of(model := make(lora=True))
    names = body(model)
    for number, order in enumerate([beginnings, beginnings[::-1], beginnings[:1]]):
        asked = ask(order, seed=number)
        assert_same(of_the_chain(stack, names, asked), of_the_model(model, names, asked))
        model.update(tree_map(lambda leaf: 0.9 * mx.roll(leaf, 1), model.parameters()))
    model.layers[1].self_attn.q_proj.linear.unfreeze()
    names.append("model.layers.1.self_attn.q_proj.linear.weight")
    assert_same(of_the_chain(stack, names, asked), of_the_model(model, names, asked))


@beginnings
def test_a_pass_that_scores_gives_what_one_that_learns_does(beginnings):
    """The adapters of a bfloat16 model are narrowed in both: the ratio is 1 until the first step."""
    (model := make()).set_dtype(mx.bfloat16)
    stack, (tokens, prefix, _) = stack_of(with_adapters(model)), ask(beginnings)
    learning = stack.finish(tokens, stack.record(tokens, backend.launch, prefix=prefix).last)
    assert mx.array_equal(stack.run(tokens, prefix=prefix).hidden, learning)


def test_an_embedding_hears_a_token_however_often_it_occurs():
    """Added up in bfloat16, thousands of its gradients would hardly differ from hundreds."""
    (model := make()).set_dtype(mx.bfloat16)
    name, found = "model.embed_tokens.weight", []
    asked = mx.full((4, 512), 3), None, mx.ones((4, 512, WIDTH))
    for dtype in (mx.bfloat16, mx.float32):
        model.set_dtype(dtype)
        found.append(of_the_chain(stack_of(model), [name], asked)[name].astype(mx.float32))
    narrow, wide = found
    assert mx.linalg.norm(narrow - wide) < 0.05 * mx.linalg.norm(wide)


@pytest.mark.usefixtures("_device")
def test_layers_are_called_again_as_they_were():
    """One token goes without a mask, several do not."""
    stack = stack_of(model := make())
    for length in (1, LENGTH):
        asked, names = (
            ask((), length=length),
            ["model.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"],
        )
        assert_same(of_the_chain(stack, names, asked), of_the_model(model, names, asked))


def test_layers_are_compiled_once(monkeypatch):
    """For a shape, the way they are called, and the leaves that are asked for."""
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    stack, traced = stack_of(model := make()), []
    call = llama.TransformerBlock.__call__

    def heard(self, *args, **kwargs):
        traced.append(self)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(llama.TransformerBlock, "__call__", heard)
    names, counts = body(model), []
    for _ in range(2):
        for beginnings in ((), (4, 2)):
            tape = stack.record(*(asked := ask(beginnings))[:1], backend.launch, prefix=asked[1])
            traced.clear()
            stack.backward(tape, asked[2], frozenset(names), 0, backend.launch)
            counts.append(len(traced))
    assert counts == [LAYERS, 2 * LAYERS, 0, 0]


def test_compiled_functions_of_old_shapes_are_let_go(monkeypatch):
    """MLX keeps what it compiled as long as the function lives."""
    stack = stack_of(make())
    stack._chain._shapes.clear()  # of the trial
    monkeypatch.setattr(chain, "MOST_SHAPES", 3)

    def functions_after(rows):
        tape = stack.record(mx.zeros((rows, 4), mx.int32), backend.Turns())
        stack.backward(tape, mx.zeros_like(tape.last), frozenset(stack.trainable()), 0, backend.Turns())
        return set(stack._chain._functions.values())

    first = functions_after(1)
    assert all(functions_after(rows) == first for rows in (2, 1, 3, 2))
    assert not functions_after(4) & first
