"""Which tokens teach which leaves: the backward passes of an update.

With dual gradients a leaf of layer l gets g = w_t [l in T] dL/dthinking + w_a [l in A] dL/danswer. T and A are the
layer ranges of the regions, ends included, and w_t, w_a their weights. Both parts come from the same loss with the same
denominators, so unit weights and full ranges give the plain gradient. The supervised term has a table of its own:

| `sft_mode`         | region of the reference | leaves                                     |
|--------------------|-------------------------|--------------------------------------------|
| `all`              | answer                  | every layer                                |
| `answer_only`      | answer                  | layers in A                                |
| `exclude_thinking` | answer                  | every layer not in T                       |
| `weighted`         | thinking, answer        | T (`sft_thinking_weight`), A (`sft_answer_weight`) |

Leaves in no layer (embeddings, norm, head) join every pass if `dual_train_other_params`, and none otherwise; without
dual gradients the policy loss trains them all the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.config import TrainerConfig
from pipelines.config.layers import LayerRanges
from pipelines.errors import ConfigError

Leaves = Mapping[str, int | None]
"""Trainable leaves with their layers; None for those in no layer."""


@dataclass(frozen=True)
class Pass:
    """One backward pass: how strongly each region's tokens count, and the leaves that learn from them."""

    thinking: float
    answer: float
    leaves: frozenset[str]
    lowest: int
    """The lowest layer that the pass visits; 0 also where it goes on to the embeddings."""

    def own(self, active: np.ndarray, thinking: np.ndarray) -> np.ndarray:
        """Which of the active tokens the pass learns from; all three bool, of one shape."""
        return active & np.where(thinking, self.thinking > 0, self.answer > 0)


@dataclass(frozen=True)
class Passes:
    """The passes of the policy loss and those of the supervised term; either may be empty."""

    policy: tuple[Pass, ...]
    sft: tuple[Pass, ...]

    @property
    def leaves(self) -> frozenset[str]:
        """Every leaf that some pass trains."""
        return frozenset[str]().union(*(one.leaves for one in (*self.policy, *self.sft)))


def plan_passes(trainer: TrainerConfig, leaves: Leaves, ranges: LayerRanges) -> Passes:
    """The passes of a configuration on a model with these trainable leaves.

    Raises ConfigError for a range without a trainable leaf, and where no pass is left.
    """
    found = Passes(policy_passes(trainer, leaves, ranges), sft_passes(trainer, leaves, ranges))
    if not found.leaves:
        raise ConfigError(
            "every region's gradient has weight 0, so nothing would be trained",
            hint="raise trainer.answer_gradient_weight, trainer.thinking_gradient_weight or trainer.sft_weight",
        )
    return found


def policy_passes(trainer: TrainerConfig, leaves: Leaves, ranges: LayerRanges) -> tuple[Pass, ...]:
    """One pass over everything, or one a region with dual gradients (joined where both train the same leaves)."""
    if not trainer.use_dual_gradients:
        return (_pass(1.0, 1.0, leaves, leaves),)
    others = trainer.dual_train_other_params
    thinking = _leaves_in(leaves, ranges.thinking, others, "thinking") if trainer.thinking_gradient_weight else ()
    answer = _leaves_in(leaves, ranges.answer, others, "answer") if trainer.answer_gradient_weight else ()
    return _regional(trainer.thinking_gradient_weight, thinking, trainer.answer_gradient_weight, answer, leaves)


def sft_passes(trainer: TrainerConfig, leaves: Leaves, ranges: LayerRanges) -> tuple[Pass, ...]:
    """The passes of the supervised term, `sft_weight` included; none if it is off."""
    if not (trainer.use_sft_on_answer and trainer.sft_weight):
        return ()
    others, weight = trainer.dual_train_other_params, trainer.sft_weight
    if trainer.sft_mode == "weighted":
        think, say = trainer.sft_thinking_weight * weight, trainer.sft_answer_weight * weight
        thinking = _leaves_in(leaves, ranges.thinking, others, "thinking") if think else ()
        answer = _leaves_in(leaves, ranges.answer, others, "answer") if say else ()
        return _regional(think, thinking, say, answer, leaves)
    numbers = {layer for layer in leaves.values() if layer is not None}
    layers = {
        "all": numbers,
        "answer_only": numbers & set(ranges.answer),
        "exclude_thinking": numbers - set(ranges.thinking),
    }[trainer.sft_mode]
    region = "thinking" if trainer.sft_mode == "exclude_thinking" else "answer"
    return (_pass(0.0, weight, _leaves_in(leaves, layers, others, region, trainer.sft_mode), leaves),)


def _regional(
    think: float, thinking: Iterable[str], say: float, answer: Iterable[str], leaves: Leaves
) -> tuple[Pass, ...]:
    thinking, answer = frozenset(thinking), frozenset(answer)
    if thinking == answer:
        return (_pass(think, say, thinking, leaves),) if thinking else ()
    both = ((think, 0.0, thinking), (0.0, say, answer))
    passes = [_pass(t, a, names, leaves) for t, a, names in both if names]
    return tuple(sorted(passes, key=lambda one: one.lowest))  # a later pass may begin where an earlier one has been


def _pass(thinking: float, answer: float, names: Iterable[str], leaves: Leaves) -> Pass:
    names = frozenset(names)
    layers = [leaves[name] for name in names]
    return Pass(thinking, answer, names, min((0 if layer is None else layer for layer in layers), default=0))


def _leaves_in(leaves: Leaves, layers: Iterable[int], others: bool, region: str, mode: str = "") -> frozenset[str]:
    wanted = set(layers)
    numbered = frozenset(name for name, layer in leaves.items() if layer in wanted)
    if not numbered:
        keys = f"trainer.{region}_layer_start and trainer.{region}_layer_end"
        raise ConfigError(
            f"trainer.sft_mode {mode} leaves no layer to train"
            if mode
            else f"{keys} hold no layer with trainable leaves",
            hint=f"change {keys}, or adapt more layers with model.lora_layers and model.lora_target_modules",
        )
    return numbered | {name for name, layer in leaves.items() if layer is None and others}
