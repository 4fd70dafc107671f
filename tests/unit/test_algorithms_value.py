"""Generalised advantages, whitening and the value loss: against their definitions, at their limits, and by hand."""

import mlx.core as mx
import numpy as np
import pytest

from pipelines.algorithms.value import explained_variance, gae, value_loss, whitened

GARBAGE = (np.nan, np.inf, -np.inf, 1e30)


def by_definition(rewards, values, mask, gamma, gae_lambda):
    """A_t = sum_k>=t (gamma lambda)^(k-t) (r_k + gamma V_k+1 - V_k) over the active tokens of each row; float64."""
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for row, active in enumerate(mask):
        where = np.flatnonzero(active)
        r, v = rewards[row, where].astype(float), np.append(values[row, where].astype(float), 0.0)
        deltas = [r[k] + gamma * v[k + 1] - v[k] for k in range(len(where))]
        for t, place in enumerate(where):
            advantages[row, place] = sum((gamma * gae_lambda) ** (k - t) * deltas[k] for k in range(t, len(where)))
            returns[row, place] = advantages[row, place] + v[t]
    return advantages, returns


def case(seed=0, rows=6, width=13, holes=True):
    """Rewards, values and a mask; with holes also rows that begin or end inactive, and one without any token."""
    rng = np.random.default_rng(seed)
    mask = np.arange(width) < rng.integers(1, width + 1, rows)[:, None]
    if holes:
        mask &= rng.random((rows, width)) < 0.7
        mask[0] = False
        mask[1, 0] = False
    return rng.normal(0, 1, (2, rows, width)).astype(np.float32), mask


def estimated(rewards, values, mask, gamma, gae_lambda):
    return tuple(map(np.array, gae(mx.array(rewards), mx.array(values), mx.array(mask), gamma, gae_lambda)))


@pytest.mark.parametrize("width", [1, 2, 3, 8, 13])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
@pytest.mark.parametrize("holes", [False, True])
def test_gae_is_its_definition(width, gamma, gae_lambda, holes):
    (rewards, values), mask = case(seed=width, width=width, holes=holes)
    expected = by_definition(rewards, values, mask, gamma, gae_lambda)
    for found, wanted in zip(estimated(rewards, values, mask, gamma, gae_lambda), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
        assert found.dtype == np.float32


def test_lambda_one_makes_returns_the_reward_to_go():
    (rewards, values), mask = case(holes=False)
    _, returns = estimated(rewards, values, mask, 1.0, 1.0)
    to_go = np.flip(np.cumsum(np.flip(rewards * mask, 1), 1), 1) * mask
    np.testing.assert_allclose(returns, to_go, atol=5e-6)


def test_lambda_zero_is_one_step_of_temporal_difference():
    advantages, returns = estimated(
        np.array([[1.0, 2.0, 4.0]]), np.array([[0.5, 0.25, 3.0]]), np.ones((1, 3), bool), 0.5, 0.0
    )
    np.testing.assert_allclose(advantages, [[1 + 0.125 - 0.5, 2 + 1.5 - 0.25, 4 - 3]])
    np.testing.assert_allclose(returns, [[1.125, 3.5, 4.0]])


def test_a_hole_is_stepped_over():
    """Two tokens with a forced one between them are two tokens: no discount, value or reward of the forced one."""
    whole = estimated(np.array([[1.0, 2.0]]), np.array([[0.5, 0.25]]), np.ones((1, 2), bool), 0.9, 0.8)
    for garbage in GARBAGE:
        mask = np.array([[True, False, True, False]])
        rewards, values = np.array([[1, garbage, 2, garbage]]), np.array([[0.5, garbage, 0.25, garbage]])
        for found, wanted in zip(estimated(rewards, values, mask, 0.9, 0.8), whole, strict=True):
            np.testing.assert_array_equal(found, [[wanted[0, 0], 0, wanted[0, 1], 0]])


def test_whitened_tokens_have_mean_0_and_deviation_1():
    (advantages, _), mask = case()
    advantages = 5 + 3 * np.where(mask, advantages, np.nan)
    found = np.array(whitened(mx.array(advantages), mx.array(mask)))
    assert found[mask].mean() == pytest.approx(0, abs=1e-6)
    assert found[mask].std(ddof=1) == pytest.approx(1, abs=1e-5)
    assert not found[~mask].any()
    wanted = (advantages[mask] - advantages[mask].mean()) / advantages[mask].std(ddof=1)
    np.testing.assert_allclose(found[mask], wanted, atol=1e-5)


@pytest.mark.parametrize("active", [0, 1, 5])
def test_nothing_to_compare_is_exactly_zero(active):
    """No token, one token, or equal ones: 2.7 is no float, so a careless mean would leave a residue to blow up."""
    mask = np.arange(6)[None] < active
    advantages = np.where(mask, np.float32(2.7), np.float32(np.nan))
    np.testing.assert_array_equal(np.array(whitened(mx.array(advantages), mx.array(mask))), np.zeros((1, 6)))


def loss_of(values, old, returns, clip=0.2, items=1):
    arrays = (mx.array([[float(x)]]) for x in (values, old, returns))
    found = value_loss(*arrays, mx.array([[True]]), clip, items)
    return float(found.loss), float(found.clipped)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.9**2, 0),  # within the clip
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, 1),  # moved towards its return further than allowed: held at 1.2
        (0.5, 1.0, 2.0, 0.5 * 1.5**2, 0),  # moved away: the clip must not hide it
        (1.5, 1.0, 1.0, 0.5 * 0.5**2, 0),  # past the return: the larger error counts
        (0.5, 1.0, 0.0, 0.5 * 0.8**2, 1),  # the same from above: held at 0.8
        (1.0, 1.0, 3.0, 0.5 * 2.0**2, 0),  # nothing has moved yet
    ],
)
def test_value_clipping_by_hand(value, old, target, loss, clipped):
    assert loss_of(value, old, target) == (pytest.approx(loss, rel=1e-6), clipped)
    assert loss_of(value, old, target, items=4)[0] == pytest.approx(loss / 4, rel=1e-6)
    assert loss_of(value, old, target, clip=0)[0] == pytest.approx(0.5 * (value - target) ** 2, rel=1e-6)


