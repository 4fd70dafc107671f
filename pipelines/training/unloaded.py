"""A model with everything that learns around it, of which only the shapes are there: no weight is read or drawn.

The exception is what a model has besides its layers, embeddings and head: how the head is taken apart depends on them.
"""

from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from pipelines.config import ExperimentConfig
from pipelines.models.layers import LayerStack
from pipelines.models.load import load_unread
from pipelines.models.logprobs import SplitModel, split_head
from pipelines.models.lora import apply_lora
from pipelines.models.stand_ins import Skipped, layers_of, standing_in
from pipelines.training import algorithms
from pipelines.training.assembly import assemble
from pipelines.training.policy import Policy
from pipelines.training.update import Updater


@dataclass(frozen=True)
class Unloaded:
    """Modules whose arrays nobody may ask for their values."""

    model: nn.Module
    updater: Updater
    reference: nn.Module | None
    """A copy of its own, where there is one."""
    vocabulary: int


def unloaded(config: ExperimentConfig) -> Unloaded:
    """The parts of a run. ModelError and ConfigError as where they are loaded."""
    trainer, algorithm = config.trainer, algorithms.create(config.trainer)
    model = load_unread(config.model.model_path, bits=config.model.quantize_bits)
    if config.model.use_lora:
        apply_lora(model, config.model, 0)
    split = _split(model)
    updater = assemble(
        Policy(
            model,
            split,
            LayerStack(model, split, checkpointing=trainer.grad_checkpoint, tried=False),
            temperature=config.generation.temperature if algorithm.uses_rollouts else 1.0,
            entropy_gradient=algorithm.uses_rollouts and trainer.loss.entropy_coef > 0,
        ),
        algorithm,
        None,
        full_finetuning=not config.model.use_lora,
        micro_batch_tokens=trainer.micro_batch_tokens,
        budget_tokens=config.data.max_gen_len,
    )
    reference = None
    if algorithm.uses_rollouts and trainer.grpo_beta and not config.model.use_lora:
        reference = load_unread(config.model.ref_model_path or config.model.model_path)
    vocabulary = split.vocabulary or model(mx.array([[0]])).shape[-1]
    return Unloaded(model, updater, reference, vocabulary)


def _split(model: nn.Module) -> SplitModel:
    """`split_head`, tried on what a model has besides its layers."""
    layers = layers_of(model)
    with standing_in(layers, list(map(Skipped, layers))):
        return split_head(model)
