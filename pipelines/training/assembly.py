"""An `Updater` put together from the configuration: passes, optimizer, recorder and self-check of one model."""

from dataclasses import replace
from typing import Literal

from mlx import nn

from pipelines.algorithms.base import BaseAlgorithm
from pipelines.config import TrainerConfig
from pipelines.config.layers import LayerRanges, layer_ranges
from pipelines.models.load import floating_dtype
from pipelines.training.distributed import ALONE, Ranks
from pipelines.training.micro_batches import automatic_tokens
from pipelines.training.optimizer import Optimizer
from pipelines.training.passes import Passes, plan_passes
from pipelines.training.policy import Policy
from pipelines.training.record import Recorder
from pipelines.training.reference import Reference
from pipelines.training.self_check import SelfCheck
from pipelines.training.update import Updater
from pipelines.training.value_head import ValueLearner, make_value_head


def make_updater(
    model: nn.Module,
    algorithm: BaseAlgorithm,
    reference: Reference | None,
    *,
    full_finetuning: bool,
    temperature: float,
    micro_batch_tokens: int | Literal["auto"],
    budget_tokens: int,
    dropout: bool = False,
    ranks: Ranks = ALONE,
) -> Updater:
    """The updater of `algorithm.config` on the trainable leaves of `model`; those that no pass trains are frozen.

    Raises ConfigError for layer ranges that do not fit the model, ModelError for one that a value head cannot read.
    """
    trainer = algorithm.config
    entropy_gradient = algorithm.uses_rollouts and trainer.loss.entropy_coef > 0
    return assemble(
        Policy.of(model, temperature, entropy_gradient=entropy_gradient, checkpointing=trainer.grad_checkpoint),
        algorithm,
        reference,
        full_finetuning=full_finetuning,
        micro_batch_tokens=micro_batch_tokens,
        budget_tokens=budget_tokens,
        dropout=dropout,
        ranks=ranks,
    )


def assemble(
    policy: Policy,
    algorithm: BaseAlgorithm,
    reference: Reference | None,
    *,
    full_finetuning: bool,
    micro_batch_tokens: int | Literal["auto"],
    budget_tokens: int,
    dropout: bool = False,
    ranks: Ranks = ALONE,
) -> Updater:
    """`make_updater` of a model that has been taken apart."""
    model, trainer = policy.model, algorithm.config
    tokens = automatic_tokens(policy.stack) if micro_batch_tokens == "auto" else micro_batch_tokens
    passes = _passes(trainer, policy)
    policy.stack.freeze_all_but(passes.leaves)
    learner = None
    if algorithm.uses_values:
        head = make_value_head(model, policy.split)
        policy, learner = replace(policy, value_head=head), ValueLearner(head, trainer)
    valued = frozenset(learner.weights()) if learner is not None and trainer.ppo.value_coef else frozenset[str]()
    return Updater(
        policy=policy,
        algorithm=algorithm,
        optimizer=Optimizer(model, trainer, full_finetuning=full_finetuning),
        passes=passes,
        recorder=Recorder(policy, reference, algorithm, tokens, ranks),
        check=SelfCheck(
            passes.leaves | valued,
            floating_dtype(model).size,
            full_rate=trainer.full_learning_rate,
            comparable=algorithm.uses_rollouts and not dropout,
        ),
        micro_batch_tokens=tokens,
        budget_tokens=budget_tokens,
        value_learner=learner,
        ranks=ranks,
    )


def _passes(trainer: TrainerConfig, policy: Policy) -> Passes:
    layers = len(policy.stack)
    regional = trainer.use_dual_gradients or trainer.use_sft_on_answer
    ranges = layer_ranges(trainer, layers) if regional else LayerRanges(range(layers), range(layers), ())
    return plan_passes(trainer, policy.stack.trainable(), ranges)
