"""The shapes that attention is given on CUDA: what comes out is what comes out elsewhere."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models import base, deepseek_v3, gemma3_text, llama
from mlx_lm.models.cache import BatchKVCache

from pipelines import backend
from pipelines.config import GenerationConfig, ModelConfig
from pipelines.generation import drawing
from pipelines.generation.engine import generate
from pipelines.generation.seeds import row_keys
from pipelines.models import cuda
from pipelines.models.batching import batch_cache, decoding
from pipelines.models.calls import calling
from pipelines.models.cuda import CALLS, TiledKVCache, fold
from pipelines.models.layers import LayerStack
from pipelines.models.logprobs import split_head
from pipelines.models.lora import apply_lora, lora_modules, rounded_at_random
from pipelines.models.tiles import GRADIENT_TILE, MOST_PADDED, ROUND_TOKENS, TILE, learning_length, tiles

LLAMA = llama.ModelArgs(
    model_type="llama",
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    vocab_size=100,
)
GEMMA = gemma3_text.ModelArgs(
    model_type="gemma3_text",
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=16,
    vocab_size=100,
    sliding_window=16,
    sliding_window_pattern=2,
)
DEEPSEEK = deepseek_v3.ModelArgs(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    n_shared_experts=1,
    n_routed_experts=4,
    num_experts_per_tok=2,
    first_k_dense_replace=1,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
)
PROMPTS = [np.arange(2, 2 + length, dtype=np.int32) for length in (20, 1, 6)]
KEYS = row_keys(0, "rollout", 1, range(3), 2)


def build(architecture, arguments):
    mx.random.seed(0)
    model = architecture.Model(arguments)
    model.eval()
    mx.eval(model.parameters())
    return model


def roll_out(model, max_tokens):
    return generate(
        model,
        PROMPTS,
        group_size=2,
        sampling=GenerationConfig(),
        eos_ids=frozenset({1, 9}),
        max_tokens=max_tokens,
        seeds=KEYS,
    )


@pytest.mark.usefixtures("as_on_a_cpu")
@pytest.mark.parametrize("made", [(llama, LLAMA), (gemma3_text, GEMMA)], ids=["all keys", "a window"])
def test_rollouts_are_the_same(made, monkeypatch):
    """Beyond several tiles and a growing cache, with rows that leave on the way."""
    model = build(*made)
    plain = roll_out(model, 2 * TILE + 150)
    monkeypatch.setattr(backend, "on_cuda", lambda: True)
    tiled = roll_out(model, 2 * TILE + 150)
    assert {type(layer) for layer in batch_cache(model, [0])} & {TiledKVCache}
    assert len(set(plain.lengths.tolist())) > 3
    assert plain.lengths.max() > TILE
    np.testing.assert_array_equal(tiled.tokens, plain.tokens)
    np.testing.assert_allclose(tiled.logprobs, plain.logprobs, atol=2e-5)


@pytest.mark.usefixtures("as_on_a_cpu")
def test_adapters_are_merged_while_rows_are_decoded(monkeypatch):
    model = build(llama, LLAMA)
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_layers=-1), 0)
    for number, (_, module) in enumerate(lora_modules(model)):
        module.lora_b = 0.3 * mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    adapted, plain = lora_modules(model), roll_out(model, 30)
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    monkeypatch.setattr(drawing, "draw", lambda: drawing.on_cpu)
    monkeypatch.setattr(backend, "compiled", lambda function, state=None: function)
    with decoding(model):
        assert not lora_modules(model)
    merged = roll_out(model, 30)
    np.testing.assert_array_equal(merged.tokens, plain.tokens)
    np.testing.assert_allclose(merged.logprobs, plain.logprobs, atol=2e-5)
    assert lora_modules(model) == adapted


def test_adapters_of_quantised_layers_stay(monkeypatch):
    """They would be rounded to a few bits."""
    model = build(llama, LLAMA)
    nn.quantize(model, group_size=32, bits=4, class_predicate=lambda name, _: name.endswith("down_proj"))
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_layers=-1), 0)
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    with decoding(model):
        assert {name.rpartition(".")[2] for name, _ in lora_modules(model)} == {"down_proj"}


def test_queries_of_a_key_head_are_folded_into_positions(monkeypatch):
    asked: list[tuple[int, ...]] = []
    queries, keys, values = (mx.random.normal((3, heads, n, 16)) for heads, n in ((6, 1), (2, 9), (2, 9)))
    seen = mx.arange(9)[None, None, None] >= mx.array([0, 2, 5])[:, None, None, None]
    added = mx.where(seen, 0.0, mx.finfo(mx.float32).min)
    expected = {name: attend(queries, keys, values, mask) for name, mask in (("none", None), ("bool", seen))}

    def listening(queries, *args, **kwargs):
        asked.append(queries.shape)
        return base.mx.fast.scaled_dot_product_attention(
            queries, args[0], args[1], scale=kwargs["scale"], mask=kwargs["mask"]
        )

    monkeypatch.setattr(cuda, "OWN_ATTENTION", listening)
    for name, mask in (("none", None), ("bool", seen), ("bool", added)):
        found = fold(queries, keys, values, None, 0.25, mask)
        np.testing.assert_allclose(found, expected[name], atol=1e-6)
    assert asked == [(3, 2, 3, 16)] * 3


def attend(queries, keys, values, mask):
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.25, mask=mask)


def test_other_attention_stays_as_it_is():
    """Several positions, as many key heads as heads, and the sinks of some models."""
    for heads, positions, sinks in ((6, 4, None), (2, 1, None), (6, 1, mx.zeros(6))):
        queries, keys = mx.random.normal((3, heads, positions, 16)), mx.random.normal((3, 2, 9, 16))
        found = fold(queries, keys, keys, None, 0.25, None, sinks=sinks)
        expected = mx.fast.scaled_dot_product_attention(queries, keys, keys, scale=0.25, mask=None, sinks=sinks)
        assert mx.array_equal(found, expected)


def test_models_get_their_attention_back():
    model, own = build(llama, LLAMA), llama.scaled_dot_product_attention
    with calling(model, CALLS):
        assert llama.scaled_dot_product_attention is fold
    assert llama.scaled_dot_product_attention is own


def test_a_cache_hands_out_tiles_and_hides_what_is_behind_the_last_key():
    cache, plain = TiledKVCache([0, 3], TILE, mx.bfloat16), BatchKVCache([0, 3])
    for count in (5, 1, TILE, 1):
        new = mx.random.normal((2, 1, count, 4))
        masks = cache.make_mask(count), plain.make_mask(count)
        for found, wanted in zip(cache.update_and_fetch(new, -new), plain.update_and_fetch(new, -new), strict=True):
            assert found.shape[2] % TILE == 0
            assert mx.array_equal(found[:, :, : wanted.shape[2]], wanted)
        seen = wanted.shape[2]
        assert masks[0].dtype == mx.bfloat16
        assert mx.array_equal(masks[0][..., :seen] == 0, mx.broadcast_to(masks[1], masks[0][..., :seen].shape))
        assert (masks[0][..., seen:] < -1e38).all()
        assert masks[0].shape[-1] == found.shape[2]
        assert mx.array_equal(cache.offset, plain.offset)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_padding_that_sees_nothing_has_numbers_still(dtype):
    """A low score is added to what hides a key; were the sum infinite, NaN would spread from the padding to its row."""
    queries = mx.full((1, 2, TILE, 16), 3.0).astype(dtype)
    mask = TiledKVCache([TILE - 1], TILE, dtype).make_mask(TILE)
    assert mx.isfinite(attend(queries, -queries, queries, mask)).all()


@given(st.integers(0, 5000))
def test_tiles_are_the_fewest_that_hold_a_length(length):
    assert tiles(length) % TILE == 0
    assert length <= tiles(length) < length + TILE


@given(st.integers(1, 5000), st.sampled_from(["cpu", "metal", "cuda"]))
def test_rows_that_learn_fill_tiles_where_that_makes_them_little_longer(length, device):
    """On a CPU they stay as they are; a longer row never becomes the shorter one: the longest decides for a batch."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backend, "on_gpu", lambda: device != "cpu")
        patched.setattr(backend, "on_cuda", lambda: device == "cuda")
        made, after = learning_length(length), learning_length(length + 1)
    whole = next(n for n in range(length, length + GRADIENT_TILE) if n % GRADIENT_TILE == 0)
    little = next(n for n in range(length, length + ROUND_TOKENS) if n % ROUND_TOKENS == 0)
    expected = {"cpu": length, "metal": little, "cuda": whole if whole <= MOST_PADDED * length else little}
    assert made == expected[device]
    assert length <= made <= after


