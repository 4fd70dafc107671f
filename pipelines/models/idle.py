"""Leaves that a model has and learns nothing with.

Some only choose: a bias on a router's scores decides which experts are asked, and what those say does not depend on it.
Others are not used at all. Their gradient is 0, and rightly so. Where a model cuts a gradient off it is 0 as well, but
a small step of the leaf changes what the model says. Packed numbers, no floating ones, have no gradient either.
"""

import mlx.core as mx
from mlx import nn

from pipelines.models.leaves import leaves
from pipelines.models.logprobs import SplitModel
from pipelines.models.modes import evaluating
from pipelines.models.parts import installed

PROBE = mx.arange(16)[None] % 3
"""Enough tokens that attention has a choice, and ids that any vocabulary has: gradients of others would go anywhere."""

SMALL = {4: 1e-6, 2: 2.0**-8}
"""A step, as a part of the largest number of a leaf, by the bytes of a number: seen in the logits, and too short to
exchange the experts of a token, but by chance."""


def idle_leaves(model: nn.Module, split: SplitModel) -> frozenset[str]:
    """Trainable leaves that get no gradient and change no logit of a short input by a small step.

    Those without gradient take the step together: if one of them does matter, none is idle, and the self-check of the
    first updates finds out which.
    """
    trainable = leaves(model.trainable_parameters())
    own = {name: leaf for name, leaf in trainable.items() if mx.issubdtype(leaf.dtype, mx.floating)}
    packed = frozenset(trainable.keys() - own.keys())
    silent = _without_gradient(model, split, own)
    if not silent:
        return packed
    with evaluating(model):
        before = _logits(split)
        with installed(model, {name: _stepped(own[name]) for name in silent}):
            after = _logits(split)
        return packed.union(silent) if mx.array_equal(before, after).item() else packed


def _logits(split: SplitModel) -> mx.array:
    return split.head(split.body(PROBE))


def _without_gradient(model: nn.Module, split: SplitModel, own: dict[str, mx.array]) -> list[str]:
    training = model.training

    def summed(given: dict[str, mx.array]) -> mx.array:
        with installed(model, given):
            logits = _logits(split).astype(mx.float32)
        return (logits * mx.random.normal(logits.shape, key=mx.random.key(0))).sum()

    model.train()  # for the kernels that have a gradient
    try:
        reached = {name: leaf.any() for name, leaf in mx.grad(summed)(own).items()} if own else {}
        mx.eval(reached)
    finally:
        model.train(training)
    silent = {name for name, found in reached.items() if not found.item()}
    # LoRA's A has no gradient as long as B is zero.
    return [name for name in silent if not name.endswith("lora_a") or f"{name.removesuffix('lora_a')}lora_b" in silent]


def _stepped(leaf: mx.array) -> mx.array:
    size = mx.abs(leaf).max()
    return leaf + SMALL[leaf.dtype.size] * mx.where(size > 0, size, 1.0).astype(leaf.dtype)
