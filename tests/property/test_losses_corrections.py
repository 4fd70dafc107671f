"""Advantages per token, narrowed sampling, and the filters of the loss: laws that hold for every type."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.algorithms.advantages import compute_advantages, kept_rows
from pipelines.algorithms.entropy import entropy_threshold
from pipelines.algorithms.importance import SamplerCorrection, configured_correction
from pipelines.algorithms.losses import policy_loss, without_truncated
from pipelines.config import AdvantageConfig, LossConfig

OFFERED = ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"]
BY_TOKEN = [type_ for type_ in OFFERED if type_ != "gspo"]
ROWS, GROUP, WIDTH, BUDGET = 6, 3, 5, 9
every_type = pytest.mark.parametrize("type_", OFFERED)
laws = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def config_of(type_, **fields):
    return LossConfig(type=type_, epsilon_high=5.0 if type_ == "cispo" else 0.28, **fields)


def update_of(seed):
    """Float32 arrays; every row has at least one token."""
    rng = np.random.default_rng(seed)
    new = -rng.exponential(1.0, (ROWS, WIDTH))
    arrays = {
        "new": new,
        "old": new + rng.normal(0, 0.3, new.shape),
        "ref": new + rng.normal(0, 0.3, new.shape),
        "entropies": rng.uniform(0, 3, new.shape),
        "advantages": rng.normal(0, 1, ROWS),
        "mask": np.arange(WIDTH) < rng.integers(1, WIDTH + 1, ROWS)[:, None],
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def evaluate(update, config, **arguments):
    """(loss, gradient with respect to new)."""
    arrays = {name: mx.array(values) for name, values in update.items()}

    def loss(new):
        return policy_loss(
            new,
            arrays["old"],
            arrays["ref"],
            arrays["advantages"],
            arrays["mask"],
            config,
            **({"max_completion_length": BUDGET, "entropies": arrays["entropies"]} | arguments),
        ).loss

    value, gradient = mx.value_and_grad(loss)(arrays["new"])
    return value.item(), np.array(gradient)


@pytest.mark.parametrize("type_", BY_TOKEN)
@given(seed=seeds)
@laws
def test_the_same_advantage_at_every_token_is_that_of_the_row(type_, seed):
    update = update_of(seed)
    spread = update | {"advantages": np.repeat(update["advantages"][:, None], WIDTH, axis=1)}
    by_row, by_token = (evaluate(each, config_of(type_), beta=0.1) for each in (update, spread))
    assert by_token[0] == pytest.approx(by_row[0], abs=1e-6)
    np.testing.assert_allclose(by_token[1], by_row[1], atol=1e-7)


@pytest.mark.parametrize("type_", BY_TOKEN)
@given(seed=seeds, garbage=st.sampled_from([float("nan"), float("inf"), -3.0]))
@laws
def test_an_advantage_moves_its_own_token_alone(type_, seed, garbage):
    """A token without advantage has no gradient, and what stands outside the mask is never read."""
    update, rng = update_of(seed), np.random.default_rng(seed)
    advantages = rng.normal(0, 1, (ROWS, WIDTH)) * (rng.random((ROWS, WIDTH)) < 0.5)
    outside = np.where(update["mask"] > 0, advantages, garbage).astype(np.float32)
    gradient = evaluate(update | {"advantages": advantages.astype(np.float32)}, config_of(type_))[1]
    assert not gradient[advantages == 0].any()
    np.testing.assert_array_equal(evaluate(update | {"advantages": outside}, config_of(type_))[1], gradient)


@pytest.mark.parametrize("fields", [{"type": "gspo"}, {"level": "sequence"}, {"type": "grpo", "level": "sequence"}])
def test_a_ratio_per_row_takes_no_advantage_per_token(fields):
    ones = mx.ones((2, 3))
    with pytest.raises(ValueError, match="needs an advantage per row"):
        policy_loss(-ones, None, None, ones, ones, LossConfig(**fields))


@pytest.mark.parametrize("shape", [(3,), (2, 2), (3, 2), (2, 1), ()])
def test_advantages_of_another_shape_are_a_loud_bug(shape):
    ones = mx.ones((2, 3))
    with pytest.raises(ValueError, match="neither by row nor token"):
        policy_loss(-ones, None, None, mx.ones(shape), ones, LossConfig())


@every_type
@given(seed=seeds, shift=st.integers(-5, 5))
@laws
def test_permuted_groups_and_shifted_rewards_make_the_same_update(type_, seed, shift):
    """From rewards to gradients: groups may change places, and a group's rewards their origin."""
    update, rng = update_of(seed), np.random.default_rng(seed)
    rewards = rng.integers(0, 4, ROWS).astype(np.float32)
    moved = rewards + np.repeat(np.array([shift, -shift]), GROUP).astype(np.float32)
    order = np.roll(np.arange(ROWS), GROUP)  # the two groups change places
    results = []
    for scores, rows in ((rewards, np.arange(ROWS)), (moved, order)):
        found = compute_advantages(mx.array(scores[rows]), GROUP, AdvantageConfig(epsilon=1e-2))
        kept = kept_rows(found)
        given_ = {name: values[rows] for name, values in update.items()} | {"advantages": np.array(found.values)}
        assume(kept)
        loss, gradient = evaluate({name: values[kept] for name, values in given_.items()}, config_of(type_), beta=0.1)
        whole = np.zeros((ROWS, WIDTH), dtype=np.float32)
        whole[rows[kept]] = gradient
        results.append((loss, whole))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-5)
    np.testing.assert_allclose(results[1][1], results[0][1], atol=1e-6)


