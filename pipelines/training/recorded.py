"""The gradient of a micro-batch step by step: the loss, the head, what follows the last layer, then layer by layer.

Autodiff over all of it would keep what happens inside each layer and nothing of it could be compiled, for the loss may
be anybody's. Here each step hands its gradient to the next, so all but the loss itself is compiled on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from pipelines import backend
from pipelines.algorithms.base import Batch
from pipelines.models.chain import Tape
from pipelines.models.logprobs import Adjust, Scored, Spots
from pipelines.models.parts import installed
from pipelines.training.passes import Pass
from pipelines.training.policy import Policy

Arrays = dict[str, mx.array]
Lost = Callable[[Arrays, mx.array, Scored], tuple[mx.array, Any]]
"""(leaves beside the model's, last hidden states `[n, T, H]`, scores `[n, C]`) -> the loss, and what is to be noted."""

_HIDDEN, _LOGPROBS, _ENTROPIES = "hidden states", "log-probabilities", "entropies"


@dataclass(frozen=True)
class Recorded:
    """A pass over a micro-batch, from which the gradients of several losses can be had."""

    policy: Policy
    batch: Batch
    adjust: Adjust | None
    tape: Tape
    launch: backend.Launch

    @classmethod
    def of(cls, policy: Policy, batch: Batch, adjust: Adjust | None, launch: backend.Launch) -> "Recorded":
        """Run the layers."""
        return cls(policy, batch, adjust, policy.stack.record(batch.tokens, launch, prefix=batch.prefix), launch)

    def gradients(self, one: Pass, at: Spots, lost: Lost, beside: Arrays) -> tuple[Any, Arrays]:
        """What is noted, and the gradients of the pass's leaves and of those beside the model's.

        The tokens `at` are scored with a gradient. No leaf of the model is changed.
        """
        stack = self.policy.stack
        outside = {name: leaf for name, leaf in self.policy.trained(one.leaves).items() if stack.layer_of(name) is None}
        hidden = self._finish(self.tape.last, outside)
        states = hidden.reshape(-1, hidden.shape[-1])
        scores = stack.head.score(states[at.states], at, self.policy.temperature, self.adjust, self.launch)
        noted, found = self._loss(lost, hidden, Scored(at.spread(scores.logprobs), at.spread(scores.entropies)), beside)
        to_logprobs, to_entropies = (found.pop(name).reshape(-1)[at.cells] for name in (_LOGPROBS, _ENTROPIES))
        to_states, of_head = scores.backward(to_logprobs, to_entropies, self.launch)
        to_hidden = found.pop(_HIDDEN) + mx.zeros_like(states).at[at.states].add(to_states).reshape(hidden.shape)
        _, (to_last, *after) = mx.vjp(
            lambda last, *arrays: self._finish(last, dict(zip(outside, arrays, strict=True))),
            [self.tape.last, *outside.values()],
            [to_hidden],
        )
        below = stack.backward(self.tape, to_last, one.leaves, one.lowest, self.launch)
        of_head = {stack.head_prefix + name: leaf for name, leaf in of_head.items()}
        return noted, found | _added(dict(zip(outside, after, strict=True)), of_head, below, wanted=one.leaves)

    def _finish(self, last: mx.array, outside: Arrays) -> mx.array:
        with installed(self.policy.model, outside):
            return self.policy.stack.finish(self.batch.tokens, last)

    def _loss(self, lost: Lost, hidden: mx.array, scored: Scored, beside: Arrays) -> tuple[Any, Arrays]:
        """What is noted, and the gradients of the scores, of the hidden states and of the leaves beside."""

        def loss(given: Arrays) -> tuple[mx.array, Any]:
            entropies = given[_ENTROPIES] if self.policy.entropy_gradient else mx.stop_gradient(given[_ENTROPIES])
            fresh = Scored(given[_LOGPROBS], entropies)
            return lost({name: given[name] for name in beside}, given[_HIDDEN], fresh)

        given = {_HIDDEN: hidden, _LOGPROBS: scored.logprobs, _ENTROPIES: scored.entropies}
        (_, noted), found = mx.value_and_grad(loss)(beside | given)
        return noted, found


def _added(*parts: Arrays, wanted: frozenset[str]) -> Arrays:
    """Leaf by leaf."""
    found: Arrays = {}
    for name, leaf in (pair for part in parts for pair in part.items()):
        if name in wanted:
            found[name] = found[name] + leaf if name in found else leaf
    return found
