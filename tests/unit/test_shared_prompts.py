"""Prompts computed once for their whole group: hidden states, gradients and scores are those of whole rows."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models import gemma2, gemma3_text, llama
from mlx_lm.models.cache import BatchKVCache

from pipelines import backend
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.ppo import Ppo
from pipelines.config import LossConfig, ModelConfig, TrainerConfig
from pipelines.models.layers import LayerStack
from pipelines.models.logprobs import split_head
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.prefix import copied
from pipelines.training.assembly import make_updater
from pipelines.training.micro_batches import micro_batches
from pipelines.training.reference import Reference
from pipelines.training.sequences import Sequences

LAYERS, VOCABULARY, LONGEST = 4, 40, 7
DUAL = {
    "use_dual_gradients": True,
    "thinking_layer_start": 1,
    "thinking_layer_end": 2,
    "answer_layer_start": 2,
    "answer_layer_end": 3,
}


def make_model(*, lora=False):
    mx.random.seed(0)
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=LAYERS,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
            rope_theta=10_000.0,
        )
    )
    if lora:
        apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_layers=-1), 0)
        for number, (_, module) in enumerate(lora_modules(model)):
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    model.eval()
    return model


def make_rows(prompt_lengths=(9, 12, 3), group=4, seed=1):
    """Groups of unequal prompts; completions of unequal length, some rows silent, some tokens forced."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, VOCABULARY, length) for length in prompt_lengths]
    rows = len(prompts) * group
    lengths = rng.integers(3, LONGEST + 1, rows)
    return Sequences(
        prompts=[prompts[row // group] for row in range(rows)],
        completions=[rng.integers(0, VOCABULARY, length) for length in lengths],
        advantages=rng.normal(0, 1, rows).astype(np.float32),
        silent=np.arange(rows) == 5,
        thinking=rng.integers(0, 4, rows),
        inactive=[np.arange(length) == 1 for length in lengths],
    )


def learn(model, sequences, *, shares, algorithm=Grpo, tokens=60, references=None, full=True, **changes):
    """The updater after one update, and what the update said."""
    loss = LossConfig(type="dapo", entropy_coef=0.02)
    config = TrainerConfig(loss=loss, learning_rate=1e-3, grpo_beta=0.1, **changes)
    made = make_updater(
        model,
        algorithm(config),
        Reference(make_model(), shares_base=False),
        full_finetuning=full,
        temperature=0.8,
        micro_batch_tokens=tokens,
        budget_tokens=LONGEST,
    )
    assert made.policy.stack.shares
    made.policy.stack.shares = shares
    metrics = made.update(sequences, references)
    return made, {name: value for name, value in metrics.items() if "second" not in name}


def assert_same(one, other, start):
    """Weights moved by the same amounts, up to rounding that Adam's first step makes larger."""
    (made, metrics), (expected, of_whole_rows) = one, other
    assert metrics.keys() == of_whole_rows.keys()
    for name, value in of_whole_rows.items():
        assert metrics[name] == pytest.approx(value, rel=2e-4, abs=2e-6), name
    before = dict(tree_flatten(start.trainable_parameters()))
    whole = dict(tree_flatten(expected.policy.model.trainable_parameters()))
    for name, leaf in tree_flatten(made.policy.model.trainable_parameters()):
        moved, wanted = np.array(leaf - before[name]), np.array(whole[name] - before[name])
        assert np.abs(moved - wanted).mean() < 1e-2 * np.abs(wanted).mean() + 1e-9, name


@pytest.mark.usefixtures("as_on_a_cpu")
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"lora": True},
        {"changes": DUAL},
        {"algorithm": Ppo},
        {"changes": {"num_iterations": 2}},
        {"tokens": 10_000},
        {"tokens": 20},
        {"tokens": 1},
        {"references": make_rows((9, 4), 2, seed=2), "changes": {"use_sft_on_answer": True, "sft_mode": "weighted"}},
    ],
    ids=[
        "full",
        "adapters",
        "dual gradients",
        "values",
        "iterations",
        "one micro-batch",
        "split groups",
        "row by row",
        "references",
    ],
)
@pytest.mark.parametrize("layers", ["kept", "recorded", "compiled for CUDA"])
def test_an_update_is_that_of_whole_rows(case, layers, monkeypatch):
    """And of layers that keep everything: others are gone back through one by one."""
    lora, changes = case.get("lora", False), case.get("changes", {})
    rest = {name: value for name, value in case.items() if name not in ("lora", "changes")}
    other = learn(make_model(lora=lora), make_rows(), shares=False, full=not lora, **rest, **changes)
    if layers == "compiled for CUDA":
        monkeypatch.setattr(backend, "on_gpu", lambda: True)
        monkeypatch.setattr(backend, "on_cuda", lambda: True)
    changes = changes | {"grad_checkpoint": layers == "recorded"}
    one = learn(make_model(lora=lora), make_rows(), shares=True, full=not lora, **rest, **changes)
    assert one[0].policy.stack.chains == (layers != "kept")
    assert_same(one, other, make_model(lora=lora))


@pytest.mark.usefixtures("as_on_a_cpu")
def test_prompts_are_really_shared(monkeypatch):
    """Of 12 rows with 3 prompts the model reads 3 beginnings."""
    seen = []
    run = LayerStack.run

    def watched(self, tokens, *, prefix=None, **more):
        seen.append((tokens.shape[0], None if prefix is None else prefix.tokens.shape))
        return run(self, tokens, prefix=prefix, **more)

    monkeypatch.setattr(LayerStack, "run", watched)
    learn(make_model(), make_rows(), shares=True, tokens=10_000)
    assert seen[-2:] == [(11, (3, 11))] * 2  # the reference's pass and the one that learns; one row is silent