@every_type
@given(seed=seeds, truncated=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).filter(lambda rows: not all(rows)))
@laws
def test_a_truncated_row_counts_as_a_row_and_as_nothing_else(type_, seed, truncated):
    """Its tokens leave the sum and the token count; row means and the budget of dr_grpo still divide by it."""
    update, rows = update_of(seed), np.array(truncated)
    mask = np.array(without_truncated(mx.array(update["mask"]), mx.array(rows)))
    assert (mask[~rows] == update["mask"][~rows]).all()
    assert not mask[rows].any()
    loss, gradient = evaluate(update | {"mask": mask}, config_of(type_), beta=0.1)
    rest = {name: values[~rows] for name, values in update.items()}
    alone, rest_gradient = evaluate(rest, config_of(type_), beta=0.1, num_rows=ROWS)
    assert loss == pytest.approx(alone, abs=1e-5)
    np.testing.assert_allclose(gradient[~rows], rest_gradient, atol=1e-6)
    assert not gradient[rows].any()


@every_type
@given(seed=seeds, quantile=st.sampled_from([0.2, 0.5, 0.8]))
@laws
def test_the_entropy_filter_keeps_the_most_uncertain_tokens_and_every_denominator(type_, seed, quantile):
    update = update_of(seed)
    active = update["mask"] > 0
    threshold = np.quantile(update["entropies"][active].astype(np.float64), 1 - quantile)
    kept = active & (update["entropies"] >= threshold - 1e-6)
    assert 1 <= kept.sum() <= math.ceil(quantile * active.sum()) + 1
    filtered = evaluate(update, config_of(type_, top_entropy_quantile=quantile))
    weighted = evaluate(update, config_of(type_), weights=mx.array(kept.astype(np.float32)))
    assert filtered[0] == pytest.approx(weighted[0], abs=1e-6)
    np.testing.assert_allclose(filtered[1], weighted[1], atol=1e-7)


@every_type
@given(seed=seeds)
@laws
def test_the_entropy_filter_leaves_the_kl_alone(type_, seed):
    update = update_of(seed) | {"advantages": np.zeros(ROWS, dtype=np.float32)}
    plain = evaluate(update, config_of(type_), beta=0.5)
    filtered = evaluate(update, config_of(type_, top_entropy_quantile=0.2), beta=0.5)
    assert filtered[0] == plain[0]
    np.testing.assert_array_equal(filtered[1], plain[1])


@pytest.mark.parametrize(("quantile", "count"), [(0.4, 51), (0.7, 101), (0.85, 201), (0.2, 16), (1.0, 7)])
def test_the_token_at_the_threshold_stays(quantile, count):
    """Its rank is a whole number, which float32 misses by a hair: 0.6 * 50 = 30.000002."""
    entropies = np.random.default_rng(0).permutation(count).astype(np.float32)
    threshold = entropy_threshold(mx.array(entropies)[None], mx.ones((1, count)), quantile).item()
    assert threshold == pytest.approx((1 - quantile) * (count - 1), abs=1e-5)
    assert (entropies >= threshold).sum() == round(quantile * (count - 1)) + 1


