"""LoRA through mlx-lm's own layers, and the base model seen through them (the adapter off)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from pipelines.config import ModelConfig
from pipelines.errors import ModelError


def lora_parameters(config: ModelConfig) -> dict[str, Any]:
    """mlx-lm's `lora_parameters`: its `scale` is what the product is multiplied by, alpha / rank."""
    parameters: dict[str, Any] = {
        "rank": config.lora_rank,
        "scale": config.lora_alpha / config.lora_rank,
        "dropout": config.lora_dropout,
    }
    if config.lora_target_modules:
        parameters["keys"] = list(config.lora_target_modules)
    return parameters


def apply_lora(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Freeze the model and put adapters on its linear layers; A is drawn from `seed`, B is zero.

    Raises ModelError when a name in `model.lora_target_modules` is no linear layer of the model.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    _refuse_unknown(model, config.lora_target_modules or ())
    model.freeze()
    try:
        linear_to_lora_layers(model, config.lora_layers, lora_parameters(config))
    except ValueError as error:  # a target that is a whole block or a norm
        raise ModelError(f"model.lora_target_modules: {error}", hint=_NAMES) from error
    modules = lora_modules(model)
    # mlx-lm draws lora_a from the global stream; draw it again from our own key, one per module.
    keys = mx.random.split(mx.random.key(seed), len(modules))
    for key, (_, module) in zip(keys, sorted(modules), strict=True):
        shape = module["lora_a"].shape
        inputs = shape[-1] if len(shape) == 3 else shape[-2]  # [experts, rank, inputs] or [inputs, rank]
        bound = inputs**-0.5
        module.lora_a = mx.random.uniform(-bound, bound, shape, key=key)


_NAMES = "names are relative to a layer, such as self_attn.q_proj"


def _refuse_unknown(model: nn.Module, names: tuple[str, ...]) -> None:
    """ModelError for names that mlx-lm would pass over without a word."""
    layers: list[nn.Module] = model.layers  # pyright: ignore[reportAssignmentType]
    known = {name for part in (model, *layers) for name, _ in part.named_modules()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelError(f"model.lora_target_modules: the model has no {', '.join(unknown)}", hint=_NAMES)


def lora_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every adapted module with its path."""
    return [(name, module) for name, module in model.named_modules() if "lora_a" in module]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[nn.Module]:
    """The base model: inside the block every adapted module is replaced by the layer it wraps."""
    adapted = lora_modules(model)
    base = [(name, module[_wrapped(module)]) for name, module in adapted]
    model.update_modules(tree_unflatten(base))
    try:
        yield model
    finally:
        model.update_modules(tree_unflatten(adapted))


def _wrapped(module: nn.Module) -> str:
    return "embedding" if "embedding" in module else "linear"
