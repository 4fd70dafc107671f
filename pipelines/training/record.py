"""What is noted of an update's rows before the first optimizer step: reference, old log-probabilities, values."""

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from pipelines.algorithms.base import BaseAlgorithm, Batch, Recorded
from pipelines.algorithms.entropy import entropy_threshold
from pipelines.models.logprobs import Adjust, spots
from pipelines.models.modes import evaluating
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.micro_batches import micro_batches
from pipelines.training.policy import Policy
from pipelines.training.reference import Reference
from pipelines.training.sequences import Rows, Sequences, padded


@dataclass(frozen=True)
class Recorder:
    """Scores rows once, so that several optimizer steps can be made from them."""

    policy: Policy
    reference: Reference | None
    algorithm: BaseAlgorithm
    micro_batch_tokens: int
    ranks: Ranks = ALONE

    @property
    def scores_policy(self) -> bool:
        """Whether the policy has to be asked at all: on-policy the sampler's log-probabilities are its own."""
        trainer, algorithm = self.algorithm.config, self.algorithm
        off_policy = trainer.num_iterations > 1 or trainer.loss.top_entropy_quantile < 1
        return algorithm.uses_values or (algorithm.uses_rollouts and off_policy)

    def record(self, sequences: Sequences) -> Sequences:
        """The rows with everything that the loss needs from before the update."""
        if not (self.scores_policy or self.reference is not None):
            return sequences
        noted = self._note(sequences)
        recorded = replace(sequences, ref_logprobs=noted.get("ref_logprobs"), old_values=noted.get("values"))
        if self.scores_policy and self.algorithm.config.num_iterations > 1:
            recorded = replace(recorded, old_logprobs=noted["logprobs"])
        quantile = self.algorithm.config.loss.top_entropy_quantile
        if self.scores_policy and quantile < 1:
            mask = padded([sequences.active(row) for row in range(len(sequences))], np.bool_)
            threshold = entropy_threshold(padded(noted["entropies"], np.float32), mask, quantile)
            recorded = replace(recorded, entropy_threshold=threshold)
        return self._credited(recorded, noted) if self.algorithm.uses_values else recorded

    def _credited(self, sequences: Sequences, noted: dict[str, Rows]) -> Sequences:
        rows = range(len(sequences))
        reference = noted.get("ref_logprobs")
        found = self.algorithm.token_advantages(
            Recorded(
                rewards=mx.array(sequences.advantages),
                mask=padded([sequences.active(row) for row in rows], np.bool_),
                logprobs=padded(noted["logprobs"], np.float32),
                ref_logprobs=None if reference is None else padded(reference, np.float32),
                values=padded(noted["values"], np.float32),
            )
        )
        values, returns = np.array(found.values), np.array(found.returns)
        lengths = [len(completion) for completion in sequences.completions]
        return replace(
            sequences,
            token_advantages=[values[row, : lengths[row]] for row in rows],
            returns=[returns[row, : lengths[row]] for row in rows],
            metrics={name: float(value) for name, value in (found.metrics or {}).items()},
        )

    def _note(self, sequences: Sequences) -> dict[str, Rows]:
        """Ragged arrays by name, row for row."""
        noted: dict[str, Rows] = {}
        lengths = [len(completion) for completion in sequences.completions]
        asked = [*([self.policy] if self.scores_policy else []), *([self.reference] if self.reference else [])]
        may_share = all(each.stack.shares for each in asked)
        batches = micro_batches(sequences, self.micro_batch_tokens, may_share=may_share, ranks=self.ranks)
        for rows, shared in batches:
            for name, values in self._scored(sequences.batch(rows, shared=shared), sequences.adjust(rows)).items():
                whole = noted.setdefault(name, [np.zeros(length, np.float32) for length in lengths])
                for row, found in zip(rows, np.array(values), strict=True):
                    whole[row] = found[: lengths[row]]
        return noted if self.ranks.size == 1 else self._completed(noted, lengths)

    def _completed(self, noted: dict[str, Rows], lengths: list[int]) -> dict[str, Rows]:
        """With the rows that other ranks have scored: each row is 0 on all ranks but one."""
        flat = {name: np.concatenate(rows) for name, rows in noted.items()}
        parts = [arrays for arrays, _ in self.ranks.gathered_arrays(flat, None)]
        names = sorted({name for arrays in parts for name in arrays})
        sums = {name: sum(arrays[name] for arrays in parts if name in arrays) for name in names}
        return {name: np.split(values, np.cumsum(lengths)[:-1]) for name, values in sums.items()}

    def _scored(self, batch: Batch, adjust: Adjust | None) -> dict[str, mx.array]:
        found: dict[str, mx.array] = {}
        if self.reference is not None:
            found["ref_logprobs"] = self.reference.logprobs(batch, self.policy.temperature, adjust)
        if self.scores_policy:
            with evaluating(self.policy.model):
                hidden = self.policy.stack.run(batch.tokens, prefix=batch.prefix).hidden
                at = spots(batch.tokens, batch.starts, batch.completions, batch.mask)
                scored, values = self.policy.score_still(hidden, at, adjust), self.policy.values(hidden, at)
            found |= {"logprobs": scored.logprobs, "entropies": scored.entropies}
            if values is not None:
                found["values"] = values
        mx.eval(found)
        return found
