"""Every golden advantage case in float32 against float64 numbers."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pipelines.algorithms.advantages import compute_advantages
from pipelines.config import AdvantageConfig

GOLDEN = json.loads(Path(__file__).with_name("grpo_losses.json").read_text())
CASES = [case for case in GOLDEN["cases"] if case["name"].startswith("adv ")]

IN_FLOAT64_ONLY = {"adv float noise 0.7+1ulp": 1e-5}
"""These rewards differ by 1e-9 and are one number in float32, whose advantage is exactly 0, not 7.5e-6."""


def advantages(case, rewards):
    config = AdvantageConfig(baseline="group", scale=case["scale"], aggregation=case["agg"])
    return compute_advantages(rewards, case["G"], config, weights=mx.array(case["w"]))


def test_the_cases_are_all_there():
    assert len(CASES) == 11


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_advantages(case):
    result = advantages(case, mx.array(np.array(case["R"], dtype=np.float64).astype(np.float32)))
    assert result.values.dtype == mx.float32
    tolerance = IN_FLOAT64_ONLY.get(case["name"], 1e-6)
    np.testing.assert_allclose(np.array(result.values), case["adv"], atol=tolerance, rtol=0)
    assert result.zero_variance.tolist() == case["zero"]


@pytest.mark.parametrize("case", [case for case in CASES if len(case["w"]) == 1], ids=lambda case: case["name"])
def test_one_reward_may_come_as_a_vector(case):
    rewards = mx.array(np.array(case["R"], dtype=np.float32))
    table, vector = advantages(case, rewards), advantages(case, rewards[:, 0])
    assert table.values.tolist() == vector.values.tolist()
    assert table.zero_variance.tolist() == vector.zero_variance.tolist()
