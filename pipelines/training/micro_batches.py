"""How the rows of an update become micro-batches: which rows together, and how many tokens at once."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx import nn

from pipelines import backend
from pipelines.models.layers import LayerStack
from pipelines.models.leaves import leaves
from pipelines.models.tiles import learning_length, prefix_length
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.sequences import Sequences

PART_OF_MEMORY = 8
"""An eighth of the memory is for what a micro-batch keeps for its backward pass."""
KEPT_PER_OUTPUT = 4
"""Numbers kept for each output of a linear layer: 3 to 4 were measured on a llama, attention and norms included."""
MOST_TOKENS = {"cpu": 2048, "gpu": 40_960}
"""More tokens than this in a micro-batch gain no speed."""
ENOUGH_BYTES = 640 * 2**20
"""What a micro-batch may keep on a CPU in any case: 250 tokens of a model of 135 M parameters, as fast as 2,000."""
SHARING_SAVES = 0.9
"""Prompts are shared where that leaves no more of the tokens than this: rows of one group differ in length."""


class MicroBatch(NamedTuple):
    """Rows that go through the model together; `shared`: what their prompts have before the last token is a prefix."""

    rows: np.ndarray
    shared: bool


def micro_batches(
    sequences: Sequences, most_tokens: int, *, may_share: bool = False, ranks: Ranks = ALONE
) -> list[MicroBatch]:
    """Every row that has an active token, in micro-batches of at most `most_tokens` padded tokens, or of one row.

    Rows of like length share a batch, or those of one prompt, if they may and that makes fewer tokens in all. Several
    ranks get equal shares of the tokens.
    """
    whole = _all_of(sequences, most_tokens, may_share=may_share)
    if ranks.size == 1:
        return whole
    lengths = sequences.lengths()
    share = -(-sum(_tokens(sequences, lengths, batch) for batch in whole) // ranks.size)
    return ranks.dealt(_all_of(sequences, min(most_tokens, share), may_share=may_share))


def _all_of(sequences: Sequences, most_tokens: int, *, may_share: bool) -> list[MicroBatch]:
    rows = [row for row in range(len(sequences)) if sequences.active(row).any()]
    apart = list(_apart(sequences, rows, most_tokens))
    if not may_share or any(len(sequences.prompts[row]) == 1 for row in rows):
        return apart
    shared = list(_shared(sequences, rows, most_tokens))
    lengths = sequences.lengths()
    sizes = [sum(_tokens(sequences, lengths, batch) for batch in batches) for batches in (apart, shared)]
    return shared if sizes[1] <= SHARING_SAVES * sizes[0] else apart


def _apart(sequences: Sequences, rows: list[int], most_tokens: int) -> Iterator[MicroBatch]:
    """Longest rows first."""
    lengths = sequences.lengths()
    order = np.array(sorted(rows, key=lambda row: -lengths[row]), int)
    start = 0
    while start < len(order):
        count = max(1, most_tokens // learning_length(int(lengths[order[start]])))
        yield MicroBatch(order[start : start + count], shared=False)
        start += count


def _shared(sequences: Sequences, rows: list[int], most_tokens: int) -> Iterator[MicroBatch]:
    """Rows of one prompt after each other, the prompt with the longest row first."""
    lengths, prompts = sequences.lengths(), [prompt.tobytes() for prompt in sequences.prompts]
    longest = dict.fromkeys(prompts, 0)
    for row in rows:
        longest[prompts[row]] = max(longest[prompts[row]], int(lengths[row]))
    batch, shape = list[int](), _Shape()
    for row in sorted(rows, key=lambda row: (-longest[prompts[row]], prompts[row], -lengths[row])):
        pair = sequences.prompts[row], sequences.completions[row]
        if batch and shape.with_row(*pair).tokens > most_tokens:
            yield MicroBatch(np.array(batch), shared=True)
            batch, shape = [], _Shape()
        batch.append(row)
        shape = shape.with_row(*pair)
    if batch:
        yield MicroBatch(np.array(batch), shared=True)


class _Shape(NamedTuple):
    """Of a micro-batch whose rows share prompts."""

    rows: int = 0
    prompts: frozenset[bytes] = frozenset()
    prefix: int = 0
    rest: int = 0
    """The last prompt token, and the completion but for its last."""

    def with_row(self, prompt: np.ndarray, completion: np.ndarray) -> "_Shape":
        """And one more row."""
        prompts = self.prompts | {prompt.tobytes()}
        return _Shape(self.rows + 1, prompts, max(self.prefix, len(prompt) - 1), max(self.rest, len(completion)))

    @property
    def tokens(self) -> int:
        """Of the padded arrays."""
        return len(self.prompts) * prefix_length(self.prefix) + self.rows * learning_length(self.rest)


def _tokens(sequences: Sequences, lengths: np.ndarray, batch: MicroBatch) -> int:
    """Of the padded arrays."""
    if not batch.shared:
        return len(batch.rows) * learning_length(int(lengths[batch.rows].max()))
    shape = _Shape()
    for row in batch.rows:
        shape = shape.with_row(sequences.prompts[row], sequences.completions[row])
    return shape.tokens


def automatic_tokens(stack: LayerStack) -> int:
    """`micro_batch_tokens: auto`: as many as a part of the memory has room for, by the widths of the model's layers.

    On a CPU no more than ENOUGH_BYTES take, or twice the gradient, which is added up in each micro-batch. On a GPU more
    tokens are faster, and of layers that are gone back through one by one only what each is given is kept, and a few.
    """
    layers = stack.layers
    kept_bytes = KEPT_PER_OUTPUT * sum(map(_output_bytes, layers))
    if stack.chains and backend.on_gpu():
        whole = KEPT_PER_OUTPUT * max(map(_output_bytes, layers)) * (backend.TURNS_UNDER_WAY + 1)
        kept_bytes = min(kept_bytes, whole + len(layers) * stack.begin(mx.array([[0]])).nbytes)
    room = backend.memory_bytes() // PART_OF_MEMORY
    if not backend.on_gpu():
        room = min(room, max(ENOUGH_BYTES, 2 * sum(_gradient_bytes(layer) for layer in layers)))
    most = MOST_TOKENS["gpu" if backend.on_gpu() else "cpu"]
    return max(1, min(most, room // max(1, kept_bytes)))


def _output_bytes(layer: nn.Module) -> int:
    """What the outputs of a layer's matrices `[outputs, inputs]` take for one token."""
    wide = [leaf for name, leaf in leaves(layer.parameters()).items() if leaf.ndim > 1 and name.endswith("weight")]
    return sum(leaf.shape[-2] * max(2, leaf.dtype.size) for leaf in wide)


def _gradient_bytes(layer: nn.Module) -> int:
    return 4 * sum(leaf.size for leaf in leaves(layer.trainable_parameters()).values())
