"""Rollouts against the model itself: log-probabilities of a full forward, argmax decoding, stopping, keys."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import qwen3

from pipelines.config import GenerationConfig
from pipelines.errors import DataError
from pipelines.generation import decoder
from pipelines.generation.controls import Steering
from pipelines.generation.engine import generate
from pipelines.generation.rollouts import Rollouts
from pipelines.generation.seeds import row_key, row_keys
from pipelines.models.load import load
from pipelines.models.logprobs import completion_logprobs, split_head

VOCABULARY = 40
EOS = frozenset({3, 11, 19, 27, 35})
PROMPTS = [np.array(ids, np.int32) for ids in ([5, 6, 7, 8, 9, 10, 12, 13, 14], [4], [30, 31, 32], [1, 2])]
KEYS = row_keys(0, "rollout", 1, range(len(PROMPTS)), 4)
SAMPLINGS = {
    "plain": GenerationConfig(),
    "cool": GenerationConfig(temperature=0.7),
    "top_p": GenerationConfig(top_p=0.6),
    "top_k": GenerationConfig(temperature=0.7, top_k=3),
    "min_p": GenerationConfig(temperature=1.3, min_p=0.3),
    "all": GenerationConfig(temperature=0.8, top_p=0.9, top_k=8, min_p=0.1),
}
samplings = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)


@pytest.fixture(scope="module")
def model():
    """Two layers of qwen3 with grouped heads and uneven logits; its head is not tied."""
    arguments = qwen3.ModelArgs(
        model_type="qwen3",
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    mx.random.seed(0)
    model = qwen3.Model(arguments)
    model.lm_head.weight = 3 * model.lm_head.weight
    model.eval()
    return model


@pytest.fixture(scope="module")
def tiny():
    return load("builtin:tiny")


def roll_out(model, prompts=PROMPTS, *, keys=KEYS, sampling=SAMPLINGS["plain"], eos_ids=EOS, max_tokens=24) -> Rollouts:
    return generate(
        model,
        prompts,
        group_size=len(keys) // len(prompts),
        sampling=sampling,
        eos_ids=eos_ids,
        max_tokens=max_tokens,
        seeds=keys,
    )


def assert_same_row(one: Rollouts, i: int, other: Rollouts, j: int) -> None:
    np.testing.assert_array_equal(one.completion(i), other.completion(j))
    assert one.finish_reasons[i] == other.finish_reasons[j]
    n = one.lengths[i]
    np.testing.assert_allclose(one.logprobs[i, :n], other.logprobs[j, :n], atol=1e-5)


def assert_same(one: Rollouts, other: Rollouts) -> None:
    assert len(one.lengths) == len(other.lengths)
    for row in range(len(one.lengths)):
        assert_same_row(one, row, other, row)


def full_forward(model, rollouts: Rollouts, row: int, temperature: float) -> np.ndarray:
    """Log-softmax in float64 of one unpadded pass without a cache, at the row's completion tokens."""
    prompt, completion = rollouts.prompt(row), rollouts.completion(row)
    logits = np.array(model(mx.array(np.concatenate([prompt, completion]))[None]))[0].astype(np.float64) / temperature
    logits = logits[len(prompt) - 1 : -1]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs[np.arange(len(completion)), completion]


