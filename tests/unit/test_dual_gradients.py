"""Regional gradients of a real decoder against one dense pass with the other region's tokens held constant."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs

from pipelines.algorithms.grpo import Grpo
from pipelines.config import LossConfig, ModelConfig, TrainerConfig
from pipelines.models import tiny
from pipelines.models.leaves import leaves
from pipelines.models.lora import apply_lora
from pipelines.training.assembly import make_updater
from pipelines.training.gradients import backward
from pipelines.training.passes import Pass
from pipelines.training.sequences import Sequences

LAYERS, ROWS, VOCABULARY = 5, 6, 40
TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo")
DUAL = {
    "use_dual_gradients": True,
    "thinking_layer_start": 1,
    "thinking_layer_end": 3,
    "answer_layer_start": 2,
    "answer_layer_end": 3,
}


def make_model(seed=0):
    """Five random layers; logits of a natural spread."""
    arguments = tiny.config() | {"num_hidden_layers": LAYERS, "hidden_size": 32, "intermediate_size": 48}
    arguments |= {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": VOCABULARY}
    model = Model(ModelArgs.from_dict(arguments))
    mx.random.seed(seed)
    model.update(
        nn.utils.tree_map(
            lambda leaf: leaf if leaf.ndim == 1 else 0.3 * mx.random.normal(leaf.shape), model.parameters()
        )
    )
    model.eval()
    return model


def rows(off_policy=False):
    """Unequal rows: one is all thinking, one all answer."""
    rng = np.random.default_rng(1)
    lengths = [7, 5, 6, 3, 7, 4]
    completions = [rng.integers(0, VOCABULARY, length) for length in lengths]
    noise = [rng.normal(0, 0.2, length).astype(np.float32) for length in lengths]
    found = Sequences(
        prompts=[rng.integers(0, VOCABULARY, rng.integers(1, 5)) for _ in range(ROWS)],
        completions=completions,
        advantages=rng.normal(0, 1, ROWS).astype(np.float32),
        silent=np.array([False, False, False, False, True, False]),
        thinking=np.array([4, 5, 0, 1, 3, 2]),
        inactive=[np.arange(length) == 2 for length in lengths],
    )
    if not off_policy:
        return found
    dense, _ = dense_logprobs(make_model(), found.batch(np.arange(ROWS)))
    near = [np.array(dense)[row, :length] + noise[row] for row, length in enumerate(lengths)]
    known = {
        "old_logprobs": near,
        "sampler_logprobs": near,
        "ref_logprobs": [a - 2 * b for a, b in zip(near, noise, strict=True)],
    }
    return Sequences(**(vars(found) | known))


def dense_logprobs(model, batch):
    """The definition: softmax over all positions, picked one by one; and the entropies."""
    logits = model(batch.tokens).astype(mx.float32)
    logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    positions = batch.starts[:, None] - 1 + mx.arange(batch.completions.shape[1])[None]
    picked = mx.take_along_axis(logits, mx.minimum(positions, logits.shape[1] - 1)[..., None], axis=1)
    chosen = mx.take_along_axis(picked, batch.completions[..., None], axis=-1)[..., 0]
    return chosen, -(mx.exp(picked) * picked).sum(axis=-1)


def dense_gradients(model, algorithm, sequences, region):
    """dL/dleaf through the tokens of one region alone, for every leaf."""
    batch, totals = sequences.batch(np.arange(ROWS)), sequences.totals(9)
    of = {"thinking": batch.thinking, "answer": ~batch.thinking, "all": mx.ones_like(batch.thinking)}[region]

    def loss(_):
        chosen, entropies = dense_logprobs(model, batch)
        chosen, entropies = (mx.where(of, x, mx.stop_gradient(x)) for x in (chosen, entropies))
        return algorithm.loss(chosen, entropies, batch, totals).loss

    return leaves(nn.value_and_grad(model, loss)(None)[1])


def real_gradients(model, algorithm, sequences, change=None):
    """What the updater's own passes give, in one micro-batch."""
    made = make_updater(
        model, algorithm, None, full_finetuning=True, temperature=1.0, micro_batch_tokens=10_000, budget_tokens=9
    )
    totals = sequences.totals(9)
    passes = made.passes.policy if change is None else change
    return backward(
        made.policy,
        sequences.batch(np.arange(ROWS)),
        None,
        lambda logprobs, entropies, batch: algorithm.loss(logprobs, entropies, batch, totals),
        passes,
    )