@pytest.mark.parametrize(("value", "gradient"), [(1.1, -0.9), (1.5, 0.0), (0.5, -1.5), (1.0, -1.0)])
def test_a_held_value_has_no_gradient(value, gradient):
    one = mx.array([[1.0]])
    found = mx.grad(lambda v: value_loss(v, one, 2 * one, one, 0.2, 1).loss)(mx.array([[value]]))
    assert found.item() == pytest.approx(gradient, rel=1e-6)


def test_only_the_values_have_a_gradient():
    arrays = [mx.array([[x]]) for x in (1.5, 1.0, 2.0)]
    found = mx.grad(lambda *a: value_loss(*a, mx.ones((1, 1)), 0.2, 1).loss, argnums=(1, 2))(*arrays)
    assert [gradient.item() for gradient in found] == [0, 0]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_outside_the_mask_reaches_neither_loss_nor_gradient(garbage):
    (values, old), mask = case(3)
    returns = values[::-1] + 0.5
    outcomes = []
    for filler in (0.0, garbage):
        arrays = [mx.array(np.where(mask, array, filler).astype(np.float32)) for array in (values, old, returns)]
        found = mx.value_and_grad(lambda v, o, r: value_loss(v, o, r, mx.array(mask), 0.3, int(mask.sum())).loss)
        loss, gradient = found(*arrays)
        outcomes.append((float(loss), np.array(gradient)))
    assert outcomes[0][0] == outcomes[1][0] > 0
    np.testing.assert_array_equal(outcomes[0][1], outcomes[1][1])
    assert outcomes[1][1][mask].any()
    assert not outcomes[1][1][~mask].any()


def test_explained_variance():
    returns = mx.array([[1.0, 2.0, 4.0, np.nan]])
    mask = mx.array([[True, True, True, False]])
    assert float(explained_variance(returns - 7, returns, mask)) == pytest.approx(1, abs=1e-6)
    assert float(explained_variance(mx.zeros((1, 4)), returns, mask)) == pytest.approx(0, abs=1e-6)
    assert float(explained_variance(-returns, returns, mask)) == pytest.approx(-3, abs=1e-5)
    assert float(explained_variance(returns, mx.ones((1, 4)), mask)) == 0