@samplings
def test_recorded_logprobs_are_those_of_a_full_forward(model, sampling):
    rollouts = roll_out(model, sampling=sampling)
    assert len(set(rollouts.lengths.tolist())) > 3, "rows must end at different places for this to prove anything"
    for row, length in enumerate(rollouts.lengths):
        expected = full_forward(model, rollouts, row, sampling.temperature)
        np.testing.assert_allclose(rollouts.logprobs[row, :length], expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logprobs_are_those_the_trainer_computes(tiny, temperature):
    tokenizer = tiny.tokenizer
    prompts = [
        np.array(
            tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True), np.int32
        )
        for text in ("What is 12 + 30?", "2 + 2", "What is 99 * 9? Think first.")
    ]
    keys = row_keys(7, "rollout", 3, range(3), 4)
    sampling = GenerationConfig(temperature=temperature)
    rollouts = roll_out(tiny.model, prompts, keys=keys, sampling=sampling, eos_ids=tiny.eos_ids, max_tokens=48)
    sequences = [np.concatenate([rollouts.prompt(n), rollouts.completion(n)]) for n in range(12)]
    tokens = np.zeros((12, max(map(len, sequences))), np.int32)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
    starts = mx.array([len(rollouts.prompt(n)) for n in range(12)])
    scored = completion_logprobs(
        split_head(tiny.model), mx.array(tokens), starts, mx.array(rollouts.tokens), temperature
    )
    # Of a trained model both are up to 4e-5 away from a float64 forward; the random one above keeps to 1e-5.
    inside = np.arange(rollouts.tokens.shape[1])[None] < rollouts.lengths[:, None]
    np.testing.assert_allclose(np.array(scored.logprobs)[inside], rollouts.logprobs[inside], atol=1e-4)


@samplings
def test_prompts_of_unequal_length_change_nothing(model, sampling):
    together = roll_out(model, sampling=sampling)
    for row in range(len(KEYS)):
        alone = roll_out(model, [together.prompt(row)], keys=KEYS[row : row + 1], sampling=sampling)
        assert_same_row(together, row, alone, 0)


def test_a_sample_depends_on_its_key_only(model):
    together = roll_out(model)
    backwards = roll_out(model, PROMPTS[::-1], keys=KEYS.reshape(4, 4, 2)[::-1].reshape(-1, 2))
    pairs = roll_out(model, [prompt for prompt in PROMPTS for _ in range(2)], keys=KEYS)
    for prompt in range(4):
        for sample in range(4):
            assert_same_row(together, 4 * prompt + sample, backwards, 4 * (3 - prompt) + sample)
            assert_same_row(together, 4 * prompt + sample, pairs, 4 * prompt + sample)


def test_the_samples_of_a_group_differ_and_equal_keys_are_equal(model):
    rollouts = roll_out(model)
    for group in range(4):
        assert len({rollouts.completion(4 * group + sample).tobytes() for sample in range(4)}) == 4
    twice = roll_out(model, [PROMPTS[0]], keys=KEYS[[0, 0, 1]])
    assert_same_row(twice, 0, twice, 1)
    assert twice.completion(0).tobytes() != twice.completion(2).tobytes()


@pytest.mark.parametrize("other", [(1, "rollout", 1, 0, 0), (0, "eval", 1, 0, 0), (0, "rollout", 2, 0, 0)])
def test_seed_purpose_and_step_are_part_of_the_key(model, other):
    assert not np.array_equal(
        roll_out(model, [PROMPTS[0]], keys=KEYS[:1]).completion(0),
        roll_out(model, [PROMPTS[0]], keys=np.array([row_key(*other)], np.uint32)).completion(0),
    )


def test_row_keys_stand_group_by_group():
    keys = row_keys(5, "rollout", 9, [30, 4], 2)
    assert keys.dtype == np.uint32
    assert [tuple(key) for key in keys.tolist()] == [row_key(5, "rollout", 9, p, g) for p in (30, 4) for g in (0, 1)]
    assert row_keys(5, "rollout", 9, [], 2).shape == (0, 2)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 15, 16, 99])
def test_rows_decoded_at_once_change_nothing(model, rows):
    assert_same(roll_out(model), roll_out(model, sampling=GenerationConfig(rollout_batch_size=rows)))


@pytest.mark.parametrize("check_every", [1, 3, 5, 24, 100])
def test_when_finished_rows_leave_the_batch_changes_nothing(model, monkeypatch, check_every):
    usual = roll_out(model)
    assert np.sort(usual.lengths)[8] < 20, "most rows must leave early"
    monkeypatch.setattr(decoder, "CHECK_EVERY", check_every)
    assert_same(usual, roll_out(model))


