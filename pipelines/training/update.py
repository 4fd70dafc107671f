"""One update: the gradients of all micro-batches added up, then one optimizer step.

`num_iterations` such steps are made from the same rows. The first updates are looked at closely (`self_check`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np

from pipelines import backend
from pipelines.algorithms.base import BaseAlgorithm, Batch, Totals
from pipelines.algorithms.loss_metrics import Metrics, masked_mean, merged_metrics
from pipelines.algorithms.losses import LossOutput
from pipelines.algorithms.sft_term import SftTerm
from pipelines.errors import TrainingError
from pipelines.models.leaves import leaves
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.gradients import Gradients, Loss, backward
from pipelines.training.micro_batches import micro_batches
from pipelines.training.optimizer import Optimizer
from pipelines.training.passes import Pass, Passes
from pipelines.training.policy import Policy
from pipelines.training.record import Recorder
from pipelines.training.self_check import SelfCheck
from pipelines.training.sequences import Sequences
from pipelines.training.value_head import ValueLearner, without_head


@dataclass(frozen=True)
class Updater:
    """Turns the rows of an update into optimizer steps."""

    policy: Policy
    algorithm: BaseAlgorithm
    optimizer: Optimizer
    passes: Passes
    recorder: Recorder
    check: SelfCheck
    micro_batch_tokens: int
    budget_tokens: int
    value_learner: ValueLearner | None = None
    """Of an algorithm that uses values."""
    ranks: Ranks = ALONE

    def learns(self, sequences: Sequences, references: Sequences | None = None) -> bool:
        """Whether there is a token to learn from; AdamW's momentum would move the weights even without one."""
        return sequences.teach(self.passes.policy) or (references is not None and references.teach(self.passes.sft))

    def update(self, sequences: Sequences, references: Sequences | None = None) -> dict[str, float]:
        """Learn from the rows, and from references where there is a supervised term.

        The metrics are means over the steps, of the loss and its parts, gradient norm and learning rate.
        Raises TrainingError when a gradient is not finite, weights untouched, or when the self-check finds a fault.
        """
        started = time.perf_counter()
        recorded = self.recorder.record(sequences) if sequences.teach(self.passes.policy) else sequences
        numbers = range(self.algorithm.config.num_iterations)
        steps = [self._step(recorded, references, first=number == 0) for number in numbers]
        seconds = time.perf_counter() - started
        tokens = len(steps) * sum(rows.totals(0).items for rows in (recorded, references) if rows is not None)
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        first = {name: steps[0][name] for name in ("mismatch_kl",) if name in steps[0]}  # later steps are off-policy
        return (
            means
            | first
            | recorded.metrics
            | {"time/update_seconds": seconds, "update/tokens_per_second": tokens / seconds}
        )

    def _step(self, sequences: Sequences, references: Sequences | None, *, first: bool = True) -> dict[str, float]:
        """One optimizer step; `first`: of its update."""
        sums = _Sums()
        self.policy.model.train()  # dropout, and the kernels that have a gradient
        metrics = self._reinforce(sums, sequences) if sequences.teach(self.passes.policy) else {}
        if references is not None and references.teach(self.passes.sft):
            supervised = self._supervise(sums, references)
            metrics |= supervised | {"loss": metrics.get("loss", 0.0) + supervised["loss"]}
        self.policy.model.eval()
        sums.add_others(self.ranks)
        if not sums.gradients:
            raise ValueError("an update needs at least one token to learn from")
        return metrics | self._apply(sums, metrics, first=first)

    def _apply(self, sums: "_Sums", metrics: dict[str, float], *, first: bool) -> dict[str, float]:
        """Looked at is the first step alone: in later ones the clip may stop every token, and no leaf be to blame."""
        if self.check.done or not sums.taught or not first:
            return self._advance(sums.gradients)
        self.check.agreement(metrics)
        before = self._weights()
        found = self._advance(sums.gradients)
        self.check.movement(frozenset(sums.taught), sums.gradients, before, self._weights(), found["learning_rate"])
        return found

    def _advance(self, gradients: Gradients) -> dict[str, float]:
        """Step the model and the value head, each clipped by its own norm; both norms are looked at before."""
        own, head = without_head(gradients)
        norm, head_norm = finite_norm(own), finite_norm(head) if head else 0.0
        if self.value_learner is not None and head:
            self.value_learner.step(head, head_norm)
        return {"grad_norm": norm, "learning_rate": self.optimizer.step(own, norm)}

    def _weights(self) -> dict[str, mx.array]:
        head = {} if self.value_learner is None else self.value_learner.weights()
        return self.optimizer.exact_weights() | head

    def _reinforce(self, sums: "_Sums", sequences: Sequences) -> dict[str, float]:
        """Add the gradient of the algorithm's loss; its metrics."""
        totals = sequences.totals(self.budget_tokens)

        def loss(logprobs: mx.array, entropies: mx.array, batch: Batch) -> LossOutput:
            output = self.algorithm.loss(logprobs, entropies, batch, totals)
            metrics = output.metrics | sampling_metrics(mx.stop_gradient(logprobs), batch)
            if self.algorithm.config.use_dual_gradients:
                metrics |= self._by_region(logprobs, entropies, batch, totals)
            return LossOutput(output.loss, metrics)

        return self._accumulate(sums, self.policy, sequences, self.passes.policy, loss)

    def _by_region(self, logprobs: mx.array, entropies: mx.array, batch: Batch, totals: Totals) -> Metrics:
        """The loss of each region under the whole's denominators: together they are the loss."""
        regions = {"loss/thinking": batch.thinking, "loss/answer": ~batch.thinking}
        return {
            name: mx.stop_gradient(
                self.algorithm.loss(logprobs, entropies, batch._replace(weights=region), totals).loss
            )
            for name, region in regions.items()
        }

    def _supervise(self, sums: "_Sums", references: Sequences) -> dict[str, float]:
        """Add the gradient of the supervised term; its losses, without and (`loss`) with its weight."""
        trainer = self.algorithm.config
        thinking = sum(int((references.active(n) & references.region(n)).sum()) for n in range(len(references)))
        term = SftTerm(thinking, references.totals(0).items - thinking)
        plain = replace(self.policy, temperature=1.0, value_head=None, entropy_gradient=False)
        found = self._accumulate(
            sums, plain, references, self.passes.sft, lambda logprobs, _, batch: term.loss(logprobs, batch)
        )
        weighted = trainer.sft_mode == "weighted"
        think, say = (trainer.sft_thinking_weight, trainer.sft_answer_weight) if weighted else (0.0, 1.0)
        weights = {"sft_loss/thinking": think, "sft_loss/answer": say}
        counted = {name: found[name] for name, weight in weights.items() if weight}
        loss = sum(weights[name] * value for name, value in counted.items())
        return counted | {"sft_loss": loss, "loss": trainer.sft_weight * loss}

    def _accumulate(
        self, sums: "_Sums", policy: Policy, sequences: Sequences, passes: tuple[Pass, ...], loss: Loss
    ) -> dict[str, float]:
        """Add the gradients of this rank's micro-batches; the metrics of all of them as one."""
        parts: list[Metrics] = []
        tokens: list[mx.array] = []
        shares = policy.stack.shares
        for rows, shared in micro_batches(sequences, self.micro_batch_tokens, may_share=shares, ranks=self.ranks):
            batch = sequences.batch(rows, shared=shared)
            threshold = sequences.entropy_threshold
            found = backward(
                policy,
                batch,
                sequences.adjust(rows),
                loss,
                passes,
                entropy_threshold=threshold,
                watched=not self.check.done,
            )
            if found.gradients:
                sums.add(found.gradients)
                sums.taught |= found.taught
            parts.append(found.metrics)
            tokens.append(batch.mask.sum())
        own = _report(parts, tokens) if parts else {}
        if self.ranks.size == 1:
            return own
        reports = self.ranks.gathered((own, float(sum(tokens))))
        told = [({name: mx.array(value) for name, value in said.items()}, count) for said, count in reports if said]
        return _report([said for said, _ in told], [count for _, count in told])