@given(
    prompts=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    group=st.integers(1, 5),
    most=st.integers(1, 200),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_micro_batches_hold_every_active_row_once_and_few_tokens(prompts, group, most, seed):
    sequences = make_rows(prompts, group, seed)
    rows = [row for row in range(len(sequences)) if sequences.active(row).any()]
    apart, shared = (micro_batches(sequences, most, may_share=may) for may in (False, True))
    for batches in (apart, shared):
        assert sorted(row for batch in batches for row in batch.rows) == rows
        for batch in batches:
            assert len(batch.rows) == 1 or tokens_of(sequences, batch) <= most
    assert not any(batch.shared for batch in apart)
    assert sum(tokens_of(sequences, batch) for batch in shared) <= sum(tokens_of(sequences, batch) for batch in apart)
    assert len({batch.shared for batch in shared}) <= 1
    if any(len(sequences.prompts[row]) == 1 for row in rows):
        assert not any(batch.shared for batch in shared), "of such a prompt nothing comes before its last token"


def tokens_of(sequences, batch):
    """Of the arrays that the model is really given."""
    made = sequences.batch(batch.rows, shared=batch.shared)
    return made.tokens.size + (made.prefix.tokens.size if batch.shared else 0)


def test_groups_whose_completions_differ_much_are_not_kept_together():
    """Sorted by length there is no padding; a group holds one long row and three short ones."""
    lengths = [40, 2, 2, 2] * 4
    prompts = [np.full(3, number) for number in range(4)]
    sequences = Sequences(
        prompts=[prompts[row // 4] for row in range(16)],
        completions=[np.zeros(length, int) for length in lengths],
        advantages=np.ones(16, np.float32),
        silent=np.zeros(16, bool),
    )
    assert not any(batch.shared for batch in micro_batches(sequences, 180, may_share=True))


@pytest.mark.usefixtures("as_on_a_cpu")
def test_a_batch_begins_with_the_last_token_of_each_prompt():
    sequences = make_rows((3, 2), 2)
    batch = sequences.batch(np.array([2, 0, 1]), shared=True)
    short, long = sequences.prompts[2], sequences.prompts[0]
    assert batch.prefix.tokens.tolist() == [[0, short[0]], [*long[:2]]]
    assert batch.prefix.padding == (1, 0)
    assert batch.prefix.members.tolist() == [0, 1, 1]
    assert batch.tokens[:, 0].tolist() == [short[-1], long[-1], long[-1]]
    assert batch.starts.tolist() == [1, 1, 1]


@pytest.mark.usefixtures("as_on_a_cpu")
def test_groups_of_equal_prompts_share_one_beginning():
    one, other = make_rows((6,), 3, seed=1), make_rows((6,), 3, seed=2)
    sequences = replace(
        one,
        prompts=[each.copy() for each in one.prompts] + [other.prompts[0], *one.prompts[1:]],
        completions=one.completions + other.completions,
        silent=np.zeros(6, bool),
    )
    sequences = replace(sequences, advantages=np.ones(6, np.float32), thinking=None, inactive=None)
    prefix = sequences.batch(np.arange(6), shared=True).prefix
    assert (prefix.tokens.shape, prefix.members.tolist()) == ((2, 5), [0, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_rows_get_the_keys_and_values_of_their_prompts(on_gpu, dtype, monkeypatch):
    """And hand their gradients back to them: the third prompt, which no row continues, gets none."""
    monkeypatch.setattr(backend, "on_gpu", lambda: on_gpu)
    padding, members = [0, 1, 2, 3], [3, 0, 0, 1, 3, 0]
    keys, values = mx.random.normal((2, 4, 2, 5, 3), key=mx.random.key(0)).astype(dtype)
    weights = mx.random.normal((2, 6, 2, 5, 3), key=mx.random.key(1)).astype(dtype)

    def handed_out(keys, values):
        cache = BatchKVCache(padding)
        cache.update_and_fetch(keys, values)
        (one, other) = copied([cache, cache], mx.array(members))
        assert one is other
        assert (one.left_padding.tolist(), one.offset.tolist()) == ([3, 0, 0, 1, 3, 0], [2, 5, 5, 4, 2, 5])
        return one.keys_and_values()

    def weighed(*given):
        return sum((weight * each).sum() for weight, each in zip(weights, handed_out(*given), strict=True))

    for found, each in zip(handed_out(keys, values), (keys, values), strict=True):
        assert found.dtype == dtype
        assert mx.array_equal(found, mx.stack([each[member] for member in members]))
    for found, weight in zip(mx.grad(weighed, argnums=(0, 1))(keys, values), weights, strict=True):
        for prompt in range(4):
            rows = [weight[row].astype(mx.float32) for row, member in enumerate(members) if member == prompt]
            np.testing.assert_allclose(
                found[prompt].astype(mx.float32), sum(rows, mx.zeros((2, 5, 3))), rtol=2e-2, atol=2e-2
            )


def test_where_prompts_are_not_shared():
    """Sliding windows, and masks that a model misreads."""
    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
    small |= {"head_dim": 8, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5}
    window = {"model_type": "gemma3_text", "num_key_value_heads": 1, "sliding_window": 8, "sliding_window_pattern": 2}
    misread = {"model_type": "gemma2", "num_key_value_heads": 2}
    sliding = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(small | window))
    misreading = gemma2.Model(gemma2.ModelArgs.from_dict(small | misread))
    for model in (sliding, misreading):
        assert not LayerStack(model, split_head(model)).shares
    model = make_model()
    assert LayerStack(model, split_head(model)).shares