def test_greedy_is_argmax_decoding_without_a_cache(model):
    rollouts = roll_out(
        model, keys=KEYS[::4], sampling=GenerationConfig(temperature=0), eos_ids=frozenset(), max_tokens=12
    )
    for row, prompt in enumerate(PROMPTS):
        ids = prompt.tolist()
        for _ in range(12):
            ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1]).item()))
        assert rollouts.completion(row).tolist() == ids[len(prompt) :]
        np.testing.assert_allclose(rollouts.logprobs[row], full_forward(model, rollouts, row, 1.0), atol=1e-5)


def test_greedy_is_what_mlx_lm_generates(tiny):
    from mlx_lm import generate as mlx_lm_generate

    for text in ("What is 12 + 30?", "What is 7 * 8?"):
        ids = tiny.tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        expected = mlx_lm_generate(tiny.model, tiny.tokenizer, ids, max_tokens=40)
        rollouts = roll_out(
            tiny.model,
            [np.array(ids, np.int32)],
            keys=KEYS[:1],
            sampling=GenerationConfig(temperature=0),
            eos_ids=tiny.eos_ids,
            max_tokens=40,
        )
        completion = rollouts.completion(0).tolist()
        if rollouts.finish_reasons == ["stop"]:
            assert completion.pop() in tiny.eos_ids
        assert tiny.tokenizer.decode(completion) == expected


def test_rows_stop_at_any_of_the_eos_ids(model):
    free = roll_out(model, eos_ids=frozenset())
    assert set(free.finish_reasons) == {"length"}
    assert free.lengths.tolist() == [24] * 16
    rollouts = roll_out(model)
    last = {int(rollouts.completion(row)[-1]) for row in range(16) if rollouts.finish_reasons[row] == "stop"}
    assert len(last) > 2, "several of the ids must have ended a row for this to prove anything"
    for row in range(16):
        ends = np.flatnonzero(np.isin(free.tokens[row], list(EOS)))
        length = ends[0] + 1 if ends.size else 24
        assert rollouts.lengths[row] == length
        assert rollouts.finish_reasons[row] == ("stop" if ends.size else "length")
        np.testing.assert_array_equal(rollouts.completion(row), free.tokens[row, :length])
        np.testing.assert_allclose(rollouts.logprobs[row, :length], free.logprobs[row, :length], atol=1e-5)
        assert np.all(rollouts.logprobs[row, :length] < 0), "the end of text has a log-probability too"


def test_nothing_stands_after_the_end(model):
    rollouts = roll_out(model)
    after = np.arange(rollouts.tokens.shape[1])[None] >= rollouts.lengths[:, None]
    assert after.any()
    assert not rollouts.tokens[after].any()
    assert not rollouts.logprobs[after].any()
    assert rollouts.tokens.shape == rollouts.logprobs.shape == (16, rollouts.lengths.max())
    assert (rollouts.tokens.dtype, rollouts.logprobs.dtype) == (np.int32, np.float32)


def test_an_eos_id_that_is_also_the_padding_counts(model):
    rollouts = roll_out(model, keys=row_keys(1, "rollout", 1, range(4), 4), eos_ids=frozenset({0, 3}), max_tokens=64)
    ended = [row for row in range(16) if rollouts.completion(row)[-1] == 0]
    assert ended
    for row in ended:
        assert rollouts.finish_reasons[row] == "stop"
        assert rollouts.logprobs[row, rollouts.lengths[row] - 1] < 0
        assert not np.isin(rollouts.completion(row)[:-1], [0, 3]).any()


def test_an_end_at_the_very_last_token_is_a_stop(model):
    free = roll_out(model, [PROMPTS[1]], keys=KEYS[:1], eos_ids=frozenset()).completion(0).tolist()
    new = max(t for t in range(24) if free.index(free[t]) == t)
    assert new > 0
    rollouts = roll_out(model, [PROMPTS[1]], keys=KEYS[:1], eos_ids=frozenset({free[new]}), max_tokens=new + 1)
    assert (rollouts.finish_reasons, rollouts.lengths.tolist()) == (["stop"], [new + 1])


