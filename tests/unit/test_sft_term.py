"""The supervised term: which leaves it moves in every cell of the layer table, and by how much."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.models.llama import Model, ModelArgs

from pipelines.algorithms.grpo import Grpo
from pipelines.config import TrainerConfig
from pipelines.models import tiny
from pipelines.models.leaves import leaves
from pipelines.training.assembly import make_updater
from pipelines.training.sequences import Sequences

LAYERS, VOCABULARY, WEIGHT = 6, 40, 0.3
THINKING, ANSWER = range(1, 4), range(3, 5)
CELLS = {0: "outside", 1: "thinking only", 2: "thinking only", 3: "overlap", 4: "answer only", 5: "outside"}
RANGES = {
    "use_dual_gradients": True,
    "thinking_layer_start": 1,
    "thinking_layer_end": 3,
    "answer_layer_start": 3,
    "answer_layer_end": 4,
    "use_sft_on_answer": True,
    "sft_weight": WEIGHT,
    "sft_thinking_weight": 0.7,
    "sft_answer_weight": 2.0,
    "grad_clip_norm": 0.0,
    "learning_rate": 1e-3,
}
THINK = WEIGHT * 0.7
SAY = WEIGHT * 2.0
TABLE = {
    # mode: what dCE_think and dCE_answer are multiplied by in each cell
    "all": {"outside": (0, WEIGHT), "thinking only": (0, WEIGHT), "overlap": (0, WEIGHT), "answer only": (0, WEIGHT)},
    "answer_only": {"overlap": (0, WEIGHT), "answer only": (0, WEIGHT)},
    "exclude_thinking": {"outside": (0, WEIGHT), "answer only": (0, WEIGHT)},
    "weighted": {"thinking only": (THINK, 0), "overlap": (THINK, SAY), "answer only": (0, SAY)},
}
NON_LAYER = {"all": (0, WEIGHT), "answer_only": (0, WEIGHT), "exclude_thinking": (0, WEIGHT), "weighted": (THINK, SAY)}


def make_model():
    arguments = tiny.config() | {"num_hidden_layers": LAYERS, "hidden_size": 32, "intermediate_size": 48}
    arguments |= {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": VOCABULARY}
    model = Model(ModelArgs.from_dict(arguments))
    mx.random.seed(3)
    model.update(tree_map(lambda w: w if w.ndim == 1 else 0.3 * mx.random.normal(w.shape), model.parameters()))
    model.eval()
    return model


def references(mode="weighted"):
    rng = np.random.default_rng(5)
    lengths, thinking = [6, 4, 7], np.array([3, 1, 4])
    completions = [rng.integers(0, VOCABULARY, length) for length in lengths]
    return Sequences(
        prompts=[rng.integers(0, VOCABULARY, n) for n in (2, 4, 1)],
        completions=completions,
        advantages=np.ones(3, np.float32),
        silent=np.zeros(3, bool),
        thinking=thinking,
        inactive=None if mode == "weighted" else [np.arange(n) < t for n, t in zip(lengths, thinking, strict=True)],
    )


def nothing():
    """An update whose groups were all dropped."""
    return Sequences([], [], np.zeros(0, np.float32), np.zeros(0, bool))


def make(mode, micro_batch_tokens=10_000, temperature=1.0, **changes):
    config = TrainerConfig(**(RANGES | {"sft_mode": mode} | changes))
    return make_updater(
        make_model(),
        Grpo(config),
        None,
        full_finetuning=True,
        temperature=temperature,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=9,
    )


def cross_entropy(region):
    """Mean over the region's tokens, and its gradient, written down anew."""
    model, rows = make_model(), references()
    counted = [row.astype(bool) for row in (rows.region(0), rows.region(1), rows.region(2))]
    counted = counted if region == "thinking" else [~row for row in counted]

    def loss(_):
        total = mx.array(0.0)
        for prompt, completion, mask in zip(rows.prompts, rows.completions, counted, strict=True):
            logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0]
            logits = logits[len(prompt) - 1 : -1]
            picked = nn.losses.cross_entropy(logits, mx.array(completion), reduction="none")
            total = total + (picked * mx.array(mask)).sum()
        return total / sum(int(mask.sum()) for mask in counted)

    value, found = nn.value_and_grad(model, loss)(None)
    return float(value), leaves(found)


THINKING_LOSS, THINKING_GRADIENT = cross_entropy("thinking")
ANSWER_LOSS, ANSWER_GRADIENT = cross_entropy("answer")


def cell(name):
    return CELLS[int(name.split(".")[2])] if ".layers." in name else "non-layer"


