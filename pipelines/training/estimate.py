"""What a run takes of memory, from the shapes of its arrays: nothing is computed, downloaded or written.

peak = what is there all the time (weights, float32 copies, Adam's moments, reference)
     + the most that one of the phases of an update adds: rollouts, the gradient of a micro-batch, the optimizer step.

Each phase is built as a graph of the real model in its worst shapes (`worst`), and the memory that the graph takes is
found by going through it (`models.replay`). Passes that score without learning keep nothing for a gradient, so they
take less than those; evaluations on the way are not looked at.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from pipelines import backend
from pipelines.algorithms.base import Totals
from pipelines.algorithms.losses import LossOutput
from pipelines.algorithms.sft_term import SftTerm
from pipelines.config import ExperimentConfig
from pipelines.generation.width import LOGIT_ARRAYS, rows_at_once
from pipelines.models.batching import batch_cache, cache_step, rows_fit
from pipelines.models.leaves import leaves
from pipelines.models.lora import merges
from pipelines.models.modes import evaluating
from pipelines.models.parts import installed
from pipelines.models.replay import Stages, peak_bytes
from pipelines.training.backward_graph import gradient_stages
from pipelines.training.micro_batches import MicroBatch, micro_batches
from pipelines.training.optimizer import Optimizer
from pipelines.training.passes import Pass
from pipelines.training.sequences import Sequences
from pipelines.training.unloaded import Unloaded, unloaded
from pipelines.training.update import Updater
from pipelines.training.worst import Worst


@dataclass(frozen=True)
class Estimate:
    """Bytes that are there all the time, bytes that each phase adds at its highest, and what finding it took."""

    weights: int
    reference: int
    optimizer: int
    """Adam's moments and float32 copies of weights."""
    rollouts: int
    gradients: int
    """The passes over a micro-batch, and the sums of those before it."""
    step: int
    """The gradient and the optimizer step."""
    seconds: float

    @property
    def peak(self) -> int:
        """What `memory/peak_gb` would reach."""
        return self.weights + self.reference + self.optimizer + max(self.rollouts, self.gradients, self.step)


def estimate(config: ExperimentConfig, worst: Worst) -> Estimate:
    """Of a run with these longest rows. ModelError and ConfigError as when the run begins."""
    started = time.perf_counter()
    parts = unloaded(config)
    updater = parts.updater
    optimizers = [updater.optimizer, *([updater.value_learner.optimizer] if updater.value_learner else [])]
    return Estimate(
        weights=_bytes(leaves(parts.model.parameters())),
        reference=0 if parts.reference is None else _bytes(leaves(parts.reference.parameters())),
        optimizer=sum(_bytes(leaves(each.adam.state)) + _bytes(leaves(each.master or {})) for each in optimizers),
        rollouts=_rollouts(parts, config, worst) if worst.completion_tokens else 0,
        gradients=_gradients(updater, worst),
        step=_step(updater.optimizer),
        seconds=time.perf_counter() - started,
    )


def _bytes(arrays: dict[str, mx.array]) -> int:
    return sum(leaf.nbytes for leaf in {id(leaf): leaf for leaf in arrays.values()}.values())


def _with_weights(model: nn.Module, compute: Callable[[], Stages]) -> tuple[Callable[..., Stages], list[mx.array]]:
    """`compute` as a function of the model's weights, and the weights."""
    weights = leaves(model.parameters())

    def function(*arrays: mx.array) -> Stages:
        with installed(model, dict(zip(weights, arrays, strict=True))):
            return compute()

    return function, list(weights.values())


def _gradients(updater: Updater, worst: Worst) -> int:
    """The passes over the largest micro-batch and the sums of those before it.

    On a GPU two are under way, unless layers are gone back through one by one: then it waits for most of the first.
    """
    summed = 4 * sum(leaf.size for name, leaf in _trainable(updater).items() if name in updater.passes.leaves)
    highest = count = 0
    updater.policy.model.train()
    for passes, sequences in ((updater.passes.policy, worst.sequences), (updater.passes.sft, worst.references)):
        if sequences is None or not passes:
            continue
        shares = updater.policy.stack.shares
        batches = micro_batches(sequences, updater.micro_batch_tokens, may_share=shares)
        count += len(batches)
        several = count > 1
        overlap = backend.on_gpu() and not updater.policy.stack.chains
        passing = _passes(updater, passes, sequences, batches[0], supervised=sequences is worst.references)
        highest = max(highest, passing * (2 if several and overlap else 1) + (summed if several else 0))
    updater.policy.model.eval()
    return highest


def _trainable(updater: Updater) -> dict[str, mx.array]:
    return leaves(updater.policy.model.trainable_parameters())


