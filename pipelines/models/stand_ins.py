"""What takes the place of a layer while a model is run in parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from pipelines.models.leaves import leaves
from pipelines.models.parts import installed


def layers_of(model: nn.Module) -> list[Any]:
    """The list of layers that the model goes through; what some models show as theirs is a copy."""
    shown: list[Any] = getattr(model, "layers", [])
    inner = getattr(getattr(model, "model", None), "layers", None)
    if isinstance(inner, list) and list(map(id, inner)) == list(map(id, shown)):
        return inner
    return shown


@contextmanager
def standing_in(layers: list[Any], stand_ins: Sequence[Any]) -> Iterator[None]:
    """Inside the block these stand where the layers do."""
    whole = list(layers)
    layers[:] = stand_ins
    try:
        yield
    finally:
        layers[:] = whole


def is_cache(argument: Any) -> bool:
    """Whether a layer was handed a cache, and not a mask or the like."""
    return hasattr(argument, "update_and_fetch")


class StandIn:
    """Takes the place of a layer; what else a model asks of its layers, their class too, it finds on the layer."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    @property
    def __class__(self) -> Any:
        """Models of two kinds of layers ask `isinstance` which mask one wants."""
        return self._layer.__class__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The states come first, by place or by name."""
        if not args:
            args = (kwargs.pop(next(iter(kwargs))),)
        return self.called(*args, **kwargs)

    def called(self, states: mx.array, *args: Any, **kwargs: Any) -> Any:
        """What stands for the layer's call."""
        return self._layer(states, *args, **kwargs)


class Checkpointed(StandIn):
    """The layer itself and not its class, which other models may share.

    All arrays that it is called with are arguments of what is computed again, those in tuples too, since no gradient
    would go to any other: some layers hand on their keys and values. With a cache it keeps everything: computed again
    it would grow twice, and what others find in it has no gradient.
    """

    def called(self, states: mx.array, *args: Any, **kwargs: Any) -> Any:
        given = [leaf for _, leaf in tree_flatten([args, kwargs])]
        if any(map(is_cache, given)):
            return self._layer(states, *args, **kwargs)
        others = [leaf for leaf in given if isinstance(leaf, mx.array)]

        def compute(own: dict[str, mx.array], states: mx.array, *arrays: mx.array) -> Any:
            left = iter(arrays)
            placed, named = tree_map(lambda leaf: next(left) if isinstance(leaf, mx.array) else leaf, [args, kwargs])
            with installed(self._layer, own):
                return self._layer(states, *placed, **named)

        return mx.checkpoint(compute)(leaves(self._layer.trainable_parameters()), states, *others)


class Skipped(StandIn):
    """Hands on what it is given."""

    def called(self, states: mx.array, *_args: Any, **_kwargs: Any) -> mx.array:
        return states


class Given(StandIn):
    """Hands on what it was made with."""

    def __init__(self, layer: Any, states: mx.array) -> None:
        super().__init__(layer)
        self._states = states

    def called(self, _states: mx.array, *_args: Any, **_kwargs: Any) -> mx.array:
        return self._states


class Entered(Given):
    """The layer, which is given something else than what comes."""

    def called(self, _states: mx.array, *args: Any, **kwargs: Any) -> Any:
        return self._layer(self._states, *args, **kwargs)


class Listening(StandIn):
    """The layer; what it is given is noted."""

    def __init__(self, layer: Any, noted: list[mx.array]) -> None:
        super().__init__(layer)
        self._noted = noted

    def called(self, states: mx.array, *args: Any, **kwargs: Any) -> Any:
        self._noted.append(states)
        return self._layer(states, *args, **kwargs)
