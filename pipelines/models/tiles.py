"""Lengths that suit a GPU: attention on CUDA, which MLX leaves to cuDNN for some, and functions that are compiled."""

from pipelines import backend

TILE = 64
"""Keys come in multiples of it, so that attention has few shapes: cuDNN makes a plan for each."""
GRADIENT_TILE = 128
"""MLX has the gradient of attention computed by cuDNN for multiples of so many queries only."""
ROUND_TOKENS, ROUND_ROWS, ROUND_PREFIXES = 32, 16, 4
"""On a GPU, where layers are compiled for each shape, lengths and numbers of rows are multiples of these."""
MOST_PADDED = 1.5
"""Rows are padded to such a multiple where that makes them at most so much longer; a token then costs 0.6 as much."""


def tiles(length: int) -> int:
    """The next multiple of TILE."""
    return _next(length, TILE)


def learning_length(length: int) -> int:
    """How long rows of so many tokens are made for a pass with a gradient."""
    if not backend.on_gpu():
        return length
    longer = _next(length, GRADIENT_TILE)
    return longer if backend.on_cuda() and longer <= MOST_PADDED * length else _next(length, ROUND_TOKENS)


def prefix_length(length: int) -> int:
    """How long prefixes of so many tokens are made for it."""
    return _next(length, ROUND_TOKENS) if backend.on_gpu() else length


def learning_rows(rows: int, round_number: int) -> int:
    """How many rows are made of so many in such a pass, which is compiled for each number."""
    return _next(rows, round_number) if backend.on_gpu() and rows > round_number else rows


def _next(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
