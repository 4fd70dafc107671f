"""Decoding on a CPU with numpy's exponential, which takes less than 1 ns a number; MLX's takes 12 to 16 there.

Of a step of 32 rows of a model of 135 M parameters it takes MLX a tenth for the activations of the layers and half as
much for the softmax of their attention. Values go to numpy without a copy, and come back with one. What is computed
here cannot be differentiated: it is for rollouts.
"""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import activations, base  # noqa: TID253 - this module is imported where mlx-lm is in use

from pipelines.models.calls import Calls

OWN_SWIGLU, OWN_ATTENTION = activations.swiglu, base.scaled_dot_product_attention
"""mlx-lm's, which other names may stand for while this is called."""
LEAST = mx.finfo(mx.float32).min
"""The score of what is not seen. A position of the padding sees nothing, and its weights must be numbers still."""


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """mlx-lm's `swiglu`, silu(gate) * x = gate / (1 + exp(-gate)) * x."""
    found = _known(gate) if gate.dtype == x.dtype == mx.float32 else None
    return OWN_SWIGLU(gate, x) if found is None else mx.array(_silu(found)) * x


def attend(  # noqa: PLR0917 - mlx-lm's
    queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: Any = None
) -> mx.array:
    """mlx-lm's `scaled_dot_product_attention`: queries `[N, heads, n, D]`, keys and values `[N, key heads, K, D]`."""
    plain = sinks is None and not hasattr(cache, "bits") and queries.dtype == mx.float32
    shared = mask is None or (isinstance(mask, mx.array) and (mask.ndim < 3 or mask.shape[-3] == 1))  # by all heads
    rows, heads, positions, width = queries.shape
    found = None
    if plain and shared and positions == 1:
        folded = (queries * scale).reshape(rows, keys.shape[1], -1, width)
        scores = folded @ keys.swapaxes(-1, -2)  # [N, key heads, heads / key heads, K]
        if mask is not None:
            scores = mx.where(mask, scores, LEAST) if mask.dtype == mx.bool_ else scores + mask
        found = _known(scores)
    if found is None:
        return OWN_ATTENTION(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    return (mx.array(_softmax(found)) @ values).reshape(rows, heads, 1, -1)


def _known(values: mx.array) -> np.ndarray | None:
    """The numbers themselves; None inside a compiled function, which has none yet."""
    try:
        return np.array(values, copy=False)
    except ValueError:
        return None


@np.errstate(over="ignore", invalid="ignore")  # x / (1 + inf) is 0, as it should be; NaN stays NaN
def _silu(numbers: np.ndarray) -> np.ndarray:
    weights = np.exp(-numbers)
    weights += 1
    return np.divide(numbers, weights, out=weights)


@np.errstate(invalid="ignore")
def _softmax(numbers: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    weights = numbers - numbers.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


CALLS: Calls = [(OWN_SWIGLU, swiglu), (OWN_ATTENTION, attend)]
"""What decoding calls, and what it calls here."""