def test_a_model_that_selects_by_its_masks_keeps_its_own_caches(monkeypatch):
    """DeepSeek's attention asks where a mask is true; 0, which lets a key pass when it is added, is false."""
    model = build(deepseek_v3, DEEPSEEK)
    whole = model(mx.array([[2, 3, 4, 5]]))[0, -1]
    monkeypatch.setattr(backend, "on_cuda", lambda: True)
    with decoding(model):
        cache = batch_cache(model, [0])
        assert TiledKVCache not in set(map(type, cache))
        model(mx.array([[2, 3, 4]]), cache=cache)
        np.testing.assert_allclose(model(mx.array([[5]]), cache=cache)[0, -1], whole, rtol=1e-4, atol=1e-5)


def test_a_model_without_layers_has_no_caches_to_try(monkeypatch):
    monkeypatch.setattr(backend, "on_cuda", lambda: True)
    model = nn.Embedding(5, 5)
    assert not LayerStack(model, split_head(model)).shares


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_rounding_at_random_loses_nothing_on_average(seed):
    """A tenth of a step up moves a tenth of the weights by a step; what bfloat16 can hold stays as it is."""
    held = mx.random.normal((20_000,), key=mx.random.key(seed)).astype(mx.bfloat16).astype(mx.float32)
    step = (held.view(mx.uint32) + 0x10000).view(mx.float32) - held
    rounded = rounded_at_random(held + 0.1 * step, mx.random.key(seed // 2))
    moved = (rounded.astype(mx.float32) - held) / step
    assert set(moved.tolist()) == {0.0, 1.0}
    assert abs(moved.mean().item() - 0.1) < 5 * (0.1 * 0.9 / 20_000) ** 0.5
    assert mx.array_equal(rounded_at_random(held, mx.random.key(0)).astype(mx.float32), held)


def test_a_small_adapter_is_felt_in_bfloat16(monkeypatch):
    """Rounded to the nearest, weights would hold an eighth of such an adapter."""
    model = build(llama, LLAMA)
    model.set_dtype(mx.bfloat16)
    apply_lora(model, ModelConfig(use_lora=True, lora_rank=2, lora_layers=-1), 0)
    module = model.layers[0].mlp.up_proj
    module.lora_b = mx.full(module.lora_b.shape, 1e-4)
    before, added = module.linear.weight.astype(mx.float32), (module.scale * module.lora_b.T) @ module.lora_a.T
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    with decoding(model):
        merged = model.layers[0].mlp.up_proj.weight.astype(mx.float32) - before
        assert model.layers[0].mlp.up_proj.weight.dtype == mx.bfloat16
    kept = ((merged * added).sum() / (added * added).sum()).item()
    assert 0.6 < kept < 1.4
    assert mx.array_equal(module.linear.weight.astype(mx.float32), before)
