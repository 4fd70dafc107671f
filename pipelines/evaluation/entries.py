"""The entries of `evaluation`: which benchmarks are scored, with which settings, told wrong before any work."""

from collections.abc import Sequence
from typing import Any

from pipelines.config import EvaluationConfig, ExperimentConfig, GenerationConfig
from pipelines.errors import ConfigError
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.evaluation.scoring import temperature_of


def check_entries(entries: Sequence[EvaluationConfig], generation: GenerationConfig, *, where: str = "") -> None:
    """ConfigError for a name or key that does not exist, or settings that cannot be; `where` instead of its place."""
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError("evaluation: a benchmark stands in it twice", hint="give each name once")
    for index, entry in enumerate(entries):
        evaluator = EvaluatorRegistry.create(entry.name, entry.config, where=where or f"evaluation[{index}]")
        temperature_of(evaluator.settings, generation)


def conditions(config: ExperimentConfig) -> dict[str, Any]:
    """What of this machine the scores of a run's benchmarks depend on, for its manifest; empty if none is scored."""
    found: dict[str, Any] = {}
    for entry in config.evaluation if config.trainer.eval_every else ():
        found |= EvaluatorRegistry.create(entry.name, entry.config).conditions(config)
    return found