def settings(type_="dapo", beta=0.1, **changes):
    loss = LossConfig(type=type_, entropy_coef=0.05, epsilon_high=5.0 if type_ == "cispo" else 0.28)
    return TrainerConfig(**(DUAL | {"loss": loss, "grpo_beta": beta} | changes))


def layer(name):
    return int(name.split(".")[2]) if ".layers." in name else None


def assert_close(found, expected, rtol=2e-5):
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        scale = float(mx.abs(leaf).max())
        np.testing.assert_allclose(
            np.array(found[name]), np.array(leaf), rtol=rtol, atol=1e-6 * max(scale, 1), err_msg=name
        )


def length(gradients):
    return float(mx.sqrt(sum(leaf.square().sum() for leaf in gradients)))


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("type_", TYPES)
def test_each_layer_gets_the_weighted_gradients_of_its_regions(type_, off_policy):
    config = settings(type_, beta=0.1 if off_policy else 0.0, thinking_gradient_weight=0.5, answer_gradient_weight=2.5)
    algorithm, sequences = Grpo(config), rows(off_policy)
    thinking, answer = (
        dense_gradients(make_model(), algorithm, sequences, region) for region in ("thinking", "answer")
    )
    expected = {
        name: 0.5 * thinking[name] * (1 <= layer(name) <= 3) + 2.5 * answer[name] * (2 <= layer(name) <= 3)
        for name in thinking
        if layer(name) is not None and 1 <= layer(name) <= 3
    }
    found = real_gradients(make_model(), algorithm, sequences)
    assert_close(found.gradients, expected)
    assert any(float(mx.abs(leaf).max()) > 1e-3 for leaf in expected.values())


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("type_", TYPES)
def test_unit_weights_and_full_ranges_are_the_plain_gradient(type_, off_policy):
    """As two passes, which the configuration would join into one, and as that one."""
    open_ranges = dict.fromkeys(set(DUAL) - {"use_dual_gradients"})
    config = settings(type_, beta=0.1 if off_policy else 0.0, dual_train_other_params=True, **open_ranges)
    algorithm, sequences = Grpo(config), rows(off_policy)
    plain = dense_gradients(make_model(), algorithm, sequences, "all")
    names = frozenset(plain)
    for passes in ((Pass(1, 1, names, 0),), (Pass(1, 0, names, 0), Pass(0, 1, names, 0)), None):
        found = real_gradients(make_model(), algorithm, sequences, passes)
        assert_close(found.gradients, plain)
        assert length(found.gradients[name] - leaf for name, leaf in plain.items()) <= 1e-6 * length(plain.values())
        batch = sequences.batch(np.arange(ROWS))
        whole = algorithm.loss(*dense_logprobs(make_model(), batch), batch, sequences.totals(9))
        for name, value in whole.metrics.items():  # the last pass knows every token
            assert float(found.metrics[name]) == pytest.approx(float(value), abs=2e-6), name
        assert float(found.metrics["loss"]) == pytest.approx(float(whole.loss), abs=1e-6)