def test_one_token_is_the_first_of_many(model):
    many, one = roll_out(model, eos_ids=frozenset()), roll_out(model, eos_ids=frozenset(), max_tokens=1)
    np.testing.assert_array_equal(one.tokens, many.tokens[:, :1])
    assert one.lengths.tolist() == [1] * 16
    stopped = roll_out(model, eos_ids=frozenset(int(token) for token in one.tokens[:, 0]), max_tokens=1)
    assert set(stopped.finish_reasons) == {"stop"}


@pytest.mark.usefixtures("as_on_a_cpu")
def test_the_model_reads_nothing_that_nobody_asks_for(model):
    """Of the prompt only the last position has logits, and the last token is sampled but not read."""
    read = []

    class Counting:
        training = False
        layers, modules = model.layers, model.modules

        def train(self, mode=False):
            return self

        eval = train

        def __call__(self, tokens, cache):
            read.append(tokens.shape)
            return model(tokens, cache=cache)

    sampling = GenerationConfig(rollout_batch_size=1)
    generate(
        Counting(), PROMPTS[:1], group_size=1, sampling=sampling, eos_ids=frozenset(), max_tokens=5, seeds=KEYS[:1]
    )
    assert read == [(1, 8), (1, 1)] + [(1, 1)] * 4


def test_empty_prompts_and_wrong_seeds_are_refused(model):
    with pytest.raises(DataError, match="without tokens") as caught:
        roll_out(model, [PROMPTS[0], np.array([], np.int32)], keys=KEYS[:2])
    assert caught.value.hint
    for seeds in (KEYS[:3], KEYS[:4, :1], KEYS[:4].astype(np.int64)):
        with pytest.raises(ValueError, match=r"4 rows need uint32 seeds of shape \(4, 2\)"):
            generate(
                model,
                PROMPTS[:2],
                group_size=2,
                sampling=GenerationConfig(),
                eos_ids=EOS,
                max_tokens=2,
                seeds=seeds,
            )


def test_no_prompts_are_no_rollouts(model):
    rollouts = generate(
        model,
        [],
        group_size=4,
        sampling=GenerationConfig(),
        eos_ids=EOS,
        max_tokens=2,
        seeds=np.zeros((0, 2), np.uint32),
    )
    assert (len(rollouts.tokens), rollouts.finish_reasons) == (0, [])


@pytest.mark.parametrize(
    ("narrow", "allowed"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.75}, {0, 1}), ({"min_p": 0.5}, {0, 1}), ({"top_k": 4, "top_p": 0.4}, {0})],
)
def test_what_may_be_drawn_and_with_which_logprob(narrow, allowed):
    """Probabilities 0.5, 0.3, 0.15, 0.05: what is drawn is narrowed, its log-probability is not."""
    from pipelines.generation.sampling import Sampler

    probabilities = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
    logits = mx.array(np.log(np.tile(probabilities, (200, 1))) + 3.0)
    keys = mx.array(row_keys(0, "test", 0, range(200), 1))
    tokens, logprobs = map(np.array, Sampler(GenerationConfig(**narrow))(logits, keys, Steering(), None)[:2])
    assert set(tokens.tolist()) == allowed
    np.testing.assert_allclose(logprobs, np.log(probabilities[tokens]), atol=1e-6)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    from pipelines.generation.sampling import Sampler

    probabilities = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
    tempered = probabilities**2 / (probabilities**2).sum()
    logits = mx.array(np.log(np.tile(probabilities, (4000, 1))))
    keys = mx.array(row_keys(0, "test", 0, range(4000), 1))
    tokens, logprobs = map(np.array, Sampler(GenerationConfig(temperature=0.5))(logits, keys, Steering(), None)[:2])
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 4000, tempered, atol=0.03)
    np.testing.assert_allclose(logprobs, np.log(tempered[tokens]), atol=1e-5)
