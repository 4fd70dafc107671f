"""A function of many rows, computed in parts, so that its memory is that of one part, forwards and backwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from pipelines.models.leaves import leaves

Function = Callable[[mx.array, slice], tuple[mx.array, ...]]
"""(states `[m, H]` of a part, the part) -> arrays `[m]`."""


def in_parts(function: Function, states: mx.array, rows: int, module: nn.Module) -> tuple[mx.array, ...]:
    """`function` of states `[M, H]` by parts of `rows`, joined to arrays `[M]`.

    Nothing of a part but its result is kept: the backward pass computes it again, one part after the other. Gradients
    go to the states and to the trainable leaves of `module`, which are all that the function may read; those of the
    leaves are summed in float32.
    """
    parts = [slice(start, start + rows) for start in range(0, states.shape[0], rows)]
    own = leaves(module.trainable_parameters())

    def one(part: slice, piece: mx.array, arrays: tuple[mx.array, ...]) -> tuple[mx.array, ...]:
        with installed(module, dict(zip(own, arrays, strict=True))):
            return function(piece, part)

    @mx.custom_function
    def whole(states: mx.array, *arrays: mx.array) -> tuple[mx.array, ...]:
        found: list[tuple[mx.array, ...]] = []
        for part in parts:
            piece = _after(states[part], found[-1] if found else ())
            found.append(one(part, piece, arrays))
        return tuple(mx.concatenate(list(pieces)) for pieces in zip(*found, strict=True))

    @whole.vjp
    def backward(primals, cotangents, _outputs):  # pyright: ignore[reportUnusedFunction]
        states, *arrays = primals if own else (primals,)  # MLX hands over a single one by itself
        to_states: list[mx.array] = []
        to_leaves = [mx.zeros(array.shape) for array in arrays]
        for part in parts:
            piece = _after(states[part], (to_states[-1], *to_leaves) if to_states else ())
            asked = [cotangent[part] for cotangent in cotangents]
            _, found = mx.vjp(lambda piece, *arrays, part=part: one(part, piece, arrays), [piece, *arrays], asked)
            to_states.append(found[0])
            to_leaves = [total + leaf for total, leaf in zip(to_leaves, found[1:], strict=True)]
        typed = [total.astype(array.dtype) for total, array in zip(to_leaves, arrays, strict=True)]
        return (mx.concatenate(to_states), *typed)

    return cast("tuple[mx.array, ...]", whole(states, *own.values()))


def is_random(module: nn.Module) -> bool:
    """Whether a module drops some of its inputs now: computed again, it would drop others."""
    return any(each.training for each in _dropouts(module))


def may_drop(module: nn.Module) -> bool:
    """Whether it does when it is in training mode."""
    return bool(_dropouts(module))


def _dropouts(module: nn.Module) -> list[nn.Dropout]:
    drops = [each for each in module.modules() if isinstance(each, nn.Dropout)]
    return [each for each in drops if getattr(each, "_p_1", 0.0) < 1]  # MLX keeps 1 - p under this name


def _after(piece: mx.array, earlier: tuple[mx.array, ...]) -> mx.array:
    """The same array, not to be used before the earlier ones are there: the device would begin all parts at once."""
    return mx.depends(piece, list(earlier)) if earlier else piece


@contextmanager
def installed(module: nn.Module, arrays: dict[str, mx.array]) -> Iterator[None]:
    """Inside the block the module's leaves are these arrays."""
    before = {name: leaf for name, leaf in leaves(module.parameters()).items() if name in arrays}
    module.update(tree_unflatten(list(arrays.items())))
    try:
        yield
    finally:
        module.update(tree_unflatten(list(before.items())))
