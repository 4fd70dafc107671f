"""Batches of unequal prompts on other architectures: as right as one by one, or refused; and how wide they are."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import gemma2, gemma3_text, gpt2, granitemoehybrid, llama, mamba
from mlx_lm.models.cache import ConcatenateKVCache

from pipelines.config import GenerationConfig, ModelConfig
from pipelines.errors import ModelError
from pipelines.generation import caches, width
from pipelines.generation.decoder import Decoder
from pipelines.generation.engine import generate
from pipelines.generation.rollouts import Rollouts
from pipelines.generation.seeds import row_keys
from pipelines.models.batching import batch_cache
from pipelines.models.load import load
from pipelines.models.lora import apply_lora, lora_modules

WINDOW = 8
PROMPTS = [np.arange(2, 22, dtype=np.int32), np.array([7], np.int32), np.array([3, 4, 5, 6, 7, 8], np.int32)]
KEYS = row_keys(0, "rollout", 1, range(3), 2)
EOS = frozenset({1, 9, 23})

GEMMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 16,
    "vocab_size": 40,
}
GPT2 = {
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 40,
}
MAMBA = {
    "model_type": "mamba",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 2,
}
HYBRID = {
    "model_type": "granitemoehybrid",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
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
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
}


def build(architecture, arguments):
    """A small random model."""
    mx.random.seed(0)
    model = architecture.Model(architecture.ModelArgs.from_dict(arguments))
    model.eval()
    mx.eval(model.parameters())
    return model


def sliding():
    """One layer that sees the last 8 positions, and one that sees all."""
    extra = {
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
    }
    return build(gemma3_text, GEMMA | extra)


def capped(key_value_heads):
    """gemma2 with 4 heads; where they share key heads, its attention takes the rows of a mask for key heads."""
    extra = {"model_type": "gemma2", "num_key_value_heads": key_value_heads, "rms_norm_eps": 1e-5}
    return build(gemma2, GEMMA | extra)


def roll_out(model, prompts=PROMPTS, keys=KEYS, max_tokens=20, **sampling) -> Rollouts:
    return generate(
        model,
        prompts,
        group_size=len(keys) // len(prompts),
        sampling=GenerationConfig(**sampling),
        eos_ids=EOS,
        max_tokens=max_tokens,
        seeds=keys,
    )


@pytest.mark.parametrize(
    "model",
    [sliding, lambda: build(gpt2, GPT2), lambda: capped(4)],
    ids=["sliding window", "learned positions", "capped logits"],
)
def test_other_architectures_are_as_one_by_one_and_as_a_full_forward(model):
    model = model()
    together = roll_out(model)
    assert (together.lengths > 2 * WINDOW).any(), "the window must have rotated for this to prove anything"
    for row in range(len(KEYS)):
        alone = roll_out(model, [together.prompt(row)], KEYS[row : row + 1])
        np.testing.assert_array_equal(alone.completion(0), together.completion(row))
    assert_as_a_full_forward(model, together)


def assert_as_a_full_forward(model, rollouts):
    """Every log-probability is that of a pass over the whole row, without a cache."""
    for row in range(len(rollouts.lengths)):
        prompt, completion = rollouts.prompt(row), rollouts.completion(row)
        logits = model(mx.array(np.concatenate([prompt, completion]))[None])[0, len(prompt) - 1 : -1]
        logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        expected = logprobs[np.arange(len(completion)), completion]
        np.testing.assert_allclose(rollouts.logprobs[row, : len(completion)], expected, atol=1e-5)


def hybrid():
    """A recurrent layer with a mask for padding, and one with attention."""
    return build(granitemoehybrid, HYBRID)


@pytest.mark.parametrize(
    ("make", "how", "told"),
    [
        (lambda: build(llama, LLAMA), "all", None),
        (sliding, "all", None),
        (hybrid, "all", None),
        (lambda: build(mamba, MAMBA), "equal", "mlx-lm's mamba cannot decode unequal prompts in one batch"),
        (lambda: capped(1), "one", "mlx-lm's gemma2 cannot decode several rows in one batch"),
        (lambda: capped(2), "one", "mlx-lm's gemma2 cannot decode several rows in one batch"),
    ],
    ids=["attention", "window", "hybrid", "recurrent", "mask for heads", "mask for pairs of heads"],
)
def test_rows_share_batches_as_far_as_the_model_reads_them_rightly(make, how, told, caplog):
    model = make()
    rollouts = roll_out(model)
    assert caches.batching(model) == how
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ([] if told is None else [told])
    assert_as_a_full_forward(model, rollouts)


def test_silently_wrong_batches_are_found_too():
    """With as many key heads as rows gemma2 computes something, but not what it computes one by one."""
    model = capped(2)
    mx.eval(caches.prefill(model, caches.UNEQUAL[:2], 1)[0])  # no error
    assert not caches._reads(model, caches.UNEQUAL[:2])


def test_a_model_is_probed_once(monkeypatch):
    model = sliding()
    caches.batching(model)
    monkeypatch.setattr(caches, "prefill", None)
    assert caches.batching(model) == "all"
    with pytest.raises(TypeError):
        caches.batching(sliding())


def test_a_cache_that_nobody_can_batch_decodes_one_row(monkeypatch, caplog):
    """A layer may have any cache of mlx-lm's, as long as its row is alone."""
    model = build(llama, LLAMA)
    expected = roll_out(model)
    monkeypatch.setattr(
        type(model), "make_cache", lambda self: [ConcatenateKVCache() for _ in self.layers], raising=False
    )
    other = build(llama, LLAMA)
    with pytest.raises(ModelError, match="cannot share this model's ConcatenateKVCache"):
        batch_cache(other, [0, 1])
    np.testing.assert_array_equal(roll_out(other).tokens, expected.tokens)
    assert "several rows" in caplog.text


