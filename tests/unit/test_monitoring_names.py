"""The table of metrics is the only source of names: the document is written from it, and what code logs is in it."""

import mlx.core as mx
import pytest

from pipelines.algorithms.losses import LOSSES, policy_loss
from pipelines.config import LossConfig
from pipelines.errors import TrainingError
from pipelines.monitoring import names


def test_document_is_current():
    assert names.DOCUMENT.read_text(encoding="utf-8") == names.markdown(), "run python -m pipelines.monitoring.names"


def test_every_name_once():
    listed = [metric.name for metric in names.METRICS]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("kind", LOSSES)
def test_all_that_losses_report_is_known(kind):
    ones = mx.ones((2, 3))
    config = LossConfig(entropy_coef=0.1).model_copy(update={"type": kind})
    output = policy_loss(
        -ones, -ones, -ones, mx.ones(2), ones, config, beta=0.1, entropies=ones, sampler_logprobs=-ones
    )
    assert len(output.metrics) >= 4
    names.refuse_unknown(output.metrics)


def test_placeholder_stands_for_any_name():
    assert names.is_known("rewards/exact_match/mean")
    assert names.is_known("rewards/my/own reward/std")
    assert names.is_known("custom/temperature")


@pytest.mark.parametrize(
    "name", ["rewards//mean", "rewards/x/median", "rewards/<name>", "custom/", "Reward", "", "reward/x"]
)
def test_other_names_are_unknown(name):
    assert not names.is_known(name)


def test_refusal_says_what_was_meant():
    with pytest.raises(TrainingError, match=r"'reward_sdt'.*did you mean 'reward_std'") as caught:
        names.refuse_unknown(["reward", "reward_sdt"])
    assert "custom/reward_sdt" in caught.value.hint
