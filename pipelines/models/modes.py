"""Decode and score as the model is used, without dropout, and go on training as before; try whether it can be used."""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
from mlx import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the block (dropout off); the mode before it afterwards, whatever happens inside."""
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)


def runs(model: nn.Module) -> bool:
    """Whether a model whose layers were exchanged can be called: some read weights of theirs. Nothing is computed."""
    try:
        model(mx.array([[0, 1, 2]]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True
