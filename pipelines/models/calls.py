"""Functions that a model's layers call: others may stand for them for a while."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlx import nn

Calls = Sequence[tuple[Callable[..., Any], Callable[..., Any]]]
"""(a function of mlx-lm, what is called in its place)"""


@contextmanager
def calling(model: nn.Module, calls: Calls) -> Iterator[None]:
    """Inside the block the model's layers call the functions on the right.

    mlx-lm's models call their functions by names of the module they are defined in, which stand for others meanwhile.
    """
    homes = {sys.modules.get(type(each).__module__) for each in model.modules()} - {None}
    found = [
        (home, name, own, other)
        for own, other in calls
        for home in homes
        for name, value in vars(home).items()
        if value is own
    ]
    try:
        for home, name, _, other in found:
            setattr(home, name, other)
        yield
    finally:
        for home, name, own, _ in found:
            setattr(home, name, own)
