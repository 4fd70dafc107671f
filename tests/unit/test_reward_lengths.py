"""Rewards on length: the numbers at the corners and halfway between them."""

import pytest

from pipelines.errors import ConfigError
from pipelines.rewards import RewardContext, RewardRegistry


def of(name, tokens, **config):
    context = RewardContext(generated_text="text", thinking_tokens=tokens // 2, answer_tokens=tokens - tokens // 2)
    result = RewardRegistry.create(name, config).compute(context)
    return result["reward"]


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0), (1, 1), (100, 1), (150, 0.5), (175, 0.25), (200, 0), (999, 0)]
)
def test_length_penalty(tokens, expected):
    assert of("length_penalty", tokens, target_length=100, max_length=200) == pytest.approx(expected)


def test_length_penalty_of_short_texts():
    assert of("length_penalty", 5, min_length=20) == 0.25
    assert of("length_penalty", 0, min_length=0) == 1.0


def test_length_penalty_of_one_region():
    context = RewardContext(generated_text="text", thinking_tokens=150, answer_tokens=10)
    result = RewardRegistry.create("length_penalty", {"target_length": 100, "max_length": 200, "region": "thinking"})
    assert result.compute(context) == {"reward": 0.5, "tokens": 150}


def test_length_penalty_needs_its_limits_in_order():
    with pytest.raises(ConfigError, match="min_length <= target_length < max_length"):
        RewardRegistry.create("length_penalty", {"target_length": 10, "max_length": 10})


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1), (5000, -1)])
def test_soft_overlong_is_dapos(tokens, expected):
    assert of("soft_overlong", tokens, max_length=100, cache_length=20) == pytest.approx(expected)


def test_soft_overlong_needs_its_limits():
    with pytest.raises(ConfigError, match=r"config\.max_length is missing"):
        RewardRegistry.create("soft_overlong", {"cache_length": 5})
    with pytest.raises(ConfigError, match="cache_length <= max_length"):
        RewardRegistry.create("soft_overlong", {"cache_length": 5, "max_length": 4})