@every_type
@given(seed=seeds)
@laws
def test_entropy_bonus_pushes_every_active_token_up_alike(type_, seed):
    update = update_of(seed)
    arrays = {name: mx.array(values) for name, values in update.items()}

    def loss(entropies):
        return policy_loss(
            arrays["new"],
            arrays["old"],
            None,
            arrays["advantages"],
            arrays["mask"],
            config_of(type_, entropy_coef=0.3),
            entropies=entropies,
        ).loss

    gradient = np.array(mx.grad(loss)(arrays["entropies"]))
    np.testing.assert_allclose(gradient, -0.3 * update["mask"] / update["mask"].sum(), atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"sampler_correction_cap": 2.0}, None),
        ({"sampler_correction": "token_truncate"}, SamplerCorrection("token_truncate", None, 3.0)),
        (
            {"sampler_correction": "sequence_mask", "sampler_correction_cap": 1.5},
            SamplerCorrection("sequence_mask", None, 1.5),
        ),
    ],
    ids=["off", "a cap alone", "token_truncate", "sequence_mask"],
)
def test_the_configured_correction(fields, expected):
    assert configured_correction(LossConfig(**fields)) == expected


@given(seed=seeds, kept=st.integers(1, 6))
@laws
def test_correction_turns_narrowed_sampling_into_the_full_policy_s_gradient_over_what_was_kept(seed, kept):
    """One token drawn from the top `kept` of six: the expectation over draws, summed exactly.

    Corrected, it is the sum over the kept tokens of p A grad log p, with p of the full distribution; not corrected,
    the same divided by the mass that was kept.
    """
    rng = np.random.default_rng(seed)
    logits, rewards = rng.normal(0, 1, 6), rng.normal(0, 1, 6).astype(np.float32)
    full = np.exp(logits) / np.exp(logits).sum()
    likely = np.argsort(-full)[:kept]
    drawn = full[likely] / full[likely].sum()
    correction = configured_correction(LossConfig(sampler_correction="token_truncate"))

    def column(values):
        return mx.array(values.astype(np.float32))[:, None]

    def expected_loss(logits, **sampler):
        """Each possible draw is a row, weighed by its probability."""
        logprobs = (logits - mx.logsumexp(logits))[mx.array(likely)][:, None]
        advantages, ones = mx.array(rewards[likely]), mx.ones((kept, 1))
        weights = {"weights": column(drawn), "num_items": 1}
        return policy_loss(logprobs, None, None, advantages, ones, LossConfig(), **weights, **sampler).loss

    scores = np.eye(6)[likely] - full  # grad log p of each kept token
    exact = -(full[likely] * rewards[likely]) @ scores
    start = mx.array(logits.astype(np.float32))
    told = {"sampler_logprobs": column(np.log(drawn)), "correction": correction}
    corrected = np.array(mx.grad(lambda logits: expected_loss(logits, **told))(start))
    plain = np.array(mx.grad(expected_loss)(start))
    np.testing.assert_allclose(corrected, exact, atol=1e-5)
    np.testing.assert_allclose(plain, exact / full[likely].sum(), atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "corrected", "on_policy", "wanted"),
    [
        ("k1", True, False, "KL(policy, reference)"),
        ("k1", True, True, "KL(policy, reference)"),
        ("k3", True, False, "KL(policy, reference)"),
        ("k3", True, True, "KL(policy, reference)"),
        ("k2", False, True, "KL(policy, reference)"),
        ("k3", False, True, "KL(reference, policy)"),
        ("k1", False, True, "nothing"),
    ],
)
def test_what_each_kl_estimator_pulls_towards(estimator, corrected, on_policy, wanted):
    """The expected gradient over the draws of one token, summed exactly over a vocabulary of six."""
    rng = np.random.default_rng(0)
    policy, reference, older = (mx.array(rng.normal(0, 1, 6).astype(np.float32)) for _ in range(3))
    behind = policy if on_policy else older
    config = LossConfig(kl_estimator=estimator, kl_bias_correction=corrected)

    def logprobs(logits):
        return logits - mx.logsumexp(logits)

    def expected_loss(logits):
        """Each possible draw is a row, weighed by its probability under the policy that drew it."""
        new, ref, old = (logprobs(each)[:, None] for each in (logits, reference, behind))
        ones, drawn = mx.ones((6, 1)), mx.exp(logprobs(behind))[:, None]
        old = None if on_policy else old
        return policy_loss(new, old, ref, mx.zeros(6), ones, config, beta=1.0, weights=drawn, num_items=1).loss

    def divergence(logits):
        p, q = logprobs(logits), logprobs(reference)
        if wanted == "KL(reference, policy)":
            p, q = q, p
        return (mx.exp(p) * (p - q)).sum()

    expected = mx.zeros(6) if wanted == "nothing" else mx.grad(divergence)(policy)
    np.testing.assert_allclose(np.array(mx.grad(expected_loss)(policy)), np.array(expected), atol=1e-6)
