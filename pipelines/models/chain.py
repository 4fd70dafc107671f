"""Gradients of a chain of layers, one layer at a time from the last to the first.

A pass keeps what each layer was given and nothing of what happens inside. When the gradient comes to a layer, it is
computed again: on a GPU its forward and backward pass are one compiled function, on CUDA about as fast as a backward
pass that finds everything kept. Where rows share prefixes, a layer is called for the prefixes and then for the rows,
with the keys and values of their prefixes.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from pipelines import backend
from pipelines.models.leaves import leaves
from pipelines.models.lora import narrowed
from pipelines.models.parts import installed
from pipelines.models.prefix import copied
from pipelines.models.stand_ins import StandIn, is_cache

Arrays = dict[str, mx.array]
Way = tuple[tuple[str, ...], tuple[Any, ...]]
"""How a layer is called: the names of the last of its further arguments, and what each is: ARRAY, CACHE, or itself."""

ARRAY, CACHE, UNKNOWN = "an array", "a cache", "something else"
MOST_SHAPES = 32
"""Of micro-batches that compiled functions are kept for: 6 MB of the host's memory each in a model of 30 layers."""
PLAIN = (type(None), bool, int, float, str)
"""Further arguments that may be handed on as they are."""


@dataclass(frozen=True)
class Call:
    """What a layer was given, states `[n, T, H]` and masks, how it was called, and what it gave."""

    states: mx.array
    masks: list[mx.array]
    way: Way
    result: mx.array

    @classmethod
    def of(cls, states: mx.array, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> "Call":
        """Of a cache only that there was one: what is in it need not be kept."""
        others = (*args, *kwargs.values())
        masks = [each for each in others if isinstance(each, mx.array)]
        return cls(states, masks, (tuple(kwargs), tuple(map(_kind, others))), result)


def _kind(argument: Any) -> Any:
    if isinstance(argument, mx.array):
        return ARRAY
    if is_cache(argument):
        return CACHE
    return argument if isinstance(argument, PLAIN) else UNKNOWN


class Recording(StandIn):
    """The layer; its calls are noted."""

    def __init__(self, layer: Any, calls: list[Call], launch: backend.Launch) -> None:
        super().__init__(layer)
        self._calls = calls
        self._launch = launch

    def called(self, states: mx.array, *args: Any, **kwargs: Any) -> Any:
        result = self._layer(states, *args, **kwargs)
        self._calls.append(Call.of(states, args, kwargs, result))
        self._launch([result])
        return result


@dataclass(frozen=True)
class Beginning:
    """What the rows of a pass continue."""

    caches: list[Any]
    """Of the layers, nothing in them yet."""
    padding: mx.array  # [b] int32, of the prefixes
    members: mx.array  # [n] int32, which of them each row continues


@dataclass(frozen=True)
class Tape:
    """The calls of each layer: one, or that of the prefixes and that of the rows."""

    tokens: list[mx.array]
    """What the model was given in each call, `[b, P]` and `[n, T]`."""
    calls: list[list[Call]]
    beginning: Beginning | None
    rows: int
    """n, without those that were added to make their number round."""

    @property
    def understood(self) -> bool:
        """Whether each layer was called once, or twice after prefixes, and only with what can be handed on."""
        if any(len(calls) != (1 if self.beginning is None else 2) for calls in self.calls):
            return False
        every = [call for calls in self.calls for call in calls]
        plain = all(isinstance(call.result, mx.array) for call in every)
        return plain and UNKNOWN not in {kind for call in every for kind in call.way[1]}

    @property
    def last(self) -> mx.array:
        """What the last layer gave the rows, `[n, T, H]`."""
        return self.calls[-1][-1].result[: self.rows]


class Chain:
    """The layers of a model, with the gradient of each as a function."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = list(layers)
        self._functions: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._shapes: set[tuple[Any, ...]] = set()

    def _forget(self, tape: Tape) -> None:
        """Begin anew after MOST_SHAPES: MLX keeps what it compiled for each as long as there is the function."""
        first = tape.calls[0]
        shape = tuple(part.shape for call in first for part in (call.states, *call.masks))
        if shape not in self._shapes and len(self._shapes) == MOST_SHAPES:
            self._functions.clear()
            self._shapes.clear()
        self._shapes.add(shape)

    def backward(
        self, tape: Tape, to_last: mx.array, wanted: Sequence[Arrays], lowest: int, launch: backend.Launch
    ) -> tuple[list[Arrays], list[mx.array]]:
        """Gradients of the wanted leaves of each layer, and of what layer `lowest` was given in each of its calls.

        to_last `[n, T, H]` is the gradient of `tape.last`. `launch` is given what each layer gives in turn.
        """
        added = tape.calls[-1][-1].result.shape[0] - tape.rows
        back = [*(mx.zeros_like(call.result) for call in tape.calls[-1][:-1])]
        back.append(mx.pad(to_last, [(0, added), (0, 0), (0, 0)]))
        self._forget(tape)
        found: list[Arrays] = [{} for _ in self.layers]
        for number in range(len(self.layers) - 1, lowest - 1, -1):
            own, calls = wanted[number], tape.calls[number]
            rest = {name: leaf for name, leaf in leaves(self.layers[number].parameters()).items() if name not in own}
            beginning = [] if tape.beginning is None else [tape.beginning.padding, tape.beginning.members]
            inputs = [call.states for call in calls], [call.masks for call in calls], beginning
            given, back = self._gradient(number, tuple(own), tape)((list(own.values()), rest), inputs, back)
            found[number] = dict(zip(own, given, strict=True))
            launch([*given, *back])
        return found, back

    def _gradient(self, number: int, own: tuple[str, ...], tape: Tape) -> Callable[..., Any]:
        """One function for each way of calling the layer; on a GPU it is compiled once for each shape."""
        ways = tuple(call.way for call in tape.calls[number])
        cache = None if tape.beginning is None else tape.beginning.caches[number]
        key = (number, own, ways, getattr(cache, "step", None))
        if key not in self._functions:
            self._functions[key] = backend.compiled(_gradient(self.layers[number], own, ways, cache))
        return self._functions[key]


Inputs = tuple[list[mx.array], list[list[mx.array]], list[mx.array]]
"""Of all calls of a layer: the states, the masks of each, and the padding and members of the prefixes, or nothing."""


def _gradient(layer: nn.Module, own: tuple[str, ...], ways: tuple[Way, ...], empty: Any) -> Callable[..., Any]:
    """((own leaves, other leaves), inputs, gradients of the results) -> gradients of the own leaves and of the states.

    A function of its arguments alone, whatever the weights were before.
    """

    def gradient(
        weights: tuple[list[mx.array], Arrays], inputs: Inputs, back: list[mx.array]
    ) -> tuple[list[mx.array], list[mx.array]]:
        trained, rest = weights
        states, masks, beginning = inputs

        def forward(*given: mx.array) -> list[mx.array]:
            arrays = rest | dict(zip(own, given[: len(own)], strict=True))
            with installed(layer, narrowed(arrays, states[0].dtype)):
                return _results(layer, ways, (list(given[len(own) :]), masks, beginning), empty)

        _, found = mx.vjp(forward, [*trained, *states], back)
        return found[: len(own)], found[len(own) :]

    return gradient


def _results(layer: nn.Module, ways: tuple[Way, ...], inputs: Inputs, empty: Any) -> list[mx.array]:
    """What the layer gives in each of its calls."""
    cache, beginning = copy(empty), inputs[2]
    results: list[mx.array] = []
    for number, (way, states, masks) in enumerate(zip(ways, *inputs[:2], strict=True)):
        if number == 0 and beginning:
            cache.left_padding, cache.offset = beginning[0], -beginning[0]
        elif beginning:
            copied([cache], beginning[1])
        results.append(_called(layer, way, states, masks, cache))
    return results


def _called(layer: nn.Module, way: Way, states: mx.array, arrays: list[mx.array], cache: Any) -> mx.array:
    names, kinds = way
    masks = iter(arrays)
    others = [next(masks) if kind is ARRAY else cache if kind is CACHE else kind for kind in kinds]
    first = len(others) - len(names)
    return layer(states, *others[:first], **dict(zip(names, others[first:], strict=True)))
