"""The repetition penalty and the shifts as one function of the logits: mlx-lm's numbers, and a right gradient."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import make_repetition_penalty

from pipelines.config import GenerationConfig
from pipelines.generation.distribution import RECENT_TOKENS, adjust, last_tokens, recent_tokens
from pipelines.generation.engine import generate
from pipelines.generation.seeds import row_keys
from pipelines.models.load import load

ROWS, VOCABULARY = 7, 30


@pytest.fixture
def logits():
    return 3 * mx.random.normal((ROWS, VOCABULARY), key=mx.random.key(0))


@pytest.fixture
def recent():
    """20 of 30 ids with repetitions: some occur twice, some never."""
    return mx.random.randint(0, VOCABULARY, (ROWS, RECENT_TOKENS), key=mx.random.key(1))


@pytest.mark.parametrize("penalty", [1.3, 0.8, 2.0])
def test_the_penalty_is_mlx_lms_row_by_row(logits, recent, penalty):
    adjusted = adjust(logits, recent=recent, penalty=penalty)
    processor = make_repetition_penalty(penalty)
    for row in range(ROWS):
        expected = processor(recent[row], mx.array(logits[row : row + 1]))[0]
        np.testing.assert_allclose(np.array(adjusted[row]), np.array(expected), rtol=1e-6)
    assert not mx.array_equal(adjusted, logits)


def test_the_gradient_counts_a_repeated_token_once(logits, recent):
    """Against the factors of the definition; mlx-lm's own scatter would double them where a token occurs twice."""
    slope = mx.random.normal(logits.shape, key=mx.random.key(2))
    gradient = mx.grad(lambda x: (adjust(x, recent=recent, penalty=1.5) * slope).sum())(logits)
    occurred = np.array([np.isin(np.arange(VOCABULARY), np.array(row)) for row in recent])
    factors = np.where(occurred, np.where(np.array(logits) < 0, 1.5, 1 / 1.5), 1.0)
    np.testing.assert_allclose(np.array(gradient), factors * np.array(slope), rtol=1e-6)


def test_shifts_come_after_the_penalty_and_add_up(logits, recent):
    ids, values = mx.array([[3, 5, 3]] * ROWS), mx.array([[1.5, -2.0, 0.25]] * ROWS)
    both = adjust(logits, shift_ids=ids, shift_values=values, recent=recent, penalty=1.3)
    expected = np.array(adjust(logits, recent=recent, penalty=1.3))
    expected[:, 3] += 1.75
    expected[:, 5] -= 2.0
    np.testing.assert_allclose(np.array(both), expected, atol=1e-6)
    gradient = mx.grad(lambda x: adjust(x, shift_ids=ids, shift_values=values).sum())(logits)
    assert mx.array_equal(gradient, mx.ones_like(gradient))


def test_nothing_asked_is_nothing_done(logits):
    assert adjust(logits) is logits


@pytest.mark.parametrize("prompt_length", [1, 4, 19, 20, 21, 40])
def test_the_window_is_the_last_twenty_tokens_with_the_prompts_own(prompt_length):
    prompt, completion = np.arange(100, 100 + prompt_length), np.arange(30)
    windows = recent_tokens(prompt, completion)
    assert (windows.shape, windows.dtype) == ((30, RECENT_TOKENS), np.int32)
    for t, window in enumerate(windows.tolist()):
        before = [*prompt.tolist(), *completion[:t].tolist()][-RECENT_TOKENS:]
        assert window[-len(before) :] == before
        assert set(window) == set(before)
    assert last_tokens(prompt).tolist() == windows[0].tolist()
    assert recent_tokens(prompt, completion[:0]).shape == (0, RECENT_TOKENS)


def test_greedy_decoding_with_a_penalty_is_mlx_lms_processor_step_by_step():
    loaded = load("builtin:tiny")
    ids = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "47+38=?"}], add_generation_prompt=True)
    config, processor = GenerationConfig(temperature=0, repetition_penalty=4.0), make_repetition_penalty(4.0)
    asked = {"group_size": 1, "eos_ids": frozenset(), "max_tokens": 16, "seeds": row_keys(0, "test", 0, [0], 1)}
    completion = generate(loaded.model, [np.array(ids, np.int32)], sampling=config, **asked).completion(0).tolist()
    expected = list(ids)
    for _ in range(16):
        logits = processor(mx.array(expected), loaded.model(mx.array([expected]))[:, -1])
        expected.append(mx.argmax(logits, axis=-1).item())
    assert completion == expected[len(ids) :]
    plain = generate(loaded.model, [np.array(ids, np.int32)], sampling=GenerationConfig(temperature=0), **asked)
    assert completion != plain.completion(0).tolist()
