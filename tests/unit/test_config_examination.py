"""Everything wrong with a configuration is told, once, and nothing that only follows from it."""

import pytest

from pipelines.config.examination import examine
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import dotted, walk
from pipelines.config.loader import resolve
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError, RewardError


@pytest.fixture
def told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(text, *overrides, environ=()):
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        found = examine(["c.yaml"], overrides, dict(environ))
        return [problem.message for problem in found.in_order()]

    return run


def test_problems_of_every_kind_at_once(told):
    text = "trainer:\n  sed: 1\n  seed: x\n  num_training_steps: 5\n  lr_schedule_config:\n    warmup: 9\n"
    text += "model: {use_lora: true, lora_layers: 0}\nrewards: [{weight: 1}]\n"
    assert [message[:50] for message in told(text)] == [
        "c.yaml:2: trainer.sed: unknown key",
        "c.yaml:3: trainer.seed should be a whole number, n",
        "c.yaml:5: trainer.lr_schedule_config.name is missi",
        "c.yaml:5: trainer.lr_schedule_config.arguments is ",
        "model.lora_layers (c.yaml:7) and model.use_lora (c",
        "c.yaml:8: rewards.0.name is missing",
    ]


def test_what_follows_from_a_problem_is_not_told(told):
    """A batch size that is no number does not make one completion per update."""
    assert len(told("trainer: {ppo_batch_size: x, num_rollout_samples: 1}")) == 1
    assert (
        len(told("trainer: {num_training_steps: 0, lr_schedule_config: {name: constant, arguments: [1], warmup: 200}}"))
        == 1
    )
    assert len(told("rewards: [exact_match]")) == 1


def test_problems_of_all_layers(told):
    messages = told("trainer: ]", "trainer.sed", environ={"GRPO_NOTHING": "1"}.items())
    assert len(messages) == 3
    assert messages[0].startswith("c.yaml:1: ")
    assert "GRPO_NOTHING" in messages[1]
    assert messages[2].startswith("--set trainer.sed: ")


@pytest.mark.parametrize(
    "path", [key.path for key in walk(ExperimentConfig) if key.path[0] not in {"rewards", "evaluation"}], ids=dotted
)
def test_nothing_is_told_of_what_loads(path):
    """Each key with odd values: problems if and only if loading fails, and then a configuration is left to look at."""
    for value in (None, True, 0, 3, -1, 0.5, 10**12, "x", [], {}):
        assignment = f"{dotted(path)}={as_yaml(value)}"
        try:
            resolve([], [assignment], {})
            loads = True
        except ConfigError:
            loads = False
        found = examine([], [assignment], {})
        assert (not found.problems) == loads, assignment


def test_errors_from_elsewhere_get_the_place_of_their_key(told, tmp_path):
    (tmp_path / "c.yaml").write_text("rewards:\n  - name: r\n    config: {x: 1}\n")
    found = examine(["c.yaml"], [], {})
    found.add(ConfigError("rewards[0].config.x: no such key", hint="known are y"))
    found.add(ConfigError("rewards[0].config.x: no such key", hint="known are y"))
    found.add(ConfigError("trainer.seed is odd"))
    found.add(RewardError("no key in front"))
    found.add("a warning")
    assert [problem.message for problem in found.problems] == [
        "c.yaml:3: rewards.0.config.x: no such key",
        "trainer.seed is odd",
        "no key in front",
    ]
    assert found.warnings == ["a warning"]
