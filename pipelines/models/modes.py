"""Decode and score as the model is used, without dropout, and go on training as before."""

from collections.abc import Iterator
from contextlib import contextmanager

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
