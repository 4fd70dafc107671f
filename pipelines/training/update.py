"""One update: gradients of all micro-batches added up, then exactly one optimizer step."""

import time
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map

from pipelines.algorithms.base import Algorithm, Batch, Totals
from pipelines.algorithms.loss_metrics import Metrics, merged_metrics
from pipelines.errors import TrainingError
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import completion_logprobs, split_head
from pipelines.training.optimizer import Optimizer
from pipelines.training.reference import Reference
from pipelines.training.sequences import Sequences, micro_batches


class Updater:
    """Turns the rows of an update into one optimizer step."""

    def __init__(
        self,
        model: nn.Module,
        algorithm: Algorithm,
        optimizer: Optimizer,
        reference: Reference | None,
        *,
        temperature: float,
        micro_batch_tokens: int,
        budget_tokens: int,
    ) -> None:
        self.model = model
        self.algorithm = algorithm
        self.optimizer = optimizer
        self.reference = reference
        self.temperature = temperature
        self.micro_batch_tokens = micro_batch_tokens
        self.budget_tokens = budget_tokens
        self.split = split_head(model)
        self._gradients = nn.value_and_grad(model, self._loss)

    def step(self, sequences: Sequences) -> dict[str, float]:
        """Update the model on the rows; the metrics of the loss, gradient norm, learning rate and timing.

        Raises TrainingError, weights untouched, when a gradient is not finite.
        """
        started = time.perf_counter()
        totals = sequences.totals(self.budget_tokens)
        parts: list[Metrics] = []
        tokens: list[mx.array] = []
        gradients: dict[str, Any] | None = None
        self.model.train()  # dropout, and the kernels that have a gradient
        for batch in self.batches(sequences):
            (_, metrics), new = self._gradients(batch, totals)
            new = tree_map(lambda g: g.astype(mx.float32), new)  # sums of many in 16 bits would lose the small ones
            gradients = new if gradients is None else tree_map(mx.add, gradients, new)
            mx.eval(gradients, metrics)
            del new  # or it stays in memory beside the next one
            parts.append(metrics)
            tokens.append(batch.mask.sum())
        self.model.eval()
        if gradients is None:
            raise ValueError("an update needs at least one row")
        norm = finite_norm(gradients)
        rate = self.optimizer.step(gradients, norm)
        seconds = time.perf_counter() - started
        return _report(parts, tokens) | {
            "grad_norm": norm,
            "learning_rate": rate,
            "time/update_seconds": seconds,
            "update/tokens_per_second": totals.items / seconds,
        }

    def batches(self, sequences: Sequences) -> Iterator[Batch]:
        """The update's micro-batches, with reference log-probabilities where the algorithm needs them."""
        for rows in micro_batches(sequences, self.micro_batch_tokens):
            batch = sequences.batch(rows)
            if self.reference is not None:
                batch = batch._replace(ref_logprobs=self.reference.logprobs(batch, self.temperature))
            yield batch

    def _loss(self, batch: Batch, totals: Totals) -> tuple[mx.array, dict[str, mx.array]]:
        scored = completion_logprobs(self.split, batch.tokens, batch.starts, batch.completions, self.temperature)
        output = self.algorithm.loss(scored.logprobs, scored.entropies, batch, totals)
        metrics = dict(output.metrics) | {"loss": mx.stop_gradient(output.loss)}
        if batch.sampler_logprobs is not None:
            gap = mx.abs(mx.stop_gradient(scored.logprobs) - batch.sampler_logprobs)
            metrics["mismatch_kl"] = mx.where(batch.mask, gap, 0.0).sum() / mx.maximum(batch.mask.sum(), 1)
        return output.loss, metrics


def _report(parts: list[Metrics], tokens: list[mx.array]) -> dict[str, float]:
    """The metrics of all micro-batches as one: their losses add up, the rest is merged."""
    merged = merged_metrics(parts, tokens) | {"loss": mx.stack([part["loss"] for part in parts]).sum()}
    return {name: float(value) for name, value in merged.items()}


def finite_norm(gradients: dict[str, Any]) -> float:
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
