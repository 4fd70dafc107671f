"""Write weights so that mlx-lm loads them as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from pipelines.config import ModelConfig
from pipelines.errors import CheckpointError, ModelError
from pipelines.models.files import CONFIG_FILE, TOKENIZER_PATTERNS
from pipelines.models.leaves import leaves
from pipelines.models.lora import lora_parameters

COPIED = (CONFIG_FILE, "generation_config.json", *TOKENIZER_PATTERNS)
"""What a checkpoint takes over from the model it started from."""


def save_weights(path: Path, weights: dict[str, mx.array]) -> None:
    """One safetensors file; keys are sorted, since its bytes depend on their order. OSError if the disk refuses."""
    ordered = {name: mx.contiguous(weights[name]) for name in sorted(weights)}
    mx.eval(ordered)  # whatever fails in here is no matter of the disk
    try:
        mx.save_safetensors(str(path), ordered, metadata={"format": "mlx"})
    except RuntimeError as error:
        raise OSError(f"{path.name}: {error}") from error


def load_weights(path: Path) -> dict[str, mx.array]:
    """The arrays of one safetensors file; CheckpointError if it cannot be read."""
    try:
        weights = mx.load(str(path))
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="it is damaged; use another checkpoint"
        ) from error
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path} is no dictionary of arrays", hint="it is damaged; use another checkpoint")
    return weights


def refuse_unlike(model: nn.Module) -> None:
    """ModelError for a model whose trained weights would load as others: mlx-lm may scale some when it loads them."""
    trained = {name: 2 * leaf for name, leaf in leaves(model.trainable_parameters()).items()}
    weights = leaves(model.parameters()) | trained
    sanitize = getattr(model, "sanitize", dict)
    loaded = sanitize(dict(weights))
    for name, leaf in weights.items():
        if loaded.get(name) is not leaf and (name not in loaded or not mx.array_equal(loaded[name], leaf).item()):
            raise ModelError(
                f"mlx-lm changes {name} of this model when it loads it: a checkpoint would not be what was trained",
                hint="train adapters: model.use_lora=true",
            )


def save_full(directory: Path, weights: dict[str, mx.array], source: Path, dtype: mx.Dtype) -> None:
    """`model.safetensors` in `dtype`, and the source model's configuration and tokenizer files."""
    save_weights(directory / "model.safetensors", {name: _stored(leaf, dtype) for name, leaf in weights.items()})
    copy_companions(directory, source)


def copy_companions(directory: Path, source: Path) -> None:
    """The configuration and tokenizer files of the model in `source`."""
    for pattern in COPIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, directory / file.name)


def save_adapter(directory: Path, model: nn.Module, config: ModelConfig, base: str) -> None:
    """`adapters.safetensors` and the `adapter_config.json` that `mlx_lm --adapter-path` reads."""
    adapter: dict[str, Any] = {
        "fine_tune_type": "lora",
        "num_layers": config.lora_layers,
        "lora_parameters": lora_parameters(config),
        "model": base,
    }
    save_weights(directory / "adapters.safetensors", leaves(model.trainable_parameters()))
    (directory / "adapter_config.json").write_text(json.dumps(adapter, indent=2) + "\n")


def _stored(leaf: mx.array, dtype: mx.Dtype) -> mx.array:
    return leaf.astype(dtype) if mx.issubdtype(leaf.dtype, mx.floating) else leaf