def test_parameters_in_no_layer_get_both_terms():
    algorithm, sequences = Grpo(settings(beta=0.0, dual_train_other_params=True, answer_gradient_weight=2.5)), rows()
    thinking, answer = (
        dense_gradients(make_model(), algorithm, sequences, region) for region in ("thinking", "answer")
    )
    found = real_gradients(make_model(), algorithm, sequences).gradients
    for name in ("model.norm.weight", "model.embed_tokens.weight"):
        expected = thinking[name] + 2.5 * answer[name]
        np.testing.assert_allclose(np.array(found[name]), np.array(expected), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("resumable", [True, False])
def test_a_pass_that_begins_inside_another_gives_the_same(resumable, monkeypatch):
    algorithm, sequences = Grpo(settings(beta=0.0)), rows()
    expected = real_gradients(make_model(), algorithm, sequences).gradients
    monkeypatch.setattr("pipelines.models.layers.LayerStack._can_resume", lambda _self: resumable)
    assert_close(real_gradients(make_model(), algorithm, sequences).gradients, expected)


@pytest.mark.usefixtures("as_on_a_cpu")
def test_the_second_pass_does_not_run_the_layers_below_its_own():
    model, ran = make_model(), []
    for number, block in enumerate(model.layers):
        block.self_attn = Counting(block.self_attn, number, ran)
    algorithm, sequences = Grpo(settings(beta=0.0)), rows()
    made = make_updater(
        model, algorithm, None, full_finetuning=True, temperature=1.0, micro_batch_tokens=10_000, budget_tokens=9
    )
    ran.clear()
    totals = sequences.totals(9)
    loss = lambda logprobs, entropies, batch: algorithm.loss(logprobs, entropies, batch, totals)  # noqa: E731
    backward(made.policy, sequences.batch(np.arange(ROWS)), None, loss, made.passes.policy)
    assert ran == [0, 1, 2, 3, 4, 2, 3, 4]


class Counting(nn.Module):
    """Notes when it is called; and when autodiff comes by, since only its backward pass is Python."""

    def __init__(self, inner, number, ran):
        super().__init__()
        self.inner = inner
        self._number, self._ran = number, ran

    def __call__(self, *arguments, **keywords):
        self._ran.append(self._number)
        return self.inner(*arguments, **keywords)


@pytest.mark.usefixtures("as_on_a_cpu")
def test_the_backward_pass_ends_at_the_lowest_layer_that_it_trains():
    model, visited = make_model(), []

    def watched(number, block):
        @mx.custom_function
        def same(x):
            return x

        @same.vjp
        def _(_primals, cotangent, _output):
            visited.append(number)
            return cotangent

        inner = block.post_attention_layernorm
        return lambda x: inner(same(x))

    for number, block in enumerate(model.layers):
        block["post_attention_layernorm"] = Watched(watched(number, block))
    algorithm = Grpo(settings(beta=0.0))
    real_gradients(model, algorithm, rows())
    assert visited[-7:] == [4, 3, 2, 1, 4, 3, 2]  # before, the model was tried


class Watched(nn.Module):
    """A norm behind something that notices gradients."""

    def __init__(self, call):
        super().__init__()
        self._call = call

    def __call__(self, x):
        return self._call(x)


def test_adapters_follow_the_same_rule():
    config = settings(beta=0.0, thinking_gradient_weight=0.5, answer_gradient_weight=2.5)
    algorithm, sequences = Grpo(config), rows()

    def adapted():
        model = make_model()
        apply_lora(model, ModelConfig(use_lora=True, lora_rank=2), seed=0)
        for name, module in model.named_modules():
            if "lora_b" in module:
                module.lora_b = 0.1 * mx.random.normal(module["lora_b"].shape, key=mx.random.key(len(name)))
        return model

    model = adapted()
    names = [name for name, _ in tree_flatten(model.trainable_parameters())]
    thinking, answer = (dense_gradients(model, algorithm, sequences, region) for region in ("thinking", "answer"))
    expected = {
        name: 0.5 * thinking[name] + 2.5 * answer[name] * (layer(name) >= 2)
        for name in names
        if 1 <= (layer(name) or 0) <= 3
    }
    assert_close(real_gradients(adapted(), algorithm, sequences).gradients, expected)


def test_a_region_without_a_token_moves_nothing_and_the_other_reports_for_both():
    config = settings(beta=0.0)
    sequences = Sequences(**(vars(rows()) | {"thinking": np.zeros(ROWS, int)}))
    found = real_gradients(make_model(), Grpo(config), sequences)
    assert {layer(name) for name in found.gradients} == {2, 3}
    assert {layer(name) for name in found.taught} == {2, 3}


@pytest.mark.parametrize("type_", TYPES)
def test_the_reported_losses_of_the_regions_add_up(type_):
    algorithm = Grpo(settings(type_, beta=0.0, thinking_gradient_weight=0.5))
    made = make_updater(
        make_model(), algorithm, None, full_finetuning=True, temperature=1.0, micro_batch_tokens=25, budget_tokens=9
    )
    report = made.update(rows())
    assert report["loss/thinking"] + report["loss/answer"] == pytest.approx(report["loss"], abs=1e-6)
    assert min(abs(report["loss/thinking"]), abs(report["loss/answer"])) > 1e-3


@pytest.mark.parametrize("off_policy", [False, True])
def test_the_split_changes_no_metric_where_a_region_has_no_weight(off_policy):
    """A row that is all thinking is in the loss, and in every mean, though nothing learns from it."""
    config = settings(beta=0.1 if off_policy else 0.0, thinking_gradient_weight=0.0)
    batch = replace(rows(off_policy), sampler_logprobs=None)
    reports = []
    for tokens in (1, 10_000):
        made = make_updater(
            make_model(),
            Grpo(config),
            None,
            full_finetuning=True,
            temperature=1.0,
            micro_batch_tokens=tokens,
            budget_tokens=9,
        )
        reports.append({n: v for n, v in made.update(batch).items() if "second" not in n})
    assert reports[0] == pytest.approx(reports[1], rel=1e-4, abs=1e-6)
