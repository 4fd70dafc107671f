"""The first updates, looked at closely: a run that cannot learn ends here and not after a night.

Checked at the first update in which some advantage is not zero: every leaf that had something to learn from received a
gradient and moved, the trainer's log-probabilities are the sampler's, and so the on-policy ratio is 1. A leaf that had
nothing yet (its region was empty; LoRA's A while B is still zero) is checked when its turn comes, and so is one in
float32 that a warm-up's first, tiny steps leave where it is.
"""

from collections.abc import Mapping

import mlx.core as mx

from pipelines.errors import TrainingError

MOST_MISMATCH = {4: 1e-3, 2: 0.1}
"""Nats per token between sampler and trainer, by bytes of the weights: 16-bit models round differently in a batch."""

ANEW = "and begin again with --fresh"
"""The run's directory was begun with settings that would now be others."""


class SelfCheck:
    """`done` once every leaf has been seen to learn."""

    def __init__(
        self, leaves: frozenset[str], weight_bytes: int, *, full_rate: float = 0.0, comparable: bool = True
    ) -> None:
        """`full_rate` is the learning rate after the warm-up.

        comparable: False where nothing was sampled, and where dropout makes sampler and trainer differ as it should.
        """
        self.pending = set(leaves)
        self.most_mismatch = MOST_MISMATCH[weight_bytes]
        self.full_rate = full_rate
        self.agreed = not comparable

    @property
    def done(self) -> bool:
        """Whether nothing is left to look at."""
        return self.agreed and not self.pending

    def agreement(self, metrics: Mapping[str, float]) -> None:
        """TrainingError unless sampler and trainer mean the same distribution; looked at once, where both spoke."""
        if self.agreed or "mismatch_kl" not in metrics:
            return
        mismatch, ratio = metrics["mismatch_kl"], metrics["ratio/mean"]
        if not mismatch <= self.most_mismatch:
            raise TrainingError(
                f"self-check: sampler and trainer differ by {mismatch:.2g} nats per token"
                f" (at most {self.most_mismatch:g} is rounding)",
                hint="the model decodes otherwise than it trains: try generation.rollout_batch_size=1, and report it",
            )
        if not abs(ratio - 1) <= 2 * self.most_mismatch:
            raise TrainingError(
                f"self-check: the on-policy ratio is {ratio:.4g}, not 1", hint="no weight may move before the update"
            )
        self.agreed = True

    def movement(
        self,
        taught: frozenset[str],
        gradients: Mapping[str, mx.array],
        before: Mapping[str, mx.array],
        after: Mapping[str, mx.array],
        rate: float,
    ) -> None:
        """TrainingError names a taught leaf without gradient, or with one and still where it was.

        A learning rate of 0 (the first step of some warm-ups) moves nothing, so leaves wait for the next update.
        """
        due = sorted(self.pending & taught - {name for name in taught if _waits(name, before)})
        still = [name for name in due if not gradients[name].any().item()]
        if still:
            raise TrainingError(
                f"self-check: {_named(still)} received no gradient in an update with non-zero advantages",
                hint="somewhere the gradient is cut off; freeze them by layer ranges or LoRA targets, " + ANEW,
            )
        if rate == 0:
            return
        unmoved = [name for name in due if mx.array_equal(before[name], after[name]).item()]
        warming = rate < 0.99 * self.full_rate
        stuck = [name for name in unmoved if not (warming and before[name].dtype == mx.float32)]
        if stuck:
            narrow = before[stuck[0]].dtype != mx.float32
            exact = "set trainer.master_weights=float32, or " if narrow else ""
            raise TrainingError(
                f"self-check: {_named(stuck)} received a gradient and did not move at learning rate {rate:.3g}",
                hint=f"rounding swallows the step: {exact}raise trainer.learning_rate, {ANEW}",
            )
        self.pending -= set(due) - set(unmoved)


def _waits(name: str, before: Mapping[str, mx.array]) -> bool:
    """LoRA's A has no gradient as long as B is zero."""
    if not name.endswith("lora_a"):
        return False
    return not before[name.removesuffix("lora_a") + "lora_b"].any().item()


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