def _passes(
    updater: Updater, passes: Sequence[Pass], sequences: Sequences, micro_batch: MicroBatch, *, supervised: bool
) -> int:
    """One pass after the other; the gradients of a pass stay until the last one is there."""
    rows, shared = micro_batch
    batch, adjust = sequences.batch(rows, shared=shared), sequences.adjust(rows)
    algorithm, zeros = updater.algorithm, mx.zeros(batch.mask.shape)
    several, kl = algorithm.config.num_iterations > 1, algorithm.config.grpo_beta > 0
    known = batch._replace(
        sampler_logprobs=zeros,
        drawn_logprobs=zeros,
        old_logprobs=zeros if several else None,
        ref_logprobs=zeros if kl else None,
        **(dict.fromkeys(("values", "old_values", "returns"), zeros) if algorithm.uses_values else {}),
    )
    tokens = int(np.array(batch.mask).sum())
    totals = Totals(tokens, batch.mask.shape[0], updater.budget_tokens, zeros.max())

    def loss(logprobs: mx.array, entropies: mx.array) -> LossOutput:
        if supervised:
            return SftTerm(0, tokens).loss(logprobs, known)
        return algorithm.loss(logprobs, entropies, known, totals)

    highest = kept = 0
    for one in passes:
        stages = partial(gradient_stages, updater.policy, one, known, adjust, loss)
        highest = max(highest, kept + peak_bytes(*_with_weights(updater.policy.model, stages)))
        kept += 4 * sum(leaf.size for name, leaf in _trainable(updater).items() if name in one.leaves)
    return highest


def _step(optimizer: Optimizer) -> int:
    """The gradient beside the new weights while Adam's moments go on."""
    adam, own = optimizer.adam, leaves(optimizer.model.trainable_parameters())
    state, exact = dict(adam.state), leaves(optimizer.master or own)
    moments = leaves(state)
    gradients = [mx.zeros(leaf.shape) for leaf in own.values()]

    def function(*arrays: mx.array) -> Stages:
        before, found, moved = arrays[: len(own)], arrays[len(own) : 2 * len(own)], arrays[2 * len(own) :]
        adam.state = tree_unflatten(list(zip(moments, moved, strict=True)))
        scaled = [(name, (g * 0.5).astype(w.dtype)) for name, g, w in zip(own, found, before, strict=True)]
        stepped = adam.apply_gradients(tree_unflatten(scaled), tree_unflatten(list(zip(own, before, strict=True))))
        after = leaves(stepped)
        narrow = [after[name].astype(leaf.dtype) for name, leaf in own.items()] if optimizer.master else []
        return [[*narrow, *after.values(), *leaves(adam.state).values()]]

    arrays = [*exact.values(), *gradients, *moments.values()]
    try:
        return sum(each.nbytes for each in gradients) + peak_bytes(function, arrays, given_up=len(moments))
    finally:
        adam.state = state


def _rollouts(parts: Unloaded, config: ExperimentConfig, worst: Worst) -> int:
    """Prompts, the first token, and the step before the end in which most is there."""
    group, model = config.trainer.num_rollout_samples, parts.model
    width = rows_at_once(model, worst.prompts, group, worst.completion_tokens, config.generation)
    rows = min(width, len(worst.prompts) * group) if rows_fit(model) else 1
    prompts, longest = -(-rows // group), max(map(len, worst.prompts))
    members = mx.array(np.arange(rows) // group)
    with evaluating(model):
        sampling = LOGIT_ARRAYS * 4 * rows * parts.vocabulary + (merges(model) if backend.on_gpu() else 0)
        positions = longest + worst.completion_tokens
        begun = peak_bytes(*_with_weights(model, lambda: _first_token(model, prompts, longest, members, positions)))
        late = peak_bytes(*_with_weights(model, lambda: _last_tokens(model, rows, positions)), uncounted=1)
    return sampling + max(begun, late)


def _first_token(model: nn.Module, prompts: int, width: int, members: mx.array, positions: int) -> Stages:
    """Prompts of one length, their caches copied to the rows of their groups, and the first token of every row."""
    cache = batch_cache(model, [0] * prompts, positions)
    read = _read(model, prompts, width, cache)
    for layer in cache if len(members) > prompts else ():
        layer.filter(members)
    return [read, _decoded(model, read[0][members], cache)]


def _last_tokens(model: nn.Module, rows: int, positions: int) -> Stages:
    """The caches near the end, not counted as they come about, and two more tokens.

    Where the caches have grown since the prompt, the tokens are those at which they grew for the last time.
    """
    step = cache_step(positions)
    grown = (positions - 1) // step * step
    cache = batch_cache(model, [0] * rows, positions)
    stages = [_read(model, rows, grown or max(1, positions - 2), cache)]
    for _ in range(2):
        stages.append(_decoded(model, stages[-1][0], cache))
    return stages


def _read(model: nn.Module, rows: int, width: int, cache: list[Any]) -> list[mx.array]:
    """The logits `[rows, V]` after so many positions, and what the caches hold then."""
    if width > 1:
        model(mx.zeros((rows, width - 1), mx.int32), cache=cache)
    return [model(mx.zeros((rows, 1), mx.int32), cache=cache)[:, -1], *_held(cache)]


def _decoded(model: nn.Module, logits: mx.array, cache: list[Any]) -> list[mx.array]:
    following = model(mx.argmax(logits, axis=-1)[:, None], cache=cache)[:, -1]
    return [following, *_held(cache)]


def _held(cache: list[Any]) -> list[mx.array]:
    return [part for layer in cache for part in _arrays(layer)]


def _arrays(layer: Any) -> list[mx.array]:
    if hasattr(layer, "keys_and_values"):
        return list(layer.keys_and_values())
    return [part for _, part in tree_flatten(layer.state) if isinstance(part, mx.array)]
