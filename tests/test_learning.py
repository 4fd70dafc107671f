"""Does it learn? Accuracy on unseen rows rises after a few dozen updates; with advantages shuffled it does not."""

from pathlib import Path

import pytest

from pipelines import evaluate, preprocess, train
from pipelines.config import ExperimentConfig
from pipelines.evaluation.targets import STARTING_MODEL, target
from pipelines.training.options import Options

pytestmark = pytest.mark.slow

UPDATES = 32
ROWS = 200
RISE, DRIFT = 0.10, 0.05
SHUFFLED = '''
"""GRPO that rewards the wrong completions: each gets the advantage of another one, drawn by a seed."""

import mlx.core as mx
import numpy as np

from pipelines.algorithms.advantages import Advantages
from pipelines.algorithms.base import AlgorithmRegistry
from pipelines.algorithms.grpo import Grpo


@AlgorithmRegistry.register("shuffled")
class Shuffled(Grpo):
    def __init__(self, config):
        super().__init__(config)
        self.generator = np.random.default_rng(0)

    def advantages(self, rewards, weights, group_size):
        values, equal = super().advantages(rewards, weights, group_size)
        kept = np.flatnonzero(~np.array(equal))
        shuffled = np.array(values)
        shuffled[kept] = shuffled[self.generator.permutation(kept)]
        return Advantages(mx.array(shuffled), equal)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("learning")
    (place / "shuffled.py").write_text(SHUFFLED)
    return place


def settings(folder: Path, algorithm: str) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "trainer": {
                "algorithm": algorithm,
                "output_dir": str(folder / algorithm),
                "num_training_steps": UPDATES,
                "ppo_batch_size": 64,
                "num_rollout_samples": 4,
                "optimizer_beta2": 0.99,
                "lr_schedule_config": {"name": "linear_schedule", "arguments": [3e-4, 3e-5, UPDATES], "warmup": 10},
            },
            "paths": {"stages": str(folder / "stages")},
            "plugins": [str(folder / "shuffled.py")],
        }
    )


def accuracies(config: ExperimentConfig, model) -> tuple[float, float]:
    """Greedy and sampled, on the same unseen rows."""
    ways = ({"limit": ROWS}, {"limit": ROWS, "samples": 1, "temperature": 1.0})
    found = [evaluate.run(config, target=model, settings=way)[0].score.metrics for way in ways]
    assert [metrics["n"] for metrics in found] == [ROWS, ROWS]
    return found[0]["accuracy"], found[1]["accuracy"]


def gains(folder: Path, algorithm: str) -> tuple[float, float]:
    """How much a run added to the greedy and to the sampled accuracy."""
    config = settings(folder, algorithm)
    preprocess.run(config)
    before = accuracies(config, STARTING_MODEL)
    assert min(before) > 0.1
    assert max(before) < 0.7  # there is something left to learn
    assert train.run(config, options=Options(quiet=True)).summary["status"] == "finished"
    after = accuracies(config, target(config))
    return after[0] - before[0], after[1] - before[1]


def test_accuracy_rises(folder):
    greedy, sampled = gains(folder, "grpo")
    assert greedy >= RISE
    assert sampled >= RISE


def test_accuracy_does_not_rise_when_advantages_are_shuffled(folder):
    greedy, sampled = gains(folder, "shuffled")
    assert greedy <= DRIFT
    assert sampled <= DRIFT
