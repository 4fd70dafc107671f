"""The gradient of one micro-batch: a backward pass for each group of leaves that learns from other tokens.

A pass asks for the gradient of its own leaves only, so autodiff never goes below the lowest of their layers, and puts
only its own tokens through the head. The other tokens enter the loss as constants. So the gradient of a pass is
sum_t f_t dL/dlogp_t dlogp_t/dleaf over its tokens, f_t the weight of their region: with every f_t = 1 the passes add up
to the gradient of the whole loss, whatever the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from pipelines import backend
from pipelines.algorithms.base import Batch
from pipelines.algorithms.loss_metrics import Metrics
from pipelines.algorithms.losses import LossOutput
from pipelines.models.layers import Entry
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import Adjust, Scored, spots
from pipelines.training.passes import Pass
from pipelines.training.policy import Policy
from pipelines.training.recorded import Recorded
from pipelines.training.value_head import PREFIX

Gradients = dict[str, mx.array]
"""Leaf name -> float32; the leaves of the value head are called `value_head.*`."""

Loss = Callable[[mx.array, mx.array, Batch], LossOutput]
"""(logprobs, entropies, batch) -> the share of the batch, as `BaseAlgorithm.loss` gives it."""


@dataclass(frozen=True)
class Found:
    """What the passes over a micro-batch gave."""

    gradients: Gradients
    metrics: Metrics
    taught: frozenset[str]
    """The leaves of passes in which some token had a signal, so that a gradient is to be expected."""


class _Known(NamedTuple):
    """What is known of every token so far; `where` says of which, on the host."""

    scored: Scored
    values: mx.array  # [n, C], 0 without a value head
    where: np.ndarray  # [n, C] bool


def backward(
    policy: Policy,
    batch: Batch,
    adjust: Adjust | None,
    loss: Loss,
    passes: tuple[Pass, ...],
    *,
    entropy_threshold: mx.array | None = None,
    watched: bool = True,
) -> Found:
    """Run the passes over a micro-batch; their gradients are added up, the metrics are those of the whole loss.

    watched: whether `taught` is found out, which waits for the device.
    entropy_threshold: below it the loss has no term to learn from; of interest for `taught` alone.
    """
    gradients, metrics, taught = Gradients(), Metrics(), frozenset[str]()
    active, thinking = np.array(batch.mask), np.array(batch.thinking)
    owned = [(one, own) for one in passes if (own := one.own(active, thinking)).any()]
    if not owned:
        return Found(gradients, _looked_at(policy, batch, adjust, loss), taught)
    known, entry = _nothing_known(batch), None
    stack = policy.stack
    recorded = Recorded.of(policy, batch, adjust, backend.Turns()) if stack.chains else None
    for number, (one, own) in enumerate(owned):
        following = [after.lowest for after, _ in owned[number + 1 :]]
        resumes = following and following[0] > 0 and stack.resumable and recorded is None
        note = following[0] if resumes else None
        complete = not following or batch.old_logprobs is not None
        run = _Run(policy, batch, adjust, loss, one, own, known, complete, entry, note, recorded)
        metrics, found, known, entry = run.differentiate()
        for name, leaf in found.items():
            gradients[name] = gradients[name] + leaf if name in gradients else leaf
        backend.launch(gradients, metrics, known.scored, entry.states if entry else ())
        if watched and _signal(batch, own, known.scored.entropies, entropy_threshold):
            taught |= one.leaves | {name for name in found if name.startswith(PREFIX)}
    return Found(gradients, metrics, taught)


def _looked_at(policy: Policy, batch: Batch, adjust: Adjust | None, loss: Loss) -> Metrics:
    """The metrics of a micro-batch that no pass learns from: its tokens are in the loss all the same."""
    hidden = policy.stack.run(batch.tokens, prefix=batch.prefix).hidden
    at = spots(batch.tokens, batch.starts, batch.completions, batch.mask)
    scored = policy.score_still(hidden, at, adjust)
    output = loss(scored.logprobs, scored.entropies, batch._replace(values=policy.values(hidden, at)))
    metrics = output.metrics | {"loss": output.loss}
    backend.launch(metrics)
    return metrics


@dataclass(frozen=True)
class _Run:
    """One pass over one micro-batch."""

    policy: Policy
    batch: Batch
    adjust: Adjust | None
    loss: Loss
    one: Pass
    own: np.ndarray
    """[n, C] bool, the tokens that this pass learns from."""
    known: _Known
    complete: bool
    """Whether tokens that nobody has scored yet are scored too, without gradient."""
    entry: Entry | None
    note: int | None
    recorded: Recorded | None
    """The pass over the batch that is gone back through step by step; there is no entry and no note then."""

    def differentiate(self) -> tuple[Metrics, Gradients, _Known, Entry | None]:
        """Metrics, gradients, what is known afterwards, and where the next pass begins."""
        original = self._parameters()
        if self.recorded is None:
            (_, noted), found = mx.value_and_grad(self._forward)(original)
        else:
            beside = {name: leaf for name, leaf in original.items() if name.startswith(PREFIX)}
            noted, found = self.recorded.gradients(self.one, self._spots(self.own), self._recorded_loss, beside)
        self._install(original)
        others = self._others()
        known = _Known(
            Scored(noted["logprobs"], noted["entropies"]),
            noted.get("values", self.known.values),
            self.known.where | self.own | others,
        )
        gradients = {name: leaf.astype(mx.float32) for name, leaf in found.items()}
        entry = Entry(self.note, noted["states"]) if self.note is not None and "states" in noted else None
        return noted["metrics"], gradients, known, entry

    def _forward(self, parameters: dict[str, mx.array]) -> tuple[mx.array, dict[str, Any]]:
        self._install(parameters)
        passed = self.policy.stack.run(self.batch.tokens, prefix=self.batch.prefix, entry=self.entry, note=self.note)
        fresh = self.policy.score(passed.hidden, self._spots(self.own), self.adjust)
        loss, noted = self._lost(passed.hidden, fresh)
        if passed.entry is not None:
            noted["states"] = passed.entry.states
        return loss, noted

    def _recorded_loss(
        self, values: dict[str, mx.array], hidden: mx.array, fresh: Scored
    ) -> tuple[mx.array, dict[str, Any]]:
        """`_lost` as a function of the value head's leaves, too."""
        self._install(values)
        return self._lost(hidden, fresh)

    def _lost(self, hidden: mx.array, fresh: Scored) -> tuple[mx.array, dict[str, Any]]:
        """The loss, and what is noted."""
        scored, values = self._scored(hidden, fresh)
        output = self.loss(scored.logprobs, scored.entropies, self.batch._replace(values=values))
        noted: dict[str, Any] = {
            "logprobs": mx.stop_gradient(scored.logprobs),
            "entropies": mx.stop_gradient(scored.entropies),
            "metrics": dict(output.metrics) | {"loss": mx.stop_gradient(output.loss)},
        }
        if values is not None:
            noted["values"] = mx.stop_gradient(values)
        return output.loss, noted

    def _scored(self, hidden: mx.array, fresh: Scored) -> tuple[Scored, mx.array | None]:
        """Own tokens, scored afresh, with their gradient, the others as constants."""
        own = mx.array(self.own)
        factor = mx.where(self.batch.thinking, self.one.thinking, self.one.answer)  # [n, C]
        values = self.policy.values(hidden, self._spots(self.own))
        known = self._others_known(hidden)
        scored = Scored(
            mx.where(own, _graded(fresh.logprobs, factor), known.scored.logprobs),
            mx.where(own, _graded(fresh.entropies, factor), known.scored.entropies),
        )
        return scored, None if values is None else mx.where(own, _graded(values, factor), known.values)

    def _others_known(self, hidden: mx.array) -> _Known:
        """What is known of the tokens of other passes; scored here where nothing is, but is asked for."""
        others = self._others()
        if not others.any():
            return self.known
        still, at, where = mx.stop_gradient(hidden), self._spots(others), mx.array(others)
        scored, values = self.policy.score(still, at, self.adjust), self.policy.values(still, at)
        return _Known(
            Scored(*(mx.stop_gradient(mx.where(where, a, b)) for a, b in zip(scored, self.known.scored, strict=True))),
            self.known.values if values is None else mx.stop_gradient(mx.where(where, values, self.known.values)),
            self.known.where,
        )

    def _others(self) -> np.ndarray:
        return np.array(self.batch.mask) & ~self.own & ~self.known.where if self.complete else np.zeros_like(self.own)

    def _spots(self, where: np.ndarray):
        return spots(self.batch.tokens, self.batch.starts, self.batch.completions, where)

    def _parameters(self) -> dict[str, mx.array]:
        parameters = self.policy.trained(self.one.leaves)
        if self.policy.value_head is not None:
            head = leaves(self.policy.value_head.trainable_parameters())
            parameters |= {PREFIX + name: leaf for name, leaf in head.items()}
        return parameters

    def _install(self, parameters: dict[str, mx.array]) -> None:
        self.policy.model.update(tree_unflatten([(n, p) for n, p in parameters.items() if not n.startswith(PREFIX)]))
        if self.policy.value_head is not None:
            head = [(name[len(PREFIX) :], leaf) for name, leaf in parameters.items() if name.startswith(PREFIX)]
            self.policy.value_head.update(tree_unflatten(head))


def _nothing_known(batch: Batch) -> _Known:
    """On-policy the sampler's own log-probabilities stand for tokens that nobody has scored yet."""
    zeros = mx.zeros(batch.mask.shape)
    given = zeros if batch.sampler_logprobs is None else batch.sampler_logprobs
    values = zeros if batch.old_values is None else batch.old_values
    return _Known(Scored(given, zeros), values, np.zeros(batch.mask.shape, bool))


def _graded(values: mx.array, factor: mx.array) -> mx.array:
    """The same values, with `factor` times their gradient."""
    still = mx.stop_gradient(values)
    return still + factor * (values - still)


def _signal(batch: Batch, own: np.ndarray, entropies: mx.array, threshold: mx.array | None) -> bool:
    advantages = np.array(batch.advantages)
    heard = own & ((advantages if advantages.ndim == 2 else advantages[:, None]) != 0)
    if threshold is not None:
        heard &= np.array(entropies >= threshold)
    return bool(heard.any())
