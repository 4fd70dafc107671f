"""Load a model and its tokenizer through mlx-lm, in the dtype this device computes in."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map

from pipelines.errors import ModelError
from pipelines.models.leaves import leaves
from pipelines.models.locate import model_directory
from pipelines.models.lora import is_adapter
from pipelines.models.quantise import quantise_base


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
    def layers(self) -> list[nn.Module]:
        return self.model.layers  # pyright: ignore[reportReturnType]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a completion (a model may name several)."""
        return frozenset(int(token) for token in self.tokenizer.eos_token_ids)


def load_tokenizer(model_path: str) -> Any:
    """mlx-lm's tokenizer wrapper of a model directory, with the EOS ids of its config.json."""
    from mlx_lm.utils import load_config
    from mlx_lm.utils import load_tokenizer as load_wrapped

    directory = model_directory(model_path)
    with _refusing(f"{directory}: no tokenizer can be loaded"):
        return load_wrapped(directory, eos_token_ids=load_config(directory).get("eos_token_id"))


def load(model_path: str, *, adapter: Path | None = None, bits: int | None = None) -> LoadedModel:
    """Load weights and tokenizer; floating weights come in `compute_dtype` of the device.

    `adapter` is a directory with `adapters.safetensors` and `adapter_config.json`; `bits` quantises what is below it.
    Raises ModelError when the directory does not hold a model that mlx-lm knows.
    """
    from mlx_lm.utils import load_adapters, load_model

    directory = model_directory(model_path)
    with _refusing(f"{directory}: the model cannot be loaded"):
        model, config = load_model(directory)
        model.trainable_parameters()
    stored = floating_dtype(model)
    if bits is not None:
        config = quantise_base(model, config, bits)
    with _refusing(f"{adapter}: the adapter cannot be loaded", _ADAPTER_HINT):
        model = model if adapter is None else load_adapters(model, str(adapter))
    to_compute_dtype(model)
    model.eval()
    return LoadedModel(model, load_tokenizer(model_path), directory, config, stored)


def load_unread(model_path: str, *, bits: int | None = None) -> nn.Module:
    """The model of `load` with no weight read: its arrays have shapes and dtypes, and are read when they are used."""
    from mlx_lm.utils import load_model

    directory = model_directory(model_path)
    with _refusing(f"{directory}: the model cannot be loaded"):
        model, config = load_model(directory, lazy=True)
    if bits is not None:
        quantise_base(model, config, bits)
    to_compute_dtype(model, read=False)
    model.eval()
    return model


def floating_dtype(model: nn.Module) -> mx.Dtype:
    """The dtype most floating weights are in, adapters aside: they may hold more numbers than a quantised base."""
    sizes: dict[mx.Dtype, int] = {}
    for name, leaf in leaves(model.parameters()).items():
        if mx.issubdtype(leaf.dtype, mx.floating) and not is_adapter(name):
            sizes[leaf.dtype] = sizes.get(leaf.dtype, 0) + leaf.size
    return max(sizes, key=lambda dtype: sizes[dtype])


def to_compute_dtype(model: nn.Module, *, read: bool = True) -> None:
    """Cast floating weights in place, the scales and biases of quantised layers too; at once if they are to be read."""
    from pipelines.backend import compute_dtype

    target = compute_dtype(floating_dtype(model))
    if target == floating_dtype(model):
        return
    model.update(tree_map(lambda w: w.astype(target) if mx.issubdtype(w.dtype, mx.floating) else w, model.parameters()))
    if read:
        mx.eval(model.parameters())


_HINT = "a model directory holds config.json, tokenizer.json and *.safetensors of a type mlx-lm supports"
_ADAPTER_HINT = "an adapter directory holds adapters.safetensors and adapter_config.json, made for this very model"
_REFUSALS = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
)
"""What mlx-lm and transformers raise for files that are missing, damaged (RuntimeError: safetensors), of another kind
(TypeError, AttributeError: config.json without the fields of its model type; ArithmeticError: with a 0 where there can
be none), or that need another package."""


@contextmanager
def _refusing(what: str, hint: str = _HINT) -> Iterator[None]:
    """Inside the block errors of mlx-lm and transformers become a ModelError; what they print is no data of ours."""
    from huggingface_hub.errors import StrictDataclassError  # a config.json that transformers finds fault with

    with redirect_stdout(StringIO()) as printed:
        try:
            yield
        except (*_REFUSALS, StrictDataclassError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise ModelError(f"{what}: {said}", hint=hint) from error
        except SystemExit as error:  # an architecture that needs another package says so and ends the program
            raise ModelError(f"{what}: {' '.join(printed.getvalue().split())}", hint=hint) from error
