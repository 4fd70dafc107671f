"""A loaded model as files of its own, through mlx-lm: adapters fused, cast, quantised, as safetensors or GGUF."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map_with_path, tree_unflatten

from pipelines.errors import ModelError
from pipelines.models.files import CONFIG_FILE
from pipelines.models.leaves import leaves
from pipelines.models.load import LoadedModel
from pipelines.models.quantise import is_quantised
from pipelines.models.save import copy_companions

GENERATION_FILE = "generation_config.json"
GGUF_FILE = "ggml-model-f16.gguf"
GGUF_TYPES = ("llama", "mistral")
"""What mlx-lm writes as GGUF. It names mixtral too, but keeps experts stacked, under names that GGUF does not know."""


def fuse_adapters(model: nn.Module) -> int:
    """Add every adapter to the weights below it, in place, as `mlx_lm.fuse` does; returns how many there were.

    Layers of a quantised base are quantised again with the same settings, which rounds once more.
    """
    fused = [(name, module.fuse()) for name, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(fused))
    return len(fused)


def cast(model: nn.Module, dtype: mx.Dtype) -> None:
    """Floating weights in `dtype`, in place, but for those that the architecture keeps (mlx-lm's `cast_predicate`)."""
    wanted = getattr(model, "cast_predicate", lambda _: True)

    def stored(name: str, leaf: mx.array) -> mx.array:
        return leaf.astype(dtype) if wanted(name) and mx.issubdtype(leaf.dtype, mx.floating) else leaf

    model.update(tree_map_with_path(stored, model.parameters()))


def write_model(directory: Path, loaded: LoadedModel, config: dict[str, Any], dtype: str) -> None:
    """Weights, configuration, tokenizer, chat template and generation settings: all that loading needs."""
    from mlx_lm.utils import save_config, save_model

    copy_companions(directory, loaded.directory)
    save_model(directory, loaded.model)
    save_config(_without_dtype(config) | {"torch_dtype": dtype}, directory / CONFIG_FILE)
    if not (directory / GENERATION_FILE).is_file():
        (directory / GENERATION_FILE).write_text(json.dumps(_generation(loaded), indent=2) + "\n")


def refuse_gguf(directory: Path) -> None:
    """ModelError for a model that mlx-lm cannot write as GGUF, or would write wrongly without a word."""
    from mlx_lm.gguf import HfVocab, prepare_metadata
    from mlx_lm.utils import load_config

    try:
        config = load_config(directory)
        problem = _gguf_problem(config, directory)
        if not problem:
            prepare_metadata(config, HfVocab.load(directory))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        problem = f"its configuration or tokenizer does not fit: {type(error).__name__}: {error}"
    if problem:
        raise ModelError(f"{directory}: mlx-lm cannot write it as GGUF: {problem}", hint=_INSTEAD)


def write_gguf(directory: Path, model: nn.Module, config: dict[str, Any]) -> Path:
    """`GGUF_FILE` beside the weights, in float16; norms are float32."""
    from mlx_lm.gguf import convert_to_gguf

    path = directory / GGUF_FILE
    weights = {name: leaf.astype(mx.float16) for name, leaf in leaves(model.parameters()).items()}
    with redirect_stdout(StringIO()):
        convert_to_gguf(directory, weights, {"num_key_value_heads": config["num_attention_heads"]} | config, str(path))
    return path


_INSTEAD = "export without --gguf and give the directory to llama.cpp's convert_hf_to_gguf.py"


def _gguf_problem(config: dict[str, Any], directory: Path) -> str:
    """The first reason why the file would be refused or wrong; empty if there is none."""
    scaling, tokenizer = config.get("rope_scaling"), directory / "tokenizer.json"
    if config.get("model_type") not in GGUF_TYPES:
        return f"it writes {' and '.join(GGUF_TYPES)}, not {config.get('model_type')}"
    if not tokenizer.is_file():
        return "it has no tokenizer.json"
    unusual = {
        "its weights are quantised": is_quantised(config),
        "its heads are not hidden_size / num_attention_heads wide": (config.get("head_dim") or 0)
        * config["num_attention_heads"]
        not in (0, config["hidden_size"]),
        "its attention has biases": config.get("attention_bias"),
        "its rope_scaling is not linear": scaling and scaling.get("type") != "linear",
        "its tokenizer is byte-level, and the file would hold one of another kind": '"ByteLevel"'
        in tokenizer.read_text(encoding="utf-8"),
    }
    return next((problem for problem, found in unusual.items() if found), "")


def _without_dtype(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}


def _generation(loaded: LoadedModel) -> dict[str, Any]:
    """What ends a completion here ends it elsewhere too."""
    ids = {"eos_token_id": sorted(loaded.eos_ids)}
    named = {f"{name}_token_id": loaded.config.get(f"{name}_token_id") for name in ("bos", "pad")}
    return ids | {name: value for name, value in named.items() if value is not None}
