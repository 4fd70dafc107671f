"""Rollouts with controls: what is recorded is what was sampled from, whatever shares the batch."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import qwen3

from pipelines import backend
from pipelines.config import GenerationConfig
from pipelines.evaluation.completions import Prompt, complete
from pipelines.generation import decoder, drawing
from pipelines.generation.controls import make_controls
from pipelines.generation.distribution import adjust, recent_tokens
from pipelines.generation.engine import generate
from pipelines.generation.seeds import row_keys
from pipelines.models.load import load
from pipelines.models.logprobs import completion_logprobs, split_head
from pipelines.rows.records import Row

TEXTS = ["a", "b", "<", "</", "think", ">", ">\n", "<answer>", "x", "y", "z", " "]
OPEN, CLOSE, ANSWER, END = [2, 4, 5], [3, 4, 5], [7], 11
PROMPTS = [np.array(ids, np.int32) for ids in ([8, 9, 10, 8, 9], [2, 4, 5], [0, 1, 0, 1, 8, 8, 8, 9, 10] * 3, [3])]
PREOPENED = [False, True, True, False]
KEYS = row_keys(0, "rollout", 1, range(4), 6)
TAGS = {
    "bias_close_think": 1.0,
    "bias_answer_start": 1.5,
    "punish_extra_think_end": -1.0,
    "punish_reopen_think": 0.5,
    "think_end_early_bias": -2.0,
    "min_think_tokens": 3,
    "answer_start_tag": "<answer>",
}
SAMPLINGS = {
    "biases": TAGS,
    "budget": {"max_think_tokens": 4},
    "penalty": {"repetition_penalty": 1.3},
    "stop": {"stop": ("xy", "a\n", "zz")},
    "all": {
        **TAGS,
        "max_think_tokens": 6,
        "repetition_penalty": 1.2,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ("xyz",),
    },
}
samplings = pytest.mark.parametrize("settings", SAMPLINGS.values(), ids=SAMPLINGS)


class Tokenizer:
    def __len__(self):
        return len(TEXTS)

    def encode(self, text, *, add_special_tokens):
        return {"<think>": OPEN, "</think>": CLOSE, "<answer>": ANSWER, "a": [0]}[text]

    def decode(self, ids):
        return "".join([*TEXTS, ""][i] for i in ids)


@pytest.fixture(scope="module")
def model():
    """Two layers that like tokens of tags; its vocabulary is larger than the tokenizer's."""
    arguments = qwen3.ModelArgs(
        model_type="qwen3",
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        vocab_size=len(TEXTS) + 1,
        max_position_embeddings=128,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    mx.random.seed(2)
    model = qwen3.Model(arguments)
    model.eval()
    return model


def roll_out(model, config, prompts=PROMPTS, preopened=PREOPENED, keys=KEYS, *, controlled=True, **more):
    asked = {"eos_ids": frozenset({END}), "max_tokens": 24, **more}
    controls = make_controls(Tokenizer(), config) if controlled else None
    sizes = {"group_size": len(keys) // len(prompts), "seeds": keys}
    return generate(model, prompts, sampling=config, controls=controls, preopened=preopened, **sizes, **asked)


def distribution(model, rollouts, row, config):
    """Log-probabilities [C, V] of a full forward without a cache, adjusted as the trainer adjusts them."""
    prompt, completion, length = rollouts.prompt(row), rollouts.completion(row), rollouts.lengths[row]
    logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
    ids, values = rollouts.shift_ids, rollouts.shift_values
    logits = adjust(
        logits,
        shift_ids=None if ids is None else mx.array(ids[row, :length]),
        shift_values=None if values is None else mx.array(values[row, :length]),
        recent=mx.array(recent_tokens(prompt, completion)) if config.repetition_penalty else None,
        penalty=config.repetition_penalty,
    )
    logits = np.array(logits).astype(np.float64) / config.temperature
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@samplings
def test_a_gpu_is_kept_busy_with_the_same_result(model, settings, monkeypatch):
    """Windows in flight and compiled sampling, tried on whatever device there is."""
    config = GenerationConfig(**settings)
    told: list[int] = []
    monkeypatch.setattr(drawing, "draw", lambda: drawing.on_gpu)
    expected = roll_out(model, config, record_drawn=True)
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    found = roll_out(model, config, record_drawn=True, on_finished=lambda rows, _: told.extend(rows.tolist()))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    assert found.finish_reasons == expected.finish_reasons
    for name in ("logprobs", "drawn_logprobs", "forced", "shift_ids", "shift_values"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert sorted(told) == list(range(len(KEYS)))


@samplings
def test_recorded_logprobs_are_those_of_the_distribution_sampled_from(model, settings):
    config = GenerationConfig(**settings)
    rollouts = roll_out(model, config)
    for row, length in enumerate(rollouts.lengths):
        expected = distribution(model, rollouts, row, config)[np.arange(length), rollouts.completion(row)]
        np.testing.assert_allclose(rollouts.logprobs[row, :length], expected, atol=1e-5)


@samplings
def test_recorded_logprobs_are_those_the_trainer_computes(model, settings):
    """In one padded pass over all rows, at the active tokens only."""
    config = GenerationConfig(**settings)
    rollouts = roll_out(model, config)
    rows, width = rollouts.tokens.shape
    starts = np.array([len(rollouts.prompt(row)) for row in range(rows)])
    tokens, recent = np.zeros((rows, starts.max() + width), np.int32), np.zeros((rows, width, 20), np.int32)
    for row in range(rows):
        prompt, completion = rollouts.prompt(row), rollouts.completion(row)
        tokens[row, : len(prompt) + len(completion)] = np.concatenate([prompt, completion])
        recent[row, : len(completion)] = recent_tokens(prompt, completion)

    def adjusted(logits, cells):
        def at(array):
            return None if array is None else mx.array(array.reshape(rows * width, -1))[cells]

        shifts = {"shift_ids": at(rollouts.shift_ids), "shift_values": at(rollouts.shift_values)}
        return adjust(logits, **shifts, recent=at(recent), penalty=config.repetition_penalty)

    active = np.arange(width)[None] < rollouts.lengths[:, None]
    active &= True if rollouts.forced is None else ~rollouts.forced
    arguments = split_head(model), mx.array(tokens), mx.array(starts), mx.array(rollouts.tokens), config.temperature
    scored = completion_logprobs(*arguments, where=active, adjust=adjusted)
    np.testing.assert_allclose(np.array(scored.logprobs)[active], rollouts.logprobs[active], atol=1e-5)


@samplings
def test_what_is_recorded_is_what_each_row_by_itself_would_get(model, settings):
    """Rows leave the batch at different times, and their states with them."""
    config = GenerationConfig(**settings)
    controls, rollouts = make_controls(Tokenizer(), config), roll_out(model, config)
    assert len(set(rollouts.lengths.tolist())) > 3
    for row in range(len(KEYS)) if controls else ():
        state = controls.start([PREOPENED[row // 6]])
        for t, token in enumerate(rollouts.completion(row).tolist()):
            steering = controls.steer(state)
            for name in ("shift_ids", "shift_values"):
                recorded, expected = getattr(rollouts, name), getattr(steering, name)
                assert (recorded is None) == (expected is None)
                if expected is not None:
                    np.testing.assert_array_equal(recorded[row, t], np.array(expected)[0])
            assert (rollouts.forced is None) == (steering.forced_ids is None)
            if steering.forced_ids is not None:
                forced = steering.forced_ids.item()
                assert rollouts.forced[row, t] == (forced >= 0)
                assert forced in (-1, token)
            state, stopped = controls.advance(state, mx.array([token]))
        if stopped.item():
            assert rollouts.finish_reasons[row] == "stop"


def assert_same_row(one, i, other, j):
    np.testing.assert_array_equal(one.completion(i), other.completion(j))
    assert one.finish_reasons[i] == other.finish_reasons[j]
    n = one.lengths[i]
    for name in ("logprobs", "forced", "shift_ids", "shift_values", "drawn_logprobs"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_allclose(left[i, :n], right[j, :n], atol=1e-5)
            assert not left[i, n:].any()


@pytest.mark.parametrize(("width", "check_every"), [(1, 4), (5, 1), (7, 3), (12, 2), (24, 100)])
def test_width_and_compaction_change_nothing(model, monkeypatch, width, check_every):
    usual = roll_out(model, GenerationConfig(**SAMPLINGS["all"]), record_drawn=True)
    monkeypatch.setattr(decoder, "CHECK_EVERY", check_every)
    other = roll_out(model, GenerationConfig(**SAMPLINGS["all"], rollout_batch_size=width), record_drawn=True)
    for row in range(len(KEYS)):
        assert_same_row(usual, row, other, row)


words = st.integers(0, 2**32 - 1)
prompts = st.lists(st.integers(0, 11), min_size=1, max_size=25).map(lambda ids: np.array(ids, np.int32))
rows = st.lists(st.tuples(prompts, st.booleans(), st.tuples(words, words)), min_size=1, max_size=4)


@given(rows=rows, name=st.sampled_from(sorted(SAMPLINGS)), width=st.integers(1, 4), data=st.data())
@settings(max_examples=12)
def test_batch_and_order_change_nothing(model, rows, name, width, data):
    order = data.draw(st.permutations(range(len(rows))))
    config = GenerationConfig(**SAMPLINGS[name])
    asked, opened, keys = map(list, zip(*rows, strict=True))
    one = roll_out(model, config, asked, opened, np.array(keys, np.uint32), max_tokens=9)
    config = GenerationConfig(**SAMPLINGS[name], rollout_batch_size=width)
    shuffled = [[values[i] for i in order] for values in (asked, opened)]
    other = roll_out(model, config, *shuffled, np.array(keys, np.uint32)[order], max_tokens=9)
    for there, here in enumerate(order):
        assert_same_row(one, here, other, there)


def test_a_bias_changes_what_is_sampled(model):
    always = roll_out(model, GenerationConfig(bias_close_think=100.0))
    never = roll_out(model, GenerationConfig(bias_close_think=-100.0))
    for row in range(6, 18):  # the prompts that open thinking
        assert always.completion(row)[:3].tolist() == CLOSE
        assert "</think>" not in Tokenizer().decode(never.completion(row).tolist())


def test_the_budget_closes_thinking_and_forced_tokens_are_marked(model):
    config = GenerationConfig(max_think_tokens=4)
    rollouts = roll_out(model, config, eos_ids=frozenset())
    for row in range(6, 18):
        text = Tokenizer().decode(rollouts.completion(row).tolist())
        before = len([t for t in range(24) if "</think>" not in Tokenizer().decode(rollouts.tokens[row, : t + 1])])
        assert before < 4 + len(CLOSE)
        assert "</think>" in text
        assert rollouts.forced[row].any()
    assert not rollouts.forced[0:6].all(axis=1).any()
    assert not rollouts.forced[:, 0].any()


def test_without_controls_nothing_is_recorded_or_done(model):
    plain = roll_out(model, GenerationConfig(), controlled=False)
    assert (plain.forced, plain.shift_ids, plain.shift_values, plain.drawn_logprobs) == (None,) * 4
    ignored = roll_out(model, GenerationConfig(**TAGS, max_think_tokens=4, stop=("x",)), controlled=False)
    for row in range(len(KEYS)):
        assert_same_row(plain, row, ignored, row)


def test_a_penalty_of_one_is_none(model):
    plain, one = roll_out(model, GenerationConfig()), roll_out(model, GenerationConfig(repetition_penalty=1.0))
    for row in range(len(KEYS)):
        assert_same_row(plain, row, one, row)


def test_a_stop_text_ends_a_row_and_stays_in_it(model):
    config = GenerationConfig(stop=("xy", "k>", "yy"))
    endless = {"eos_ids": frozenset(), "max_tokens": 48}
    free, rollouts = roll_out(model, GenerationConfig(), **endless), roll_out(model, config, **endless)
    ended_by = set()
    for row in range(len(KEYS)):
        ids = free.completion(row).tolist()
        hits = [(n, s) for n in range(1, len(ids) + 1) for s in config.stop if s in Tokenizer().decode(ids[:n])]
        length = hits[0][0] if hits else len(ids)
        assert rollouts.completion(row).tolist() == ids[:length]
        assert rollouts.finish_reasons[row] == ("stop" if hits else free.finish_reasons[row])
        ended_by |= {hits[0][1]} if hits else set()
    assert ended_by == set(config.stop), "each must have ended a row for this to prove anything"


@pytest.mark.parametrize("narrow", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.5}, {"top_k": 5, "temperature": 0.7}])
def test_logprobs_after_narrowing_are_recorded_if_asked(model, narrow):
    config = GenerationConfig(**TAGS, **narrow, max_think_tokens=4)
    rollouts = roll_out(model, config, record_drawn=True)
    for row, length in enumerate(rollouts.lengths):
        full = np.exp(distribution(model, rollouts, row, config))
        chosen, drawn = rollouts.completion(row), np.exp(rollouts.drawn_logprobs[row, :length])
        kept = np.array([p.sum(where=narrowed(p, config)) for p in full])
        expected = full[np.arange(length), chosen] / np.where(rollouts.forced[row, :length], 1.0, kept)
        np.testing.assert_allclose(drawn, expected, atol=1e-5)


def narrowed(p, config):
    """Which tokens may be drawn from probabilities `[V]`."""
    order = np.argsort(-p)
    if config.top_k:
        return np.isin(np.arange(p.size), order[: config.top_k])
    if config.min_p:
        return p >= config.min_p * p.max()
    before = np.cumsum(p[order]) - p[order]
    return np.isin(np.arange(p.size), order[before < config.top_p])


def test_evaluation_and_samples_are_steered_too():
    loaded = load("builtin:tiny")
    text = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "47+38=?"}], add_generation_prompt=True)
    open_tag, close_tag = loaded.tokenizer.encode("<think></think>", add_special_tokens=False)
    prompt = Prompt(0, np.array(text, np.int32), False, Row(prompt="47+38=?", completion="", source="here:1"))
    asked = {"group_size": 3, "max_tokens": 24, "seed": 0, "purpose": "test"}
    config = GenerationConfig(max_think_tokens=2)
    (completed,) = complete(loaded, [prompt], config, **asked)
    assert [context.thinking_tokens for context in completed.contexts] == [2, 2, 2]
    assert completed.rollouts.tokens[:, [0, 3]].tolist() == [[open_tag, close_tag]] * 3
    opened = Prompt(0, np.array([*text, open_tag], np.int32), True, prompt.row)
    (completed,) = complete(loaded, [opened], config, **asked)
    assert completed.rollouts.tokens[:, 2].tolist() == [close_tag] * 3
