"""More rows than decode at a time: those that wait take the places of those that have ended, and nothing changes."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models import gemma3_text, gpt2, granitemoehybrid, llama
from mlx_lm.models.cache import BatchKVCache

from pipelines import backend
from pipelines.config import GenerationConfig
from pipelines.generation import caches, decoder
from pipelines.generation.decoder import Decoder
from pipelines.generation.engine import generate
from pipelines.generation.seeds import row_keys
from pipelines.generation.waiting import Waiting
from pipelines.models.batching import decoding
from pipelines.models.cuda import TiledKVCache
from pipelines.models.tiles import TILE, tiles

WIDTH, TOKENS, WINDOW = 4, 24, 8
LENGTHS = (9, 2, 30, 1, 5, 12, 3, 17, 8, 1, 21, 6)
PROMPTS = [np.resize(np.arange(2 + i, 40, dtype=np.int32), length) for i, length in enumerate(LENGTHS)]
EOS = frozenset({1, 9, 23})

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
LLAMA = COMMON | {"model_type": "llama", "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 40}
GEMMA = COMMON | {
    "model_type": "gemma3_text",
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
    "vocab_size": 40,
}
GPT2 = {
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": max(LENGTHS) + TOKENS,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 40,
}
HYBRID = COMMON | {
    "model_type": "granitemoehybrid",
    "vocab_size": 40,
    "max_position_embeddings": 128,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "embedding_multiplier": 1.0,
    "attention_multiplier": 0.35,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "layer_types": ["mamba", "attention"],
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "num_local_experts": None,
    "shared_intermediate_size": 48,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_proj_bias": False,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_n_groups": 1,
    "mamba_conv_bias": True,
    "position_embedding_type": "rope",
    "time_step_limit": (0.001, 100.0),
}
MODELS = {"attention": (llama, LLAMA), "window": (gemma3_text, GEMMA), "hybrid": (granitemoehybrid, HYBRID)}
MODELS["learned positions"] = gpt2, GPT2


def build(architecture, arguments):
    mx.random.seed(0)
    model = architecture.Model(architecture.ModelArgs.from_dict(arguments))
    model.eval()
    mx.eval(model.parameters())
    return model


def roll_out(model, prompts=PROMPTS, group_size=1, **sampling):
    return generate(
        model,
        prompts,
        group_size=group_size,
        sampling=GenerationConfig(**sampling),
        eos_ids=EOS,
        max_tokens=TOKENS,
        seeds=row_keys(0, "rollout", 1, range(len(prompts)), group_size),
    )


@pytest.fixture
def joined(monkeypatch) -> list[tuple[list[int], int, int]]:
    """What joins while rollouts are made: its rows, beside how many, and the positions that its cache has then."""
    seen: list[tuple[list[int], int, int]] = []
    join = Decoder.join

    def watched(self, rows, *arguments):
        beside = self.places
        join(self, rows, *arguments)
        seen.append((rows.tolist(), beside, getattr(self.cache[0], "_idx", 0)))

    monkeypatch.setattr(Decoder, "join", watched)
    return seen


def assert_same(one, other):
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    assert one.finish_reasons == other.finish_reasons
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_rows_that_join_are_as_rows_by_themselves(kind, joined):
    model = build(*MODELS[kind])
    alone = roll_out(model, rollout_batch_size=1)
    assert min(alone.lengths) < TOKENS // 2 < max(alone.lengths) == TOKENS
    joined.clear()
    assert_same(roll_out(model, rollout_batch_size=WIDTH), alone)
    assert sorted(row for rows, *_ in joined for row in rows) == list(range(len(PROMPTS)))
    assert sum(beside > 0 for _, beside, _ in joined) >= 3, "rows must have joined others"
    assert all(len(rows) + beside <= WIDTH for rows, beside, _ in joined)


def test_groups_join_as_a_whole_and_read_their_prompt_once(joined, monkeypatch):
    model, read = build(llama, LLAMA), []
    apart = roll_out(model, group_size=3, rollout_batch_size=1)
    prefill = decoder.prefill
    monkeypatch.setattr(
        decoder, "prefill", lambda model, prompts, more: read.extend(prompts) or prefill(model, prompts, more)
    )
    joined.clear()
    assert_same(roll_out(model, group_size=3, rollout_batch_size=8), apart)
    assert sum(beside > 0 for _, beside, _ in joined) >= 3
    assert all(rows == list(range(rows[0], rows[0] + 3)) for rows, beside, _ in joined if beside and len(rows) == 3)
    assert sorted(map(len, read)) == sorted(LENGTHS)


@pytest.mark.parametrize("on_cuda", [False, True])
def test_the_caches_take_no_more_than_the_width_reckons_with(on_cuda, joined, monkeypatch):
    """Sixty rows, one after the other in eight places: positions that no row needs any longer leave."""
    monkeypatch.setattr(backend, "on_gpu", lambda: on_cuda)
    monkeypatch.setattr(backend, "on_cuda", lambda: on_cuda)
    model, held, launch = build(llama, LLAMA), [], Decoder.launch

    def watched(self):
        window = launch(self)
        held.append((self.cache[0].size(), self.cache[0].keys.shape[2]))
        return window

    monkeypatch.setattr(Decoder, "launch", watched)
    prompts = [np.resize(np.arange(2 + i % 9, 40, dtype=np.int32), 10) for i in range(60)]
    keys = row_keys(0, "rollout", 1, range(60), 1)
    settings = GenerationConfig(rollout_batch_size=8)
    generate(model, prompts, group_size=1, sampling=settings, eos_ids=frozenset({1}), max_tokens=118, seeds=keys)
    assert sum(beside > 0 for _, beside, _ in joined) > 15
    used, allocated = (max(numbers) for numbers in zip(*held, strict=True))
    assert used <= 128 + on_cuda * (TILE - 1), "no less than a tile leaves"
    assert allocated <= (tiles(used) if on_cuda else 128)


@pytest.mark.parametrize("on_cuda", [False, True])
def test_a_device_with_windows_in_flight_gives_the_same(on_cuda, joined, monkeypatch):
    model = build(llama, LLAMA)
    monkeypatch.setattr(decoder, "CHECK_EVERY", 3)
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    monkeypatch.setattr(backend, "on_cuda", lambda: on_cuda)
    alone = roll_out(model, rollout_batch_size=1)
    joined.clear()
    other = roll_out(model, rollout_batch_size=WIDTH)
    assert sum(beside > 0 for _, beside, _ in joined) >= 3
    assert_same(other, alone)
    for row in range(len(PROMPTS)):
        assert_as_a_full_forward(model, other, row)


def assert_as_a_full_forward(model, rollouts, row):
    prompt, completion = rollouts.prompt(row), rollouts.completion(row)
    logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
    logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    expected = logprobs[np.arange(len(completion)), completion]
    np.testing.assert_allclose(rollouts.logprobs[row, : len(completion)], expected, atol=2e-5)
    ends = np.isin(completion, list(EOS))
    assert not ends[:-1].any()
    assert ends[-1] or len(completion) == TOKENS


def test_tiles_that_no_row_needs_leave_when_rows_join():
    """Beside the others, and never less than what the longest row has seen."""
    cache = TiledKVCache([0, 2 * TILE + 5], TILE, mx.float32)
    first = mx.random.normal((2, 1, 3 * TILE, 4))
    cache.update_and_fetch(first, first)
    cache.filter(mx.array([1]))
    other = TiledKVCache([0], TILE, mx.float32)
    second = mx.random.normal((1, 1, 10, 4))
    other.update_and_fetch(second, second)
    cache.extend(other)
    assert cache.size() == TILE
    assert cache.left_padding.tolist() == [5, TILE - 10]
    token = mx.random.normal((2, 1, 1, 4))
    keys, _ = cache.update_and_fetch(token, token)
    assert keys.shape[2] % TILE == 0
    np.testing.assert_array_equal(keys[0, :, 5:TILE], first[1, :, 2 * TILE + 5 :])
    np.testing.assert_array_equal(keys[1, :, TILE - 10 : TILE], second[0])
    np.testing.assert_array_equal(keys[:, :, TILE : TILE + 1], token)
    assert cache.offset.tolist() == [TILE - 5 + 1, 11]


def test_a_model_that_takes_no_rows_in_decodes_batch_after_batch(joined, monkeypatch, caplog):
    model = build(llama, LLAMA)
    alone = roll_out(model, rollout_batch_size=1)
    extend = BatchKVCache.extend

    def wrong(self, other):
        extend(self, other)
        self.offset = self.offset + mx.array([0] * (self.offset.size - other.offset.size) + [1] * other.offset.size)

    monkeypatch.setattr(BatchKVCache, "extend", wrong)
    monkeypatch.setattr(caches, "ENOUGH_TOKENS", 4)  # prompts are not read in parts either
    other = build(llama, LLAMA)
    joined.clear()
    assert_same(roll_out(other, rollout_batch_size=WIDTH), alone)
    assert [beside for _, beside, _ in joined] == [0, 0, 0]
    assert "mlx-lm's llama takes no rows into a running batch" in caplog.text
    with decoding(other):
        assert caches.batching(other) == "all"


@given(
    lengths=st.lists(st.integers(1, 6), max_size=9),
    group_size=st.integers(1, 5),
    groups=st.integers(0, 3),
    may_join=st.booleans(),
    data=st.data(),
)
def test_who_waits_gets_a_place_once(lengths, group_size, groups, may_join, data):
    """Every row begins once, in a place of its own, with its whole group if it joins others; none waits for ever."""
    width = groups * group_size or data.draw(st.integers(1, group_size))
    prompts = [np.zeros(length, np.int32) for length in lengths]
    waiting = Waiting(prompts, group_size, width, "all", may_join=may_join)
    begun, taken = [], 0
    while waiting:
        some = waiting.take(taken).tolist()
        assert some or taken
        assert len(some) + taken <= width
        assert may_join or not (some and taken)
        if taken:
            assert all(some.count(row) == 1 for row in some)
            assert len({row // group_size for row in some}) * group_size == len(some)
        begun, taken = begun + some, data.draw(st.integers(0, taken + len(some)))
        taken = 0 if not some and taken == width else taken
    assert sorted(begun) == list(range(len(lengths) * group_size))
    assert [lengths[row // group_size] for row in begun] == sorted(np.repeat(lengths, group_size).tolist())
