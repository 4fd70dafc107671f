"""Quantised weights, through mlx-lm: the matrices that it quantises, in groups of numbers that share a scale."""

import logging
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from mlx import nn

from pipelines.errors import ModelError
from pipelines.models.leaves import leaves
from pipelines.models.modes import runs

GROUP_SIZES = (64, 32)
"""Of a base under adapters the first that divides every matrix, else the last."""

_AS_IT_IS = "leave it as it is: without model.quantize_bits or --quantize"

log = logging.getLogger(__name__)


def is_quantised(config: dict[str, Any]) -> bool:
    """Whether a config.json describes quantised weights, in mlx-lm's form or that of others."""
    return bool(config.get("quantization") or config.get("quantization_config"))


def quantise(model: nn.Module, config: dict[str, Any], bits: int, group_size: int) -> dict[str, Any]:
    """Quantise in place what mlx-lm quantises, and return the configuration that says so.

    ModelError if no layer can be divided into groups of that size, or the model cannot be called with such layers.
    """
    from mlx_lm.utils import quantize_model

    with redirect_stdout(StringIO()) as said:  # mlx-lm prints, and our stdout is for data
        try:
            _, quantised = quantize_model(
                model, config, group_size, bits, quant_predicate=_own_wishes(model, group_size)
            )
        except TypeError as error:  # an architecture with linear layers of its own
            raise ModelError(f"mlx-lm cannot quantise this model: {error}", hint=_AS_IT_IS) from error
    if not any("scales" in module for module in model.modules()):
        raise ModelError(f"no layer is a multiple of {group_size} wide", hint="give a smaller --group-size: 32 or 64")
    if not runs(model):
        raise ModelError(
            "this model cannot be quantised: it reads weights itself and would take packed numbers for others",
            hint=_AS_IT_IS,
        )
    log.info("%s", said.getvalue().strip().removeprefix("[INFO] "))
    _tell_left_out(model, group_size)
    return quantised


def _own_wishes(model: nn.Module, group_size: int) -> Callable[[str, nn.Module], bool | dict[str, Any]]:
    """How an architecture wants single layers quantised (mlx-lm's `quant_predicate`), in groups that divide them."""
    wanted = getattr(model, "quant_predicate", None) or (lambda _path, _module: True)

    def fitting(path: str, module: nn.Module) -> bool | dict[str, Any]:
        wish = wanted(path, module)
        if isinstance(wish, dict) and module["weight"].shape[-1] % wish.get("group_size", group_size):
            return wish | {"group_size": group_size}
        return wish

    return fitting


def _tell_left_out(model: nn.Module, group_size: int) -> None:
    """Warn of matrices that mlx-lm passed over, since the model is then larger than its bits promise."""
    modules = [module for module in model.modules() if isinstance(module, nn.Module)]
    left = [module["weight"].shape[-1] for module in modules if hasattr(module, "to_quantized")]
    if left:
        better = next((size for size in GROUP_SIZES if all(width % size == 0 for width in left)), None)
        log.warning(
            "%d of %d matrices are no multiple of %d wide and stay as they are%s",
            len(left),
            len(left) + sum("scales" in module for module in modules),
            group_size,
            f"; groups of {better} fit all of them" if better else "",
        )


def quantise_base(model: nn.Module, config: dict[str, Any], bits: int) -> dict[str, Any]:
    """`model.quantize_bits`: quantise what will be frozen under adapters; ModelError for what is quantised already."""
    if is_quantised(config):
        raise ModelError("model.quantize_bits: the model is quantised already", hint="set model.quantize_bits to null")
    widths = {leaf.shape[-1] for leaf in leaves(model.parameters()).values() if leaf.ndim > 1}
    fitting = (size for size in GROUP_SIZES if all(width % size == 0 for width in widths))
    return quantise(model, config, bits, next(fitting, GROUP_SIZES[-1]))
