"""Every loss type, estimator and option against the numpy twin: its value, and finite differences of it in float64."""

import importlib.util
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.algorithms.importance import SamplerCorrection
from pipelines.algorithms.losses import policy_loss
from pipelines.config import LossConfig


def load_twin():
    path = Path(__file__).resolve().parents[1] / "reference_losses.py"
    spec = importlib.util.spec_from_file_location("reference_losses", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twin = load_twin()
OFFERED = ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"]
ROWS, WIDTH, BUDGET, STEP = 4, 5, 11, 1e-6
MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
every_type = pytest.mark.parametrize("type_", OFFERED)
laws = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**31)
options = st.fixed_dictionaries(
    {
        "level": st.sampled_from(["token", "sequence"]),
        "delta": st.sampled_from([None, 1.4]),
        "kl_estimator": st.sampled_from(["k1", "k2", "k3"]),
        "kl_bias_correction": st.booleans(),
        "entropy_coef": st.sampled_from([0.0, 0.3]),
        "top_entropy_quantile": st.sampled_from([1.0, 0.6, 0.2]),
    }
)


def config_of(type_, **fields):
    return LossConfig(type=type_, **({"epsilon_high": 1.1 if type_ == "cispo" else 0.28} | fields))


def update_of(seed, *, on_policy=False, per_token=False, mode=None, beta=0.3):
    """(new, entropies, Given) in float64 with values that float32 holds exactly; ragged, with holes and empty rows."""
    rng = np.random.default_rng(seed)

    def rounded(values):
        return values.astype(np.float32).astype(np.float64)

    shape = (ROWS, WIDTH)
    new = rounded(-rng.exponential(1.0, shape))
    mask = (np.arange(WIDTH) < rng.integers(0, WIDTH + 1, ROWS)[:, None]) & (rng.random(shape) < 0.9)
    mask[0, :2] = True
    given = twin.Given(
        mask=mask,
        advantages=rounded(rng.normal(0, 1, shape if per_token else ROWS)),
        budget=BUDGET,
        old=None if on_policy else rounded(new + rng.normal(0, 0.3, shape)),
        ref=rounded(new + rng.normal(0, 0.5, shape)),
        sampler=None if mode is None else rounded(new + rng.normal(0, 0.4, shape)),
        beta=beta,
        correction=(mode or "sequence_mask", 0.7, 1.3),
    )
    return new, rounded(rng.uniform(0, 3, shape)), given


def product(new, entropies, given, config):
    """(loss, gradient in new, gradient in entropies) of the code under test, from the twin's arguments."""

    def array(values):
        return None if values is None else mx.array(values.astype(np.float32))

    def loss(new, entropies):
        return policy_loss(
            new,
            array(given.old),
            array(given.ref),
            array(given.advantages),
            mx.array(given.mask),
            config,
            beta=given.beta,
            max_completion_length=given.budget,
            entropies=entropies,
            sampler_logprobs=array(given.sampler),
            correction=SamplerCorrection(*given.correction),
        ).loss

    value, gradients = mx.value_and_grad(loss, argnums=(0, 1))(array(new), array(entropies))
    return value.item(), *map(np.array, gradients)


def central_differences(function, at):
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = STEP
        gradient[index] = (function(at + step) - function(at - step)) / (2 * STEP)
    return gradient


def kinks_are_far(new, given, config):
    """Away from where a clip or cap begins: there float32 may fall on the other side, and no derivative exists."""
    old = new if given.old is None else given.old
    bounds = [1 - config.epsilon, 1 + config.epsilon_high, config.epsilon_high, config.delta or 1.0]
    for row, mask in enumerate(given.mask):
        if given.old is not None:
            ratios = twin.row_ratios((new - old)[row, mask], config.sequence_level)
            if any(np.abs(ratios - bound).min(initial=1) < 1e-4 for bound in bounds):
                return False
        if given.sampler is not None:
            where = np.flatnonzero(mask)
            loose = twin.Given(**(vars(given) | {"correction": (given.correction[0][:-4] + "truncate", 0, np.inf)}))
            weights = twin.sampler_weights(row, where, old, loose)
            if any(np.abs(weights - bound).min(initial=1) < 1e-4 for bound in given.correction[1:]):
                return False
    return True


def agree_where_smooth(update, config):
    assume(kinks_are_far(update[0], update[2], config))
    agree(*update, config)


def agree(new, entropies, given, config):
    at = (new, entropies)
    value, by_new, by_entropies = product(new, entropies, given, config)
    assert value == pytest.approx(twin.policy_loss(new, entropies, given, config), abs=1e-5)
    slopes = central_differences(lambda new: twin.policy_loss(new, entropies, given, config, at), new)
    np.testing.assert_allclose(by_new, slopes, atol=2e-6, rtol=1e-5)
    slopes = central_differences(lambda entropies: twin.policy_loss(new, entropies, given, config, at), entropies)
    np.testing.assert_allclose(by_entropies, slopes, atol=2e-6)


@every_type
@given(seed=seeds, fields=options, on_policy=st.booleans())
@laws
def test_value_and_finite_differences(type_, seed, fields, on_policy):
    agree_where_smooth(update_of(seed, on_policy=on_policy), config_of(type_, **fields))


@every_type
@given(seed=seeds, mode=st.sampled_from(MODES), on_policy=st.booleans())
@laws
def test_value_and_finite_differences_with_a_sampler_correction(type_, seed, mode, on_policy):
    agree_where_smooth(update_of(seed, mode=mode, on_policy=on_policy), config_of(type_))


@pytest.mark.parametrize("type_", [type_ for type_ in OFFERED if type_ != "gspo"])
@given(seed=seeds, fields=options, on_policy=st.booleans())
@laws
def test_value_and_finite_differences_with_an_advantage_per_token(type_, seed, fields, on_policy):
    config = config_of(type_, **(fields | {"level": "token"}))
    agree_where_smooth(update_of(seed, per_token=True, on_policy=on_policy), config)


@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@every_type
def test_each_estimator_with_each_type(type_, estimator, corrected, on_policy):
    """Without advantages what remains is the KL alone, whose gradient is not lost beside the policy's."""
    new, entropies, given_ = update_of(4, on_policy=on_policy)
    alone = twin.Given(**(vars(given_) | {"advantages": np.zeros(ROWS), "beta": 1.0}))
    config = config_of(type_, kl_estimator=estimator, kl_bias_correction=corrected)
    agree(new, entropies, alone, config)
    assert np.abs(product(new, entropies, alone, config)[1]).max() > 0.01


def test_the_twin_can_tell_right_from_wrong():
    """Finite differences notice a gradient that flows where the formula holds a value constant."""
    new, entropies, given_ = update_of(2)
    config = config_of("cispo")
    held = central_differences(lambda x: twin.policy_loss(x, entropies, given_, config, (new, entropies)), new)
    free = central_differences(lambda x: twin.policy_loss(x, entropies, given_, config), new)
    assert np.abs(held - free).max() > 0.01
