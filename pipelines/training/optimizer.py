"""AdamW with bias correction, its schedule, and float32 master weights for 16-bit models."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn, optimizers
from mlx.utils import tree_map, tree_unflatten

from pipelines import backend
from pipelines.config import TrainerConfig
from pipelines.models.leaves import leaves
from pipelines.models.save import load_weights, save_weights


def learning_rate(config: TrainerConfig) -> Callable[[mx.array], mx.array]:
    """Optimizer step (0-based) to learning rate, built by mlx-lm's `build_schedule`.

    A warm-up starts at `warmup_init`, one tenth of the schedule's first argument where that is null. The schedule
    begins one step after the warm-up has reached its first rate, which therefore comes twice.
    """
    from mlx_lm.tuner.utils import build_schedule

    schedule = config.lr_schedule_config
    if schedule is None:
        return lambda step: mx.full(step.shape, config.learning_rate)
    arguments = [float(schedule.arguments[0]), *schedule.arguments[1:]]
    constant = schedule.name == "constant"
    start = schedule.warmup_init if schedule.warmup_init is not None else arguments[0] / 10
    return build_schedule(
        {
            "name": "linear_schedule" if constant else schedule.name,
            "arguments": [arguments[0], arguments[0], 1] if constant else arguments,
            "warmup": schedule.warmup,
            "warmup_init": start,
        }
    )


class Optimizer:
    """One step per update on the trainable leaves of a model."""

    def __init__(self, model: nn.Module, config: TrainerConfig, *, full_finetuning: bool) -> None:
        self.model = model
        self.schedule_start = 0
        schedule = learning_rate(config)
        # MLX leaves bias correction off by default, which makes the first steps several times too large.
        self.adam = optimizers.AdamW(
            learning_rate=lambda step: schedule(step + self.schedule_start),
            betas=[config.optimizer_beta1, config.optimizer_beta2],
            weight_decay=config.optimizer_weight_decay,
            bias_correction=True,
        )
        self.clip_norm = config.grad_clip_norm
        self.master: dict[str, Any] | None = None
        if _wants_master(model, config, full_finetuning):
            self.master = tree_map(lambda leaf: leaf.astype(mx.float32), model.trainable_parameters())
        self.adam.init(self.master if self.master is not None else model.trainable_parameters())

    def step(self, found: dict[str, mx.array], norm: float) -> float:
        """Clip to `grad_clip_norm` given the global norm, apply, and return the learning rate used.

        Trainable leaves that are not in `found` had nothing to learn from: their gradient is 0.
        """
        scale = min(1.0, self.clip_norm / (norm + 1e-6)) if self.clip_norm else 1.0
        own = self.model.trainable_parameters()
        gradients = tree_unflatten(
            [(name, found[name] if name in found else mx.zeros(leaf.shape)) for name, leaf in leaves(own).items()]
        )
        stepped = self._apply(gradients, self.master or own, mx.array(scale))
        if self.master is not None:
            self.master = stepped
            stepped = tree_map(lambda w, old: w.astype(old.dtype), stepped, own)
        self.model.update(stepped)
        mx.eval(self.model.parameters(), self.adam.state, self.master or {})
        return float(self.adam.learning_rate)

    @cached_property
    def _apply(self) -> Callable[[Any, Any, mx.array], Any]:
        """(gradients, weights, scale) -> the next weights; Adam's moments go on with them."""

        def apply(gradients: Any, weights: Any, scale: mx.array) -> Any:
            scaled = tree_map(lambda g, w: (g * scale).astype(w.dtype), gradients, weights)
            return self.adam.apply_gradients(scaled, weights)

        return backend.compiled(apply, self.adam.state)

    def _forget_compiled(self) -> None:
        """What was compiled holds the state and the schedule's start that it was compiled with."""
        self.__dict__.pop("_apply", None)

    def exact_weights(self) -> dict[str, mx.array]:
        """All parameters, by name; trainable ones as exact as they are kept."""
        weights = leaves(self.model.parameters())
        return weights if self.master is None else weights | leaves(self.master)

    def save(self, path: Path) -> None:
        """Write the whole state.

        The trained weights travel along, as exact as they are kept: a checkpoint's model file is in the model's own,
        perhaps narrower, dtype.
        """
        weights = self.master if self.master is not None else self.model.trainable_parameters()
        state = {f"state.{name}": leaf for name, leaf in leaves(self.adam.state).items()}
        state["schedule.start"] = mx.array(self.schedule_start)
        save_weights(path, state | {f"weights.{name}": leaf for name, leaf in leaves(weights).items()})

    def restore(self, path: Path) -> None:
        """The inverse of `save`: the next step is the one that would have followed."""
        parts: dict[str, list[tuple[str, mx.array]]] = {"state": [], "weights": [], "schedule": []}
        for name, leaf in load_weights(path).items():
            part, _, key = name.partition(".")
            parts[part].append((key, leaf))
        self.adam.state = tree_unflatten(parts["state"])
        self.schedule_start = int(dict(parts["schedule"])["start"])
        self._forget_compiled()
        dtypes = leaves(self.model.trainable_parameters())
        self.model.update(tree_unflatten([(name, leaf.astype(dtypes[name].dtype)) for name, leaf in parts["weights"]]))
        if self.master is not None:
            self.master = tree_unflatten(parts["weights"])
        mx.eval(self.model.parameters(), self.adam.state)

    def adopt_weights(self, step: int) -> None:
        """Go on with weights that were loaded into the model: moments at zero, the schedule at `step`.

        Adam itself counts from 0 again, or its bias correction would take the empty moments for settled ones.
        """
        if self.master is not None:
            self.master = tree_map(lambda leaf: leaf.astype(mx.float32), self.model.trainable_parameters())
        self.schedule_start = step
        self._forget_compiled()


def _wants_master(model: nn.Module, config: TrainerConfig, full_finetuning: bool) -> bool:
    if config.master_weights != "auto":
        return config.master_weights == "float32"
    narrow = any(leaf.dtype in (mx.float16, mx.bfloat16) for leaf in leaves(model.trainable_parameters()).values())
    return full_finetuning and narrow
