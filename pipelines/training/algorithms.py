"""The algorithms that come with the product, registered; and the one that `trainer.algorithm` names."""

from pipelines.algorithms import grpo, ppo, sft  # noqa: F401 - they register themselves
from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm
from pipelines.config import TrainerConfig


def create(config: TrainerConfig) -> BaseAlgorithm:
    """The algorithm of a configuration; ConfigError lists the known ones otherwise."""
    return AlgorithmRegistry.create(config)
