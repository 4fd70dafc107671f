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

    Raises ModelError when `model.lora_target_modules` matches no linear layer.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model.freeze()
    linear_to_lora_layers(model, config.lora_layers, lora_parameters(config))
    modules = lora_modules(model)
    if not modules:
        raise ModelError(
            f"model.lora_target_modules: none of {list(config.lora_target_modules or [])} is a layer of the model",
            hint="names are relative to a layer, such as self_attn.q_proj",
        )
    # mlx-lm draws lora_a from the global stream; draw it again from our own key, one per module.
    keys = mx.random.split(mx.random.key(seed), len(modules))
    for key, (_, module) in zip(keys, sorted(modules), strict=True):
        shape = module["lora_a"].shape
        bound = shape[-2] ** -0.5
        module.lora_a = mx.random.uniform(-bound, bound, shape, key=key)


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
