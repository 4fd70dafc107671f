"""LoRA through mlx-lm's own layers, and the base model seen through them (the adapter off)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from pipelines.backend import memory_bytes
from pipelines.config import ModelConfig
from pipelines.errors import ModelError
from pipelines.models.modes import runs

PART_OF_MEMORY = 8
"""Merged weights may take an eighth of it."""


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

    Raises ModelError when a name in `model.lora_target_modules` is no linear layer of the model, or none that it calls.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    _refuse_unknown(model, config.lora_target_modules or ())
    model.freeze()
    try:
        linear_to_lora_layers(model, config.lora_layers, lora_parameters(config))
    except ValueError as error:  # a target that is a whole block or a norm
        raise ModelError(f"model.lora_target_modules: {error}", hint=_NAMES) from error
    _refuse_read(model)
    modules = lora_modules(model)
    if several := [name for name, module in modules if not isinstance(module["lora_a"], mx.array)]:
        raise ModelError(f"adapters on {several[0]} are no pair of matrices", hint=f"name others: {_TARGETS}")
    # mlx-lm draws lora_a from the global stream; draw it again from our own key, one per module.
    keys = mx.random.split(mx.random.key(seed), len(modules))
    for key, (_, module) in zip(keys, sorted(modules), strict=True):
        shape = module["lora_a"].shape
        inputs = shape[-1] if len(shape) == 3 else shape[-2]  # [experts, rank, inputs] or [inputs, rank]
        bound = inputs**-0.5
        module.lora_a = mx.random.uniform(-bound, bound, shape, key=key)


_TARGETS = "model.lora_target_modules, relative to a layer, such as self_attn.q_proj"
_NAMES = "names are relative to a layer, such as self_attn.q_proj"


def _refuse_unknown(model: nn.Module, names: tuple[str, ...]) -> None:
    """ModelError for names that mlx-lm would pass over without a word."""
    layers: list[nn.Module] = model.layers  # pyright: ignore[reportAssignmentType]
    known = {name for part in (model, *layers) for name, _ in part.named_modules()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelError(f"model.lora_target_modules: the model has no {', '.join(unknown)}", hint=_NAMES)


def _refuse_read(model: nn.Module) -> None:
    """ModelError where the model reads weights below an adapter itself, and so could neither use nor find them."""
    if runs(model):
        return
    layers: list[nn.Module] = model.layers  # pyright: ignore[reportAssignmentType]
    adapted = lora_modules(model)
    names = sorted({name for layer in layers for name, module in layer.named_modules() if "lora_a" in module})
    good: list[str] = []
    with adapters_off(model):
        for name in names:
            own = [(path, module) for path, module in adapted if path.endswith(f".{name}")]
            model.update_modules(tree_unflatten(own))
            good += [name] if runs(model) else []
            model.update_modules(tree_unflatten([(path, module[_wrapped(module)]) for path, module in own]))
    read = ", ".join(name for name in names if name not in good)
    raise ModelError(
        f"adapters cannot sit on {read}: the model reads these weights itself",
        hint=f"name the others: model.lora_target_modules: [{', '.join(good)}]",
    )


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


@contextmanager
def adapters_merged(model: nn.Module) -> Iterator[None]:
    """Inside the block adapters are added to copies of the weights that they wrap, if memory has room for those.

    A layer then is one product. The sums are rounded to the weights' type, at random where that is bfloat16: an adapter
    that has learnt little yet moves few of them by as much as it moves all on average, where rounding to the nearest
    would move none. Quantised and float16 layers keep their adapters.
    """
    adapted = [(name, module) for name, module in lora_modules(model) if _mergeable(module)] if merges(model) else []
    keys = mx.random.split(mx.random.key(0), len(adapted)) if adapted else []
    merged = [(name, _merged(module, key)) for (name, module), key in zip(adapted, keys, strict=True)]
    model.update_modules(tree_unflatten(merged))
    try:
        yield
    finally:
        model.update_modules(tree_unflatten(adapted))


def merges(model: nn.Module) -> int:
    """The bytes of the weights that `adapters_merged` makes; 0 if they are too many."""
    size = sum(module[_wrapped(module)].weight.nbytes for _, module in lora_modules(model) if _mergeable(module))
    return size if size <= memory_bytes() // PART_OF_MEMORY else 0


def _mergeable(module: nn.Module) -> bool:
    base = module[_wrapped(module)]
    return hasattr(module, "fuse") and "scales" not in base and base.weight.dtype in (mx.bfloat16, mx.float32)


def _merged(module: Any, key: mx.array) -> nn.Module:
    """mlx-lm's `fuse`, of float32 weights."""
    base = module[_wrapped(module)]
    stored = base.weight
    base.weight = stored.astype(mx.float32)
    fused = module.fuse()
    base.weight = stored
    if stored.dtype == mx.bfloat16:
        fused.weight = rounded_at_random(fused.weight, key)
    return fused


def rounded_at_random(values: mx.array, key: mx.array) -> mx.array:
    """Float32 to bfloat16, up or down in proportion to how near each is, so that nothing is lost on average."""
    noise = mx.random.randint(0, 2**16, values.shape, mx.uint32, key=key)  # of the bits that bfloat16 leaves out
    return ((values.view(mx.uint32) + noise) & 0xFFFF0000).view(mx.float32).astype(mx.bfloat16)


def narrowed(arrays: dict[str, mx.array], dtype: mx.Dtype) -> dict[str, mx.array]:
    """Adapters in the type of what they are applied to if that is bfloat16, other leaves as they are.

    Not in float16, where small gradients would be lost.
    """
    if dtype != mx.bfloat16:
        return arrays
    return {name: leaf.astype(dtype) if is_adapter(name) else leaf for name, leaf in arrays.items()}


def is_adapter(name: str) -> bool:
    """Whether a leaf of this name is a part of an adapter."""
    return name.rpartition(".")[2] in ("lora_a", "lora_b")


def _wrapped(module: nn.Module) -> str:
    return "embedding" if "embedding" in module else "linear"
