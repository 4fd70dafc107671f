"""The backward pass of a micro-batch as one graph that can be read: what `gradients.backward` computes, for `estimate`.

`mx.export_function` cannot read operations with gradients of their own, which the head in parts is. Here it is written
out: the head's gradient is found first and handed down to the hidden states.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from pipelines.algorithms.base import Batch
from pipelines.algorithms.losses import LossOutput
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import Adjust, Spots, spots
from pipelines.models.parts import installed
from pipelines.models.replay import Stages
from pipelines.training.passes import Pass
from pipelines.training.policy import Policy
from pipelines.training.recorded import Recorded

Arrays = dict[str, mx.array]
Loss = Callable[[mx.array, mx.array], LossOutput]
"""Of log-probabilities and entropies `[n, C]`."""


@dataclass(frozen=True)
class Above:
    """What the head and the loss give."""

    to_hidden: mx.array  # [n, T, H], the gradient of the last hidden states
    gradients: Arrays  # of the head's leaves, under the names they have in the model
    noted: list[mx.array]


Head = Callable[[mx.array], Above]


def gradient_stages(policy: Policy, one: Pass, batch: Batch, adjust: Adjust | None, loss: Loss) -> Stages:
    """The gradients of a pass that learns from every completion token, float32, and what the loss has to say."""
    at = spots(batch.tokens, batch.starts, batch.completions, batch.mask)
    stages = Stages()
    if policy.stack.chains:
        recorded = Recorded.of(policy, batch, adjust, stages.append)
        noted, gradients = recorded.gradients(one, at, lambda _, __, scored: _lost(loss, *scored), {})
    else:
        gradients, noted = _kept(policy, one, batch, lambda hidden: _head(policy, hidden, at, adjust, loss))
    return [*stages, [*(leaf.astype(mx.float32) for leaf in gradients.values()), *noted]]


def _kept(policy: Policy, one: Pass, batch: Batch, head: Head) -> tuple[Arrays, list[mx.array]]:
    """Every layer keeps what its backward pass needs."""

    def forward(own: Arrays) -> tuple[mx.array, tuple[Arrays, list[mx.array]]]:
        policy.model.update(tree_unflatten(list(own.items())))
        hidden = policy.stack.run(batch.tokens, prefix=batch.prefix).hidden
        above = head(mx.stop_gradient(hidden))
        return (hidden * mx.stop_gradient(above.to_hidden)).sum(), (above.gradients, above.noted)

    (_, (above, noted)), found = mx.value_and_grad(forward)(policy.trained(one.leaves))
    return {name: leaf + above[name] if name in above else leaf for name, leaf in found.items()}, noted


def _head(policy: Policy, hidden: mx.array, at: Spots, adjust: Adjust | None, loss: Loss) -> Above:
    """`logprobs.score`, the loss and their gradient, the head in parts as `parts.in_parts` makes them."""
    split, asked = policy.split, at.states.shape[0]
    rows = split.rows_at_once() or asked
    plain = replace(policy, split=replace(split, head_module=None))
    module = nn.Module() if split.head_module is None else split.head_module()
    own = {name: mx.stop_gradient(leaf) for name, leaf in leaves(module.trainable_parameters()).items()}

    def score(states: mx.array) -> tuple[mx.array, ...]:
        scored = plain.score(states[None], _all_spots(states.shape[0]), adjust)
        return scored.logprobs[0], scored.entropies[0]

    def lost(*scores: mx.array) -> tuple[mx.array, list[mx.array]]:
        return _lost(loss, *(at.spread(each) for each in scores))

    flat = hidden.reshape(-1, hidden.shape[-1])
    states = flat[at.states]
    parts = [states[start : start + rows] for start in range(0, asked, rows)]
    to_states, summed, noted = (_at_once if len(parts) == 1 else _in_parts)(
        _of_leaves(module, own, score), lost, parts, list(own.values())
    )
    to_hidden = mx.zeros(flat.shape, flat.dtype).at[at.states].add(to_states).reshape(hidden.shape)
    prefix = "" if split.head_module is None else policy.stack.head_prefix
    return Above(to_hidden, dict(zip((prefix + name for name in own), summed, strict=True)), noted)


def _lost(loss: Loss, *scores: mx.array) -> tuple[mx.array, list[mx.array]]:
    """The loss, and all there is to note."""
    output = loss(*scores)
    return output.loss, [*scores, output.loss, *output.metrics.values()]


Scores = Callable[..., tuple[mx.array, ...]]
"""(states `[m, H]`, leaves) -> log-probabilities and entropies `[m]`."""
Lost = Callable[..., tuple[mx.array, list[mx.array]]]
"""Scores of all M -> the loss, and all there is to note."""


def _at_once(
    score: Scores, lost: Lost, parts: list[mx.array], own: list[mx.array]
) -> tuple[mx.array, list[mx.array], list[mx.array]]:
    """The gradients of the states and of the leaves, and what is noted."""
    (_, noted), found = mx.value_and_grad(lambda given: lost(*score(*given)))([*parts, *own])
    return found[0], found[1:], noted


def _in_parts(
    score: Scores, lost: Lost, parts: list[mx.array], own: list[mx.array]
) -> tuple[mx.array, list[mx.array], list[mx.array]]:
    """The same; a part begins when the one before it is done."""
    scores: list[tuple[mx.array, ...]] = []
    for part in parts:
        scores.append(score(mx.depends(part, list(scores[-1])) if scores else part, *own))
    joined = [mx.concatenate(list(each)) for each in zip(*scores, strict=True)]
    (_, noted), asked = mx.value_and_grad(lost, argnums=[0, 1])(*joined)
    given, summed, start = list[mx.array](), [mx.zeros(leaf.shape) for leaf in own], 0
    for part in parts:
        own_asked = [each[start : start + part.shape[0]] for each in asked]
        start += part.shape[0]
        after = mx.depends(part, [*given[-1:], *(summed if given else ()), *own_asked])
        _, (to_part, *found) = mx.vjp(score, [after, *own], own_asked)
        given.append(to_part)
        summed = [total + leaf for total, leaf in zip(summed, found, strict=True)]
    return mx.concatenate(given), summed, noted


def _all_spots(rows: int) -> Spots:
    """All of so many states, in their order."""
    places = mx.arange(rows, dtype=mx.int32)
    return Spots(states=places, targets=mx.zeros(rows, mx.int32), cells=places, places=places[None])


def _of_leaves(module: nn.Module, own: Arrays, call: Callable[[mx.array], Any]) -> Callable[..., Any]:
    """`call` as a function of states and of the module's leaves."""

    def function(states: mx.array, *arrays: mx.array) -> Any:
        with installed(module, dict(zip(own, arrays, strict=True))):
            return call(states)

    return function
