"""Does it learn? Accuracy on unseen rows rises within a few dozen updates; with its rewards shuffled it does not.

One run of each kind of algorithm and loss, and one of each with the signal destroyed and everything else in place.
"""

from pathlib import Path

import pytest

from pipelines import evaluate, preprocess, train
from pipelines.config import ExperimentConfig
from pipelines.evaluation.targets import STARTING_MODEL, target
from pipelines.training.options import Options

pytestmark = pytest.mark.slow

UPDATES, ROWS = 18, 200
RISE, DRIFT = 0.08, 0.05
KINDS = {
    "grpo": {},
    "dr_grpo": {"loss": {"type": "dr_grpo"}, "advantage": {"scale": "none"}},
    "gspo": {"loss": {"type": "gspo"}},
    "cispo": {"loss": {"type": "cispo", "epsilon_high": 5.0}},
    "ppo": {"algorithm": "ppo"},
}
SHUFFLED = '''
"""The wrong completions are rewarded: each gets the reward of another one of its update, drawn by a seed."""

import mlx.core as mx
import numpy as np

from pipelines.algorithms.base import AlgorithmRegistry
from pipelines.algorithms.grpo import Grpo
from pipelines.algorithms.ppo import Ppo


class Shuffled:
    def __init__(self, config):
        super().__init__(config)
        self.generator = np.random.default_rng(0)

    def advantages(self, rewards, weights, group_size):
        order = mx.array(self.generator.permutation(len(rewards)))
        return super().advantages(rewards[order], weights, group_size)


@AlgorithmRegistry.register("shuffled_grpo")
class ShuffledGrpo(Shuffled, Grpo):
    pass


@AlgorithmRegistry.register("shuffled_ppo")
class ShuffledPpo(Shuffled, Ppo):
    pass
'''


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of a process, in which a plugin is loaded once."""
    place = tmp_path_factory.mktemp("learning")
    (place / "shuffled.py").write_text(SHUFFLED)
    return place


def settings(folder: Path, kind: str, *, shuffled: bool) -> ExperimentConfig:
    chosen = {"algorithm": "grpo"} | KINDS[kind]
    if shuffled:
        chosen["algorithm"] = f"shuffled_{chosen['algorithm']}"
    return ExperimentConfig.model_validate(
        {
            "trainer": chosen
            | {
                "output_dir": str(folder / f"{kind}-{shuffled}"),
                "num_training_steps": UPDATES,
                "ppo_batch_size": 64,
                "num_rollout_samples": 4,
                "optimizer_beta2": 0.99,
                "lr_schedule_config": {"name": "linear_schedule", "arguments": [3e-4, 3e-5, UPDATES], "warmup": 8},
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


def gains(folder: Path, kind: str, *, shuffled: bool) -> tuple[float, float]:
    """How much a run added to the greedy and to the sampled accuracy."""
    config = settings(folder, kind, shuffled=shuffled)
    preprocess.run(config)
    before = accuracies(config, STARTING_MODEL)
    assert min(before) > 0.1
    assert max(before) < 0.7  # there is something left to learn
    assert train.run(config, options=Options(quiet=True)).summary["status"] == "finished"
    after = accuracies(config, target(config))
    return after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_rises(folder, kind):
    greedy, sampled = gains(folder, kind, shuffled=False)
    assert greedy >= RISE
    assert sampled >= RISE


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_does_not_rise_when_rewards_are_shuffled(folder, kind):
    greedy, sampled = gains(folder, kind, shuffled=True)
    assert greedy <= DRIFT
    assert sampled <= DRIFT
