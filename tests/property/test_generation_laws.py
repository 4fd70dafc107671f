"""Laws of rollouts: whatever the batch, its order and its width, a key and a prompt give one sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import GenerationConfig
from pipelines.generation import engine
from pipelines.generation.seeds import row_key, row_keys
from pipelines.models.load import load

words = st.integers(0, 2**32 - 1)
prompts = st.lists(st.integers(8, 103), min_size=1, max_size=12).map(lambda ids: np.array(ids, np.int32))
rows = st.lists(st.tuples(prompts, st.tuples(words, words)), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def model():
    return load("builtin:tiny").model


def sample(model, asked, keys, eos_ids, **sampling):
    return engine.generate(
        model,
        asked,
        group_size=len(keys) // len(asked),
        sampling=GenerationConfig(**sampling),
        eos_ids=eos_ids,
        max_tokens=9,
        seeds=np.array(keys, np.uint32),
    )


@given(rows=rows, eos_ids=st.frozensets(st.integers(0, 103), max_size=60), width=st.integers(1, 6), data=st.data())
@settings(max_examples=15)
def test_batch_order_and_width_change_nothing(model, rows, eos_ids, width, data):
    order = data.draw(st.permutations(range(len(rows))))
    asked, keys = zip(*rows, strict=True)
    one = sample(model, list(asked), keys, eos_ids)
    other = sample(model, [asked[i] for i in order], [keys[i] for i in order], eos_ids, rollout_batch_size=width)
    for there, here in enumerate(order):
        np.testing.assert_array_equal(other.completion(there), one.completion(here))
        assert other.finish_reasons[there] == one.finish_reasons[here]
        np.testing.assert_allclose(
            other.logprobs[there, : other.lengths[there]], one.logprobs[here, : one.lengths[here]], atol=1e-4
        )


@given(rows=rows, eos_ids=st.frozensets(st.integers(0, 103), max_size=60))
@settings(max_examples=15)
def test_a_completion_ends_at_its_first_eos_or_at_the_limit(model, rows, eos_ids):
    rollouts = sample(model, [prompt for prompt, _ in rows], [key for _, key in rows], eos_ids)
    for row, reason in enumerate(rollouts.finish_reasons):
        completion = rollouts.completion(row).tolist()
        assert not eos_ids & set(completion[:-1])
        assert reason == ("stop" if completion[-1] in eos_ids else "length")
        assert reason == "stop" or len(completion) == 9
        assert (rollouts.logprobs[row, : len(completion)] <= 0).all()
        assert not rollouts.tokens[row, len(completion) :].any()
        assert not rollouts.logprobs[row, len(completion) :].any()


names = st.tuples(st.integers(0, 2**63), st.sampled_from(["rollout", "eval"]), st.integers(0, 9999), words, words)


@given(one=names, other=names)
def test_keys_of_different_samples_differ(one, other):
    assert (row_key(*one) == row_key(*other)) == (one == other)
    assert all(0 <= word < 2**32 for word in row_key(*one))


@given(seed=words, step=words, asked=st.lists(words, max_size=5), group_size=st.integers(1, 4))
def test_a_larger_group_keeps_the_samples_of_a_smaller_one(seed, step, asked, group_size):
    small = row_keys(seed, "rollout", step, asked, group_size).reshape(-1, group_size, 2)
    large = row_keys(seed, "rollout", step, asked, group_size + 3).reshape(-1, group_size + 3, 2)
    np.testing.assert_array_equal(large[:, :group_size], small)
