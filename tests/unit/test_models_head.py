"""Scores under the head and their gradient by parts: those of `logprobs.score` under autodiff, also compiled."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models import gemma2, llama

from pipelines import backend
from pipelines.config import ModelConfig
from pipelines.models import logprobs
from pipelines.models.head import Head
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import Spots, score, split_head
from pipelines.models.lora import apply_lora
from pipelines.models.parts import installed

VOCABULARY, WIDTH, CELLS = 40, 32, 60
LORA = ("lora_a", "lora_b")
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
}


def make(*, tied=False, bias=False, adapter=False, frozen=False):
    mx.random.seed(0)
    arguments = SIZES | {"model_type": "llama", "tie_word_embeddings": tied}
    model = llama.Model(llama.ModelArgs.from_dict(arguments))
    if bias:
        model.lm_head = nn.Linear(WIDTH, VOCABULARY)
    if adapter:
        apply_lora(model, ModelConfig(use_lora=True, lora_target_modules=("lm_head",)), seed=0)
        model.lm_head.lora_b = mx.random.normal(model.lm_head.lora_b.shape)
    if frozen:
        model.lm_head.freeze()
    return model


def ask(count, seed=1):
    """States of so many tokens, where they stand, and the gradients that come back to their scores."""
    keys = mx.random.split(mx.random.key(seed), 5)
    places = mx.arange(count, dtype=mx.int32)
    at = Spots(
        states=places,
        targets=mx.random.randint(0, VOCABULARY, (count,), key=keys[0]),
        cells=mx.random.randint(0, CELLS, (count,), key=keys[1]),
        places=places[None],
    )
    return mx.random.normal((count, WIDTH), key=keys[2]), at, [mx.random.normal((count,), key=key) for key in keys[3:]]


def by_autodiff(split, asked, temperature=1.0, adjust=None):
    states, at, (to_logprobs, to_entropies) = asked
    module = split.head_module()

    def loss(states, own):
        with installed(module, own):
            scored = score(split, states[None], at, temperature, adjust=adjust, entropy_gradient=True)
        return (scored.logprobs * to_logprobs + scored.entropies * to_entropies).sum(), scored

    (_, scored), (to_states, to_leaves) = mx.value_and_grad(loss, argnums=(0, 1))(
        states, leaves(module.trainable_parameters())
    )
    return scored.logprobs[0], scored.entropies[0], to_states, to_leaves


def by_head(head, asked, temperature=1.0, adjust=None, launch=backend.launch):
    states, at, wishes = asked
    scores = head.score(states, at, temperature, adjust, launch)
    return scores.logprobs, scores.entropies, *scores.backward(*wishes, launch)


def assert_same(found, expected):
    assert found[3].keys() == expected[3].keys()
    one, other = ([*each[:3], *each[3].values()] for each in (found, expected))
    names = ["log-probabilities", "entropies", "states", *expected[3]]
    for name, array, wanted in zip(names, one, other, strict=True):
        scale = np.abs(wanted).max()
        assert scale > 1e-3, name
        np.testing.assert_allclose(array, wanted, atol=1e-5 * scale, err_msg=name)


def bump(logits, cells):
    return logits * (1 + 0.1 * (cells[:, None] % 3)) + mx.arange(VOCABULARY) / (1 + cells[:, None])


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch):
    """The second compiles, and rounds parts to powers of two, on whatever device there is."""
    monkeypatch.setattr(backend, "on_gpu", lambda: request.param == "gpu")
    return request.param


def part_rows(monkeypatch, rows):
    monkeypatch.setattr(logprobs, "PART_BYTES", dict.fromkeys(("cpu", "gpu"), rows * 4 * VOCABULARY))


SHAPES = {("cpu", 6): [6, 6], ("gpu", 6): [4, 4, 4], ("cpu", 99): [11], ("gpu", 99): [16]}
"""Of the parts of 11 tokens, by the device and the rows that fit at once."""


@pytest.mark.parametrize(
    "case",
    [
        ({"tied": True}, {}),
        ({"bias": True}, {"temperature": 0.7}),
        ({"adapter": True}, {"temperature": 1.5, "adjust": bump}),
        ({"frozen": True}, {}),
        ({}, {"temperature": 0.03}),
    ],
    ids=["tied", "with a bias, cooler", "adapter, adjusted", "frozen", "one token is all but sure"],
)
@pytest.mark.parametrize("rows", [6, 99])
def test_values_and_gradients_are_those_of_autodiff(case, rows, device, monkeypatch):
    (kind, how), asked, launched = case, ask(11), []
    split, shapes = split_head(make(**kind)), SHAPES[device, rows]
    expected = by_autodiff(split, asked, **how)
    part_rows(monkeypatch, rows)
    assert_same(by_head(Head(split), asked, **how, launch=launched.append), expected)
    assert [first.shape[0] for first, *_ in launched] == shapes * 2, "there and back"


def test_what_is_compiled_keeps_no_weights_and_no_adjustment(device, monkeypatch):
    model = make(adapter=True)
    split = split_head(model)
    head = Head(split)
    part_rows(monkeypatch, 4)
    for number, how in enumerate([{}, {}, {"adjust": bump}, {"adjust": lambda logits, _: 2 * logits}, {}]):
        asked = ask(11 - 2 * number, seed=number)
        assert_same(by_head(head, asked, **how), by_autodiff(split, asked, **how))
        learning = model.lm_head
        learning.lora_a, learning.lora_b = 1.1 * learning.lora_a, learning.lora_b - 0.2
        learning.linear.weight = mx.roll(learning.linear.weight, 1, axis=0)
    assert_same(by_head(head, asked, 0.5), by_autodiff(split, asked, 0.5))


def test_one_compiled_function_fits_batches_of_any_size(monkeypatch):
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    part_rows(monkeypatch, 6)
    split, traced = split_head(make()), []

    def heard(states):
        traced.append(states.shape[0])
        return split.head(states)

    head = Head(replace(split, head=heard))
    for count in (11, 7, 3, 12, 1):
        by_head(head, ask(count))
    assert traced == [4, 4, 1, 1], "there and back, and again for a single token"


@pytest.mark.parametrize("adapter", [False, True])
def test_leaves_get_float32_whatever_the_model_is_in(adapter, device, monkeypatch):
    """An adapter learns in float32, and is applied in the model's type."""
    model = make(adapter=adapter)
    states, *rest = ask(11)
    expected = by_autodiff(split_head(model), (states, *rest))
    model.set_dtype(mx.bfloat16)
    if adapter:
        model.lm_head.lora_a, model.lm_head.lora_b = (model.lm_head[name].astype(mx.float32) for name in LORA)
    part_rows(monkeypatch, 4)
    split, applied = split_head(model), set()

    def heard(states):
        applied.update(leaf.dtype for leaf in leaves(model.lm_head).values())
        return split.head(states)

    *scores, to_states, to_leaves = by_head(Head(replace(split, head=heard)), (states.astype(mx.bfloat16), *rest))
    assert applied == {mx.bfloat16}
    assert to_states.dtype == mx.bfloat16
    assert {each.dtype for each in (*scores, *to_leaves.values())} == {mx.float32}
    for name, leaf in to_leaves.items():
        assert mx.linalg.norm(leaf - expected[3][name]) < 0.05 * mx.linalg.norm(expected[3][name]), name


def test_a_head_that_is_not_apart_has_no_scores():
    capped = SIZES | {"model_type": "gemma2", "final_logit_softcapping": 3.0}
    head = Head(split_head(gemma2.Model(gemma2.ModelArgs.from_dict(capped))))
    states, at, _ = ask(2)
    with pytest.raises(ValueError, match="not apart from its body"):
        head.score(states, at, 1.0, None, backend.launch)