def test_rollouts_have_no_dropout_and_leave_the_model_training():
    model = build(llama, LLAMA)
    apply_lora(model, ModelConfig(use_lora=True, lora_dropout=0.5), seed=0)
    for number, (_, module) in enumerate(lora_modules(model)):
        module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    calm = roll_out(model.eval())
    model.train()
    np.testing.assert_array_equal(roll_out(model).logprobs, calm.logprobs)
    assert model.training
    assert all(module.training for _, module in lora_modules(model))


@pytest.mark.usefixtures("as_on_a_cpu")
def test_the_width_follows_from_the_models_own_cache():
    """2 key heads of 16, keys and values, float32, 3 layers; 300 positions take two steps of 150."""
    model = build(llama, LLAMA)
    cache_bytes = 3 * 2 * (2 * 16) * 4 * 300
    row_bytes = cache_bytes + 4 * 4 * 100
    assert width.rows_that_fit(model, 300, 10 * row_bytes) == 10
    assert width.rows_that_fit(model, 300, 10 * row_bytes - 1) == 9
    assert width.rows_that_fit(model, 300, 0) == 1
    assert width.rows_that_fit(model, 300, 10**15) == width.MOST_ROWS


@pytest.mark.usefixtures("as_on_a_cpu")
def test_the_caches_really_take_what_the_width_says():
    model = build(llama, LLAMA)
    _, cache = caches.prefill(model, [np.zeros(290, np.int32)] * 5, 10)
    assert sum(layer.nbytes for layer in cache) == 5 * 3 * 2 * (2 * 16) * 4 * 300


@pytest.mark.usefixtures("as_on_a_cpu")
def test_a_window_bounds_what_a_layer_keeps():
    row_bytes = 2 * (16) * 4 * WINDOW + 2 * (16) * 4 * 300 + 4 * 4 * 40
    assert width.rows_that_fit(sliding(), 300, 7 * row_bytes) == 7


@pytest.mark.parametrize(
    ("setting", "group_size", "expected"), [(1, 1, 1), (5, 8, 5), (8, 8, 8), (20, 8, 16), (7, 1, 7), (9, 4, 8)]
)
def test_groups_stay_whole_where_they_fit(setting, group_size, expected):
    config = GenerationConfig(rollout_batch_size=setting)
    assert width.rows_at_once(build(llama, LLAMA), PROMPTS, group_size, 4, config) == expected


@pytest.mark.usefixtures("as_on_a_cpu")
def test_auto_takes_a_quarter_of_the_memory(monkeypatch):
    model = build(llama, LLAMA)
    row_bytes = 3 * 2 * (2 * 16) * 4 * 120 + 4 * 4 * 100  # 20 positions of a prompt, 100 to come
    monkeypatch.setattr(width, "memory_bytes", lambda: 4 * 11 * row_bytes)
    assert width.rows_at_once(model, PROMPTS, 1, 100, GenerationConfig()) == 11
    assert width.rows_at_once(model, PROMPTS, 4, 100, GenerationConfig()) == 8
    assert width.rows_at_once(model, [], 4, 100, GenerationConfig()) == 12  # no prompt, so 100 positions


