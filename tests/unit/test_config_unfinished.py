"""Settings that wait for their work: refused by name, by the commands that read them, and only at other values."""

from pathlib import Path

import pytest

from pipelines.config import ExperimentConfig
from pipelines.config.fields import find
from pipelines.config.loader import resolve
from pipelines.config.unfinished import UNFINISHED, Unfinished, refuse_unfinished
from pipelines.errors import ConfigError


@pytest.mark.parametrize("row", UNFINISHED, ids=lambda row: row.key)
def test_every_row_names_a_key_whose_default_works(row):
    key = find(ExperimentConfig, tuple(row.key.split(".")))
    assert key is not None
    assert ".".join(key.path) == row.key
    assert not row.refuses(key.default)
    assert bool(row.works) != bool(row.refused)


def test_the_defaults_pass():
    refuse_unfinished(ExperimentConfig())
    refuse_unfinished(ExperimentConfig(), "train")


def test_everything_that_waits_is_named_at_once_with_what_works():
    config = resolve([], ["monitoring.use_wandb=true", "generation.stop=[x]", "trainer.algorithm=ppo"], {}).config
    with pytest.raises(ConfigError) as caught:
        refuse_unfinished(config, "train")
    for part in ("monitoring.use_wandb = true", "generation.stop = [x]", "trainer.algorithm = ppo"):
        assert part in caught.value.message
    for part in ("monitoring.use_wandb=false", "generation.stop=[]", "another trainer.algorithm than ppo"):
        assert part in caught.value.hint


def test_only_commands_that_read_a_setting_refuse_it():
    config = resolve([], ["trainer.use_dual_gradients=true"], {}).config
    refuse_unfinished(config, "eval")
    for command in ("train", ""):
        with pytest.raises(ConfigError, match=r"trainer\.use_dual_gradients = true"):
            refuse_unfinished(config, command)


def test_a_plugin_may_bring_its_own_algorithm_and_loader():
    own = ["trainer.algorithm=mine", "data.loader_type=mine", "plugins=[mine.py]"]
    refuse_unfinished(resolve([], own, {}).config)


def test_a_row_refuses_by_value():
    assert Unfinished("k", works=(0, None)).refuses(1)
    assert not Unfinished("k", works=(0, None)).refuses(0.0)
    assert not Unfinished("k", refused=("a",)).refuses("b")


def test_every_waiting_setting_of_the_acceptance_configuration_is_in_the_table():
    config = resolve([Path(__file__).with_name("acceptance.yaml")], [], {}).config
    known = {row.key for row in UNFINISHED}
    assert {"trainer.use_dual_gradients", "trainer.use_sft_on_answer", "monitoring.use_wandb"} <= known
    with pytest.raises(ConfigError):
        refuse_unfinished(config, "train")
