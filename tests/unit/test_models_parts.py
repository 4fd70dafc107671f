"""Log-probabilities in parts equal those in one piece, gradients included, and parts are computed one by one."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models import llama

from pipelines.config import ModelConfig
from pipelines.models import logprobs
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import score, split_head, spots
from pipelines.models.lora import apply_lora
from pipelines.models.parts import in_parts, is_random

VOCABULARY, WIDTH, ROWS, TOKENS, START = 40, 32, 3, 12, 4
PARTS = pytest.mark.parametrize("rows", [1, 7, VOCABULARY])


def make(*, tied=True, adapter=False, dropout=0.0, frozen=False):
    mx.random.seed(0)
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=WIDTH,
            num_hidden_layers=1,
            intermediate_size=64,
            num_attention_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
            tie_word_embeddings=tied,
        )
    )
    if adapter:
        apply_lora(model, ModelConfig(use_lora=True, lora_target_modules=("lm_head",), lora_dropout=dropout), seed=0)
        model.lm_head.lora_b = mx.random.normal(model.lm_head.lora_b.shape)
    if frozen:
        model.model.embed_tokens.freeze()
    return model


def gradients(model, **how):
    """Log-probabilities and entropies, and the gradient of a mixture of them with respect to states and leaves."""
    split = split_head(model)
    tokens = mx.random.randint(0, VOCABULARY, (ROWS, TOKENS), key=mx.random.key(1))
    completions = tokens[:, START:]
    where = np.random.default_rng(0).random(completions.shape) < 0.8
    at = spots(tokens, mx.full((ROWS,), START, dtype=mx.int32), completions, where)
    hidden = mx.random.normal((ROWS, TOKENS, WIDTH), key=mx.random.key(2))
    mixture = mx.random.normal(completions.shape, key=mx.random.key(3))

    def loss(hidden):
        scored = score(split, hidden, at, 0.7, **how)
        return (scored.logprobs * mixture + scored.entropies * mixture).sum(), scored

    def whole(parameters):
        model.update(parameters["model"])
        return loss(parameters["hidden"])

    own = {"model": model.trainable_parameters(), "hidden": hidden}
    (_, scored), found = mx.value_and_grad(whole)(own)
    model.update(own["model"])
    return scored, leaves(found["model"]) | {"hidden": found["hidden"]}


def bump(logits, cells):
    return logits + 0.1 * (cells[:, None] % 3)


@PARTS
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ({"tied": True}, {}),
        ({"tied": False}, {"entropy_gradient": True}),
        ({"tied": True}, {"adjust": bump, "entropy_gradient": True}),
        ({"tied": False, "adapter": True}, {}),
        ({"tied": True, "frozen": True}, {}),
    ],
    ids=["tied", "untied, entropies", "adjusted", "adapter on the head", "a head that does not learn"],
)
def test_parts_are_the_whole(rows, kind, how, monkeypatch):
    dense_scored, dense = gradients(make(**kind), **how)
    monkeypatch.setitem(logprobs.PART_BYTES, "cpu", rows * 4 * VOCABULARY)
    scored, found = gradients(make(**kind), **how)
    for one, other in zip(scored, dense_scored, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert found.keys() == dense.keys()
    for name, expected in dense.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)
    assert any(mx.abs(leaf).max() > 1e-3 for name, leaf in found.items() if name != "hidden" or "frozen" in kind)


def test_a_head_that_drops_inputs_is_not_asked_twice():
    split = split_head(made := make(tied=False, adapter=True, dropout=0.5))
    made.eval()
    assert split.rows_at_once() is not None
    made.train()
    assert split.rows_at_once() is None
    assert not is_random(make(tied=False, adapter=True).train().lm_head)


def test_memory_is_that_of_one_part():
    rows, parts, vocabulary = 64, 16, 2**16
    head = nn.Linear(8, vocabulary, bias=False)
    states = mx.random.normal((rows * parts, 8))
    mx.eval(head.parameters(), states)

    def entropy(piece, _part):
        logits = head(piece)
        return ((mx.exp(logits - mx.logsumexp(logits, axis=-1, keepdims=True)) * logits).sum(axis=-1),)

    def peak_bytes(function):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.value_and_grad(lambda states: function(states)[0].sum())(states))
        return mx.get_peak_memory() - before

    in_one = peak_bytes(lambda states: entropy(states, None))
    # On a CPU some operations are always under way at once, with their results allocated.
    assert peak_bytes(lambda states: in_parts(entropy, states, rows, head)) < in_one / 3