def gradients(updater):
    """What the optimizer was given: with bias correction off the table, (1 - beta1) of it is Adam's first moment."""
    moments = {name: leaf for name, leaf in leaves(updater.optimizer.adam.state).items() if name.endswith(".m")}
    return {name.removesuffix(".m"): leaf / (1 - 0.9) for name, leaf in moments.items()}


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("mode", TABLE)
@pytest.mark.parametrize("micro_batch_tokens", [8, 10_000])
def test_every_cell_of_the_layer_table(mode, others, micro_batch_tokens):
    made = make(mode, micro_batch_tokens, dual_train_other_params=others)
    before = leaves(made.policy.model.parameters())
    made.update(nothing(), references(mode))
    after, found = leaves(made.policy.model.parameters()), gradients(made)
    table = TABLE[mode] | ({"non-layer": NON_LAYER[mode]} if others else {})
    for name, start in before.items():
        think, say = table.get(cell(name), (0, 0))
        moved = not mx.array_equal(start, after[name]).item()
        assert moved == bool(think or say), (name, cell(name))
        if moved:
            expected = think * THINKING_GRADIENT[name] + say * ANSWER_GRADIENT[name]
            scale = float(mx.abs(expected).max())
            np.testing.assert_allclose(np.array(found[name]), np.array(expected), rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("mode", TABLE)
def test_the_reported_losses(mode):
    report = make(mode, micro_batch_tokens=8).update(nothing(), references(mode))
    expected = 0.7 * THINKING_LOSS + 2 * ANSWER_LOSS if mode == "weighted" else ANSWER_LOSS
    assert report["sft_loss"] == pytest.approx(expected, rel=1e-5)
    assert report["sft_loss/answer"] == pytest.approx(ANSWER_LOSS, rel=1e-5)
    assert report["loss"] == pytest.approx(WEIGHT * expected, rel=1e-5)
    if mode == "weighted":
        assert report["sft_loss/thinking"] == pytest.approx(THINKING_LOSS, rel=1e-5)


@pytest.mark.parametrize("micro_batch_tokens", [1, 10_000])
def test_a_region_without_weight_has_no_loss(micro_batch_tokens):
    """Its tokens are not scored where a micro-batch has no others, so that what is known of them is no mean."""
    report = make("weighted", micro_batch_tokens, sft_thinking_weight=0.0).update(nothing(), references())
    assert "sft_loss/thinking" not in report
    assert report["sft_loss"] == pytest.approx(2 * ANSWER_LOSS, rel=1e-5)


def test_references_without_a_token_that_has_weight_are_passed_over():
    made = make("weighted", sft_thinking_weight=0.0)
    endless = replace(references(), thinking=np.array([6, 4, 7]))
    report = made.update(rollouts(), endless)
    assert not any(name.startswith("sft_loss") for name in report)
    assert not made.learns(nothing(), endless)


def test_the_reference_is_taught_at_temperature_one_however_completions_are_sampled():
    cold, usual = (make("all", temperature=t).update(nothing(), references("all")) for t in (0.5, 1.0))
    assert cold["sft_loss"] == usual["sft_loss"]


def rollouts():
    rng = np.random.default_rng(8)
    return Sequences(
        prompts=[rng.integers(0, VOCABULARY, 3) for _ in range(4)],
        completions=[rng.integers(0, VOCABULARY, n) for n in (5, 7, 4, 6)],
        advantages=np.array([1.0, -1.0, 0.5, -0.5], np.float32),
        silent=np.zeros(4, bool),
        thinking=np.array([2, 3, 1, 3]),
    )


def test_both_terms_add_up_leaf_by_leaf():
    both, policy, supervised = make("exclude_thinking"), make("exclude_thinking"), make("exclude_thinking")
    report = both.update(rollouts(), references("exclude_thinking"))
    alone = policy.update(rollouts())
    taught = supervised.update(nothing(), references("exclude_thinking"))
    found, first, second = gradients(both), gradients(policy), gradients(supervised)
    for name, leaf in found.items():
        np.testing.assert_allclose(np.array(leaf), np.array(first[name] + second[name]), rtol=1e-4, atol=1e-7)
    assert report["loss"] == pytest.approx(alone["loss"] + taught["loss"], rel=1e-5)
    assert {cell(name) for name in found} == {"outside", "thinking only", "overlap", "answer only"}


def test_the_policy_term_alone_moves_only_its_ranges():
    made = make("exclude_thinking")
    before = leaves(made.policy.model.parameters())
    made.update(rollouts())
    after = leaves(made.policy.model.parameters())
    moved = {cell(name) for name in before if not mx.array_equal(before[name], after[name]).item()}
    assert moved == {"thinking only", "overlap", "answer only"}
