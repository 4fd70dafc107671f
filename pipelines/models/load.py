"""Load a model and its tokenizer through mlx-lm, in the dtype this device computes in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map

from pipelines.errors import ModelError
from pipelines.models.leaves import leaves
from pipelines.models.locate import model_directory


@dataclass
class LoadedModel:
    """A model ready to train or decode, and what is needed to save it again."""

    model: nn.Module
    tokenizer: Any
    directory: Path
    config: dict[str, Any]
    stored_dtype: mx.Dtype
    """What the weights on disk are in; checkpoints are written in it again."""

    @property
    def num_layers(self) -> int:
        return len(self.model.layers)  # pyright: ignore[reportArgumentType]

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a completion (a model may name several)."""
        return frozenset(int(token) for token in self.tokenizer.eos_token_ids)


def load_tokenizer(model_path: str) -> Any:
    """mlx-lm's tokenizer wrapper of a model directory, with the EOS ids of its config.json."""
    from mlx_lm.utils import load_config
    from mlx_lm.utils import load_tokenizer as load_wrapped

    directory = model_directory(model_path)
    try:
        return load_wrapped(directory, eos_token_ids=load_config(directory).get("eos_token_id"))
    except _REFUSALS as error:
        raise ModelError(f"{directory}: no tokenizer can be loaded: {_said(error)}", hint=_HINT) from error


def load(model_path: str, *, adapter: Path | None = None) -> LoadedModel:
    """Load weights and tokenizer; floating weights come in `compute_dtype` of the device.

    `adapter` is a directory with `adapters.safetensors` and `adapter_config.json`.
    Raises ModelError when the directory does not hold a model that mlx-lm knows.
    """
    from mlx_lm.utils import load_adapters, load_model

    directory = model_directory(model_path)
    try:
        model, config = load_model(directory)
    except _REFUSALS as error:
        raise ModelError(f"{directory}: the model cannot be loaded: {_said(error)}", hint=_HINT) from error
    try:
        model = model if adapter is None else load_adapters(model, str(adapter))
    except _REFUSALS as error:
        raise ModelError(f"{adapter}: the adapter cannot be loaded: {_said(error)}", hint=_ADAPTER_HINT) from error
    stored = floating_dtype(model)
    to_compute_dtype(model)
    model.eval()
    return LoadedModel(model, load_tokenizer(model_path), directory, config, stored)


def floating_dtype(model: nn.Module) -> mx.Dtype:
    """The dtype most floating weights are in."""
    sizes: dict[mx.Dtype, int] = {}
    for leaf in leaves(model.parameters()).values():
        if mx.issubdtype(leaf.dtype, mx.floating):
            sizes[leaf.dtype] = sizes.get(leaf.dtype, 0) + leaf.size
    return max(sizes, key=lambda dtype: sizes[dtype])


def to_compute_dtype(model: nn.Module) -> None:
    """Cast floating weights in place, the scales and biases of quantised layers too."""
    from pipelines.backend import compute_dtype

    target = compute_dtype(floating_dtype(model))
    if target == floating_dtype(model):
        return
    model.update(tree_map(lambda w: w.astype(target) if mx.issubdtype(w.dtype, mx.floating) else w, model.parameters()))
    mx.eval(model.parameters())


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


_REFUSALS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError)
"""What mlx-lm and transformers raise for files that are missing, damaged (RuntimeError: safetensors) or of another
kind (TypeError, AttributeError: config.json without the fields of its model type)."""
_HINT = "a model directory holds config.json, tokenizer.json and *.safetensors of a type mlx-lm supports"
_ADAPTER_HINT = "an adapter directory holds adapters.safetensors and adapter_config.json, made for this very model"