def test_little_memory_changes_nothing(monkeypatch):
    model = build(llama, LLAMA)
    usual = roll_out(model)
    monkeypatch.setattr(width, "memory_bytes", lambda: 0)
    np.testing.assert_array_equal(roll_out(model).tokens, usual.tokens)


@pytest.mark.parametrize("width", [2, "auto"])
def test_each_row_is_told_once_when_it_has_ended(width):
    told = []
    model = load("builtin:tiny")
    prompts = [np.array(model.tokenizer.encode(f"{n}+{n}=?"), np.int32) for n in (11, 27, 38)]
    rollouts = generate(
        model.model,
        prompts,
        group_size=2,
        sampling=GenerationConfig(rollout_batch_size=width),
        eos_ids=model.eos_ids,
        max_tokens=24,
        seeds=row_keys(0, "told", 0, range(3), 2),
        on_finished=lambda rows, ended: told.extend(
            zip(rows.tolist(), range(len(rows)), [ended] * len(rows), strict=True)
        ),
    )
    assert sorted(row for row, _, _ in told) == list(range(6))
    for row, place, ended in told:
        np.testing.assert_array_equal(ended.completion(place), rollouts.completion(row))
        assert ended.prompt(place) is prompts[row // 2]
        assert ended.finish_reasons[place] == rollouts.finish_reasons[row]


@pytest.mark.parametrize("make", [lambda: build(llama, LLAMA), sliding, hybrid], ids=["attention", "window", "hybrid"])
@pytest.mark.parametrize("group_size", [1, 3])
def test_prompts_read_in_parts_are_as_prompts_read_together(group_size, make, monkeypatch):
    """Prompts of many lengths and in any order: parts of like length are put together, and nothing else changes."""
    model = make()
    rng = np.random.default_rng(3)
    prompts = [rng.integers(2, 40, length).astype(np.int32) for length in (40, 3, 17, 41, 3, 18, 90)]
    keys = row_keys(0, "rollout", 1, range(7), group_size)
    together = roll_out(model, prompts, keys)
    monkeypatch.setattr(caches, "ENOUGH_TOKENS", 4)
    assert [len(part) for part in caches._parts_of_like_length(sorted(prompts, key=len))] == [2, 2, 2, 1]
    apart = roll_out(model, prompts, keys)
    np.testing.assert_array_equal(apart.tokens, together.tokens)
    np.testing.assert_allclose(apart.logprobs, together.logprobs, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([1000, 1500, 4000, 4001], [[1000, 1500], [4000, 4001]]),
        ([2047, 4000, 8000], [[2047, 4000], [8000]]),
        ([2048, 4000, 8000], [[2048], [4000], [8000]]),
        ([7], [[7]]),
    ],
)
def test_a_part_of_the_prompts_has_enough_tokens_before_it_is_closed(lengths, parts):
    found = caches._parts_of_like_length([np.zeros(length, np.int32) for length in lengths])
    assert [list(map(len, part)) for part in found] == parts


def widths_of(monkeypatch) -> list[int]:
    """How many rows each window has, as long as rollouts are made."""
    widths: list[int] = []
    launch = Decoder.launch

    def watched(self):
        widths.append(self.rows.size)
        return launch(self)

    monkeypatch.setattr(Decoder, "launch", watched)
    return widths


def test_finished_rows_leave_only_when_that_saves_work(monkeypatch):
    """16 rows, one of which ends early, take their places to the end; copied caches would cost more."""
    model, widths = build(llama, LLAMA), widths_of(monkeypatch)
    rollouts = roll_out(model, [np.array([5, 6], np.int32)], row_keys(0, "rollout", 1, [0], 16), max_tokens=40)
    going = [int((rollouts.lengths > start).sum()) for start in range(0, 4 * len(widths), 4)]
    assert widths[0] == 16 > widths[-1], "some rows must have left"
    assert all(width >= left for width, left in zip(widths, going, strict=True))
    wasted = sum(4 * (width - left) for width, left in zip(widths, going, strict=True))
    assert wasted < 2 * 16 * len(set(widths))
    assert len(set(widths)) < len({*going})