@dataclass
class _Sums:
    """What the micro-batches of a step add up to."""

    gradients: Gradients = field(default_factory=dict)
    taught: set[str] = field(default_factory=set)

    def add(self, new: Gradients) -> None:
        """In float32: sums of many in 16 bits would lose the small ones. At most two micro-batches are under way.

        Takes the new ones out of their dictionary, which would keep them in memory during the next micro-batch.
        """
        mx.eval(self.gradients)
        for name in list(new):
            leaf = new.pop(name)
            self.gradients[name] = self.gradients[name] + leaf if name in self.gradients else leaf
        backend.launch(self.gradients)

    def add_others(self, ranks: Ranks) -> None:
        """Make them the sums over all ranks."""
        self.gradients = ranks.added(self.gradients)
        self.taught = {name for names in ranks.gathered(sorted(self.taught)) for name in names}


def _report(parts: Sequence[Metrics], tokens: Sequence[float | mx.array]) -> dict[str, float]:
    """The metrics of micro-batches as one: losses add up, the rest merges."""
    sizes = {name for name in parts[0] if name.partition("/")[0].endswith("loss")}
    added = {name: mx.stack([part[name] for part in parts]).sum() for name in sizes}
    return {name: float(value) for name, value in (merged_metrics(parts, tokens) | added).items()}


def sampling_metrics(logprobs: mx.array, batch: Batch) -> Metrics:
    """How far the trainer is from the sampler (`mismatch_kl`), and how far the policy from where it was."""
    if batch.sampler_logprobs is None:
        return {}
    mask = batch.mask.astype(mx.float32)
    old = batch.sampler_logprobs if batch.old_logprobs is None else batch.old_logprobs
    ratio = mx.exp(mx.where(batch.mask, logprobs - old, 0.0))
    gap = mx.abs(mx.where(batch.mask, logprobs - batch.sampler_logprobs, 0.0))
    return {"mismatch_kl": masked_mean(gap, mask), "ratio/mean": masked_mean(ratio, mask)}


def finite_norm(gradients: Gradients) -> float:
    """The global L2 norm in float32; TrainingError names the first leaf that is not finite."""
    named = leaves(gradients)
    squares = mx.stack([leaf.astype(mx.float32).square().sum() for leaf in named.values()])
    norm = float(mx.sqrt(squares.sum()))
    if np.isfinite(norm):
        return norm
    bad = np.flatnonzero(~np.isfinite(np.array(squares)))
    name = list(named)[int(bad[0])] if bad.size else "the sum over all leaves"
    raise TrainingError(
        f"the gradient of {name} is not finite; the weights were left as they were",
        hint="lower trainer.learning_rate, look at the last rows of samples.jsonl, or resume from the last checkpoint",
    )
