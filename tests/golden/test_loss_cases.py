"""Every golden loss: value, gradient and metrics in float32 against float64 numbers of the most used trainer."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pipelines.algorithms.importance import SamplerCorrection
from pipelines.algorithms.losses import policy_loss, without_truncated
from pipelines.config import LossConfig

GOLDEN = json.loads(Path(__file__).with_name("grpo_losses.json").read_text())
LOSS_CASES = {case["name"]: case for case in GOLDEN["cases"] if not case["name"].startswith("adv ")}
INPUTS = {name: mx.array(values) for name, values in GOLDEN["inputs"].items()}
TOLERANCE = 1e-6
ROW_2 = mx.array([False, False, True, False])

ON_POLICY = {"old": None}
KL = {"beta": 0.04}
BIAS = {"kl_bias_correction": True}


def sampler(mode, low, high):
    return {"sampler_logprobs": mx.array(GOLDEN["sampler"]), "correction": SamplerCorrection(mode, low, high)}


def masked(loss_type):
    return {"type": loss_type}, {"mask": without_truncated(INPUTS["mask"], ROW_2)}


SETTINGS = {
    # name: (fields of LossConfig, arguments of policy_loss)
    "grpo": ({"type": "grpo"}, {}),
    "grpo on-policy(old=None)": ({"type": "grpo"}, ON_POLICY),
    "bnpo": ({"type": "bnpo"}, {}),
    "bnpo on-policy(old=None)": ({"type": "bnpo"}, ON_POLICY),
    "dr_grpo": ({"type": "dr_grpo"}, {}),
    "dr_grpo on-policy(old=None)": ({"type": "dr_grpo"}, ON_POLICY),
    "dapo": ({}, {}),
    "dapo on-policy(old=None)": ({}, ON_POLICY),
    "dapo eps_high=.28": ({"epsilon_high": 0.28}, {}),
    "grpo delta=1.4": ({"type": "grpo", "delta": 1.4}, {}),
    "dapo delta=4": ({"delta": 4.0}, {}),
    "dapo beta=.04 biascorr=False onpol=False": ({}, KL),
    "dapo beta=.04 biascorr=False onpol=True": ({}, KL | ON_POLICY),
    "dapo beta=.04 biascorr=True onpol=False": (BIAS, KL),
    "dapo beta=.04 biascorr=True onpol=True": (BIAS, KL | ON_POLICY),
    "grpo beta=.04 biascorr=False": ({"type": "grpo"}, KL),
    "dr_grpo beta=.04 biascorr=True": ({"type": "dr_grpo", **BIAS}, KL),
    "gspo = grpo+sequence eps .2": ({"type": "grpo", "level": "sequence"}, {}),
    "gspo eps 3e-4/4e-4": ({"type": "gspo", "epsilon": 3e-4, "epsilon_high": 4e-4}, {}),
    "gspo on-policy": ({"type": "gspo"}, ON_POLICY),
    "cispo eps_high=5": ({"type": "cispo", "epsilon_high": 5.0}, {}),
    "cispo eps_high=1.2": ({"type": "cispo", "epsilon_high": 1.2}, {}),
    "sapo": ({"type": "sapo"}, {}),
    "vespo": ({"type": "vespo"}, {}),
    "luspo seq eps 2e-3/2.5e-3": ({"type": "luspo", "level": "sequence", "epsilon": 2e-3, "epsilon_high": 2.5e-3}, {}),
    "luspo token": ({"type": "luspo"}, {}),
    # 40 tokens were counted over two updates, and one update is what a loss is normalised by.
    "dapo ga=2 spg=4 N=40": ({}, {"num_items": 20}),
    "grpo ga=2": ({"type": "grpo"}, {"num_rows": 8}),
    "dapo top_entropy .2": ({"top_entropy_quantile": 0.2}, {}),
    "dapo ent_coef=.01": ({"entropy_coef": 0.01}, {}),
    # The threshold masks no row of these inputs: the case equals plain grpo.
    "grpo off_policy_thr=.1": ({"type": "grpo"}, {}),
    "dapo IS sequence_mask [None,3.0]": ({}, sampler("sequence_mask", None, 3.0)),
    "dapo IS sequence_truncate [None,2.0]": ({}, sampler("sequence_truncate", None, 2.0)),
    "dapo IS token_mask [0.5,2.0]": ({}, sampler("token_mask", 0.5, 2.0)),
    "dapo IS token_truncate [None,2.0]": ({}, sampler("token_truncate", None, 2.0)),
    "dapo IS token_mask [0.95,1.2]": ({}, sampler("token_mask", 0.95, 1.2)),
    "dapo IS sequence_truncate [0.9,2.0]": ({}, sampler("sequence_truncate", 0.9, 2.0)),
    "dapo tool_mask": ({}, {"mask": INPUTS["mask"] * mx.array(GOLDEN["tool_mask"])}),
    "grpo row2 truncated-masked": masked("grpo"),
    "bnpo row2 truncated-masked": masked("bnpo"),
    "dr_grpo row2 truncated-masked": masked("dr_grpo"),
    "dapo row2 truncated-masked": masked("dapo"),
}


def loss_config(**fields):
    """LossConfig with epsilon_high 0.2; types that the schema does not offer are set past it."""
    kind = fields.pop("type", "dapo")
    return LossConfig(**({"epsilon_high": 0.2} | fields)).model_copy(update={"type": kind})


def evaluate(fields, arguments, new=INPUTS["new"]):
    arguments = {"old": INPUTS["old"], "mask": INPUTS["mask"], **arguments}
    old, mask = arguments.pop("old"), arguments.pop("mask")

    def loss(new):
        return policy_loss(
            new,
            old,
            INPUTS["ref"],
            INPUTS["adv"],
            mask,
            loss_config(**fields),
            max_completion_length=8,
            entropies=INPUTS["ent"],
            **arguments,
        )

    return mx.value_and_grad(loss)(new)


def test_every_golden_case_is_bound():
    assert SETTINGS.keys() == LOSS_CASES.keys()
    assert len(SETTINGS) == 42


@pytest.mark.parametrize("name", SETTINGS)
def test_golden_loss(name):
    case = LOSS_CASES[name]
    (loss, metrics), gradient = evaluate(*SETTINGS[name])
    assert loss.dtype == mx.float32
    assert loss.item() == pytest.approx(case["loss"], abs=TOLERANCE)
    np.testing.assert_allclose(np.array(gradient), case["grad"], atol=TOLERANCE, rtol=0)
    assert {metric: metrics[metric].item() for metric in case["metrics"]} == pytest.approx(
        case["metrics"], abs=TOLERANCE
    )


@pytest.mark.parametrize("type_", ["dapo", "grpo", "dr_grpo", "bnpo", "sapo", "cispo"])
def test_a_bool_mask_is_as_good_as_a_float_one(type_):
    plain, boolean = evaluate({"type": type_}, {}), evaluate({"type": type_}, {"mask": INPUTS["mask"] > 0})
    assert plain[0].loss.item() == boolean[0].loss.item()


@pytest.mark.parametrize(("weights", "expected"), [((1.0, 1.0), -0.6183333333), ((0.3, 1.0), -0.3663333333)])
@pytest.mark.parametrize("how", ["weights", "mask"])
def test_golden_regions(weights, expected, how):
    """A region enters as weights under the full mask, or as a mask with the shared token count."""
    lengths = np.array([2, 1, 3, 1])
    thinking = mx.array(np.arange(6)[None] < lengths[:, None]) * INPUTS["mask"]
    regions = [thinking, INPUTS["mask"] - thinking]
    shared = {"num_items": 15}
    total = sum(
        weight * evaluate({}, {how: region, **shared})[0].loss.item()
        for weight, region in zip(weights, regions, strict=True)
    )
    assert total == pytest.approx(expected, abs=TOLERANCE)
