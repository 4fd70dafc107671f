"""The configuration: one file per section, and the loader."""

from pipelines.config.advantage import AdvantageConfig
from pipelines.config.checkpointing import CheckpointingConfig
from pipelines.config.data import DataConfig, SyntheticConfig
from pipelines.config.evaluation import EvaluationConfig
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.layers import check_layer_ranges
from pipelines.config.loader import Loaded, load
from pipelines.config.loss import LossConfig
from pipelines.config.model import ModelConfig
from pipelines.config.monitoring import MonitoringConfig
from pipelines.config.paths import PathsConfig
from pipelines.config.ppo import PpoConfig
from pipelines.config.reward import RewardConfig
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.section import Section
from pipelines.config.trainer import TrainerConfig

__all__ = [
    "AdvantageConfig",
    "CheckpointingConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "GenerationConfig",
    "Loaded",
    "LossConfig",
    "LrScheduleConfig",
    "ModelConfig",
    "MonitoringConfig",
    "PathsConfig",
    "PpoConfig",
    "RewardConfig",
    "Section",
    "SyntheticConfig",
    "TrainerConfig",
    "check_layer_ranges",
    "load",
]
