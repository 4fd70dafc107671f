"""The value head beside a model, and what it learns with: a linear map of the last hidden state, and its own AdamW.

It is no part of the model: a checkpoint holds it in `value_head.safetensors`, and the model's files stay what mlx-lm
loads. The gradient of the value loss flows into the model as well, where it counts as the model's.
"""

from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from pipelines.config import TrainerConfig
from pipelines.errors import CheckpointError, ModelError
from pipelines.models.leaves import leaves
from pipelines.models.logprobs import SplitModel
from pipelines.models.modes import evaluating
from pipelines.models.save import load_weights, save_weights
from pipelines.training.optimizer import Optimizer

PREFIX = "value_head."
"""Before the names of its leaves, wherever they stand among those of the model."""

WEIGHTS_FILE = "value_head.safetensors"
STATE_FILE = "value_head_optimizer.safetensors"


class ValueHead(nn.Module):
    """V = w h + b, float32: hidden states `[M, H]` to values `[M, 1]`. It begins at 0, so that the first values are."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = mx.zeros((1, hidden_size))
        self.bias = mx.zeros(1)

    def __call__(self, hidden: mx.array) -> mx.array:
        return hidden @ self.weight.T + self.bias


class ValueLearner:
    """A value head with its optimizer: `trainer.ppo.value_learning_rate` throughout, clipped at `grad_clip_norm`."""

    def __init__(self, head: ValueHead, config: TrainerConfig) -> None:
        self.head = head
        own = {
            "learning_rate": config.ppo.value_learning_rate,
            "lr_schedule_config": None,
            "master_weights": "none",
        }
        self.optimizer = Optimizer(head, config.model_copy(update=own), full_finetuning=True)

    def step(self, found: dict[str, mx.array], norm: float) -> None:
        """One step with the gradient of the head's leaves, named as in `weights`, and its norm."""
        self.optimizer.step({name.removeprefix(PREFIX): leaf for name, leaf in found.items()}, norm)

    def weights(self) -> dict[str, mx.array]:
        """The head's leaves under the names they have beside the model's."""
        return {PREFIX + name: leaf for name, leaf in leaves(self.head.parameters()).items()}

    def save(self, directory: Path, *, optimizer_state: bool) -> None:
        """Write the head's files into a checkpoint."""
        save_weights(directory / WEIGHTS_FILE, leaves(self.head.parameters()))
        if optimizer_state:
            self.optimizer.save(directory / STATE_FILE)

    def restore(self, directory: Path) -> None:
        """The inverse of `save`; without an optimizer state the moments begin anew. CheckpointError without a head."""
        if (directory / STATE_FILE).is_file():
            self.optimizer.restore(directory / STATE_FILE)
            return
        if not (directory / WEIGHTS_FILE).is_file():
            raise CheckpointError(f"{directory} holds no value head", hint="resume from another step (--resume STEP)")
        self.head.update(tree_unflatten(list(load_weights(directory / WEIGHTS_FILE).items())))


def make_value_head(model: nn.Module, split: SplitModel) -> ValueHead:
    """A head for the last hidden states of a model, as wide as they are.

    ModelError where they cannot be had.
    """
    if not split.apart:
        raise ModelError(
            f"{type(model).__name__} does not show its last hidden states, which a value head reads",
            hint="use an algorithm without a value head, such as trainer.algorithm=grpo",
        )
    with evaluating(model):
        return ValueHead(split.body(mx.array([[0, 1, 2]])).shape[-1])


def without_head(found: dict[str, mx.array]) -> tuple[dict[str, mx.array], dict[str, mx.array]]:
    """The gradients of the model, and those of the head."""
    head = {name: leaf for name, leaf in found.items() if name.startswith(PREFIX)}
    return {name: leaf for name, leaf in found.items() if name not in head}, head
