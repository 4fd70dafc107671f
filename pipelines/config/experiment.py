"""The root of the configuration: one experiment, all its sections, and the promise that they agree."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pipelines.config.checkpointing import CheckpointingConfig
from pipelines.config.checks import conflicts
from pipelines.config.data import DataConfig
from pipelines.config.evaluation import EvaluationConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.model import ModelConfig
from pipelines.config.monitoring import MonitoringConfig
from pipelines.config.paths import PathsConfig
from pipelines.config.reward import RewardConfig
from pipelines.config.section import Section
from pipelines.config.trainer import TrainerConfig


class ExperimentConfig(Section):
    """Everything an experiment is made of; without arguments, the built-in model on the built-in task."""

    trainer: TrainerConfig = TrainerConfig()
    """The training loop: batch, optimizer, algorithm, loss."""

    model: ModelConfig = ModelConfig()
    """The model, its reference, and LoRA."""

    generation: GenerationConfig = GenerationConfig()
    """Sampling, tags and tag biases."""

    data: DataConfig = DataConfig()
    """The data set: source, fields, limits."""

    rewards: Annotated[tuple[RewardConfig, ...], Field(strict=False)] = (RewardConfig(name="exact_match"),)
    """Rewards whose weighted mean scores a completion."""

    evaluation: Annotated[tuple[EvaluationConfig, ...], Field(strict=False)] = (EvaluationConfig(name="exact_match"),)
    """Benchmarks that eval runs when none is named on the command line."""

    monitoring: MonitoringConfig = MonitoringConfig()
    """Logs, samples and trackers."""

    checkpointing: CheckpointingConfig = CheckpointingConfig()
    """Checkpoints: where, how often, how many."""

    paths: PathsConfig = PathsConfig()
    """Directories of the stage store."""

    plugins: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Python files that register rewards, evaluators, algorithms or loaders."""

    @property
    def plugin_files(self) -> tuple[str, ...]:
        """The files to import before names are looked up: `plugins`, and `rewards/NAME.py` where a reward has one.

        Like all paths of a configuration they are relative to the working directory.
        """
        own = (Path("rewards", f"{reward.name}.py") for reward in self.rewards if reward.name.isidentifier())
        return tuple(dict.fromkeys([*self.plugins, *(path.as_posix() for path in own if path.is_file())]))

    @model_validator(mode="after")
    def _evaluations_find_the_best(self) -> "ExperimentConfig":
        """Where nobody chose a metric; written down here, so that it is shown, compared and kept like any value."""
        if self.trainer.eval_every and self.evaluation and "best_metric" not in self.checkpointing.model_fields_set:
            accuracy = f"eval/{self.evaluation[0].name}/accuracy"
            best = self.checkpointing.model_copy(update={"best_metric": accuracy})
            object.__setattr__(self, "checkpointing", best)
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        found = conflicts(
            self.trainer, self.model, self.generation, self.data, self.rewards, plugins=bool(self.plugins)
        )
        if found:
            raise PydanticCustomError("conflict", "{summary}", {"summary": "; ".join(map(str, found)), "found": found})
        return self
