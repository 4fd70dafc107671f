"""The arrays of a parameter tree by name."""

from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten


def leaves(tree: Any) -> dict[str, mx.array]:
    """Dotted name -> array, in the order of the tree."""
    return {name: leaf for name, leaf in tree_flatten(tree) if isinstance(leaf, mx.array)}
