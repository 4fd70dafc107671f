"""Drawing a token: both ways draw what is likely as often as it is, and know the sum of the exponentials."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.generation import drawing
from pipelines.generation.seeds import row_keys

ways = pytest.mark.parametrize("way", [drawing.on_cpu, drawing.on_gpu])
VOCABULARIES = st.sampled_from([1, 3, drawing.BLOCK - 1, drawing.BLOCK, 2 * drawing.BLOCK + 1, 1000])
rows_of_logits = VOCABULARIES.flatmap(
    lambda size: arrays(np.float32, (3, size), elements=st.floats(-60, 60, width=32), fill=st.floats(-60, 60, width=32))
)


def keys(rows):
    return mx.array(row_keys(0, "test", 0, range(rows), 1))


def logsumexp(logits):
    exact = logits.astype(np.float64)
    peaks = exact.max(axis=1, keepdims=True)
    return peaks[:, 0] + np.log(np.exp(exact - peaks).sum(axis=1))


@ways
@given(logits=rows_of_logits)
@settings(max_examples=25)
def test_tokens_are_ids_and_the_normaliser_is_a_logsumexp(way, logits):
    for asked in (None, keys(3)):
        tokens, normalisers = map(np.array, way(mx.array(logits), asked))
        assert ((tokens >= 0) & (tokens < logits.shape[1])).all()
        np.testing.assert_allclose(normalisers, logsumexp(logits), rtol=1e-5, atol=1e-4)  # MLX adds up in float32
        if asked is None:
            np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


@ways
@pytest.mark.parametrize("vocabulary", [5, 3 * drawing.BLOCK + 7])
def test_frequencies_pass_a_chi_square_test(way, vocabulary):
    rng, draws = np.random.default_rng(1), 20_000
    logits = rng.normal(0, 2, vocabulary).astype(np.float32)
    tokens, _ = way(mx.array(np.tile(logits, (draws, 1))), keys(draws))
    expected = draws * np.exp(logits - logsumexp(logits[None]))
    common = expected >= 5  # the others count together, as the test wants it
    seen = np.bincount(np.array(tokens), minlength=vocabulary)
    seen, expected = (np.append(each[common], each[~common].sum()) for each in (seen, expected))
    kept = expected > 0
    statistic = ((seen - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations


@ways
def test_what_was_left_out_is_never_drawn(way):
    logits = np.full((500, 3 * drawing.BLOCK), -np.inf, np.float32)
    allowed = [0, drawing.BLOCK - 1, drawing.BLOCK, 3 * drawing.BLOCK - 1]
    logits[:, allowed] = 0.0
    tokens, normalisers = map(np.array, way(mx.array(logits), keys(500)))
    assert set(tokens.tolist()) == set(allowed)
    np.testing.assert_allclose(normalisers, np.log(4), rtol=1e-6)


def test_inversion_finds_the_first_token_beyond_the_number():
    """Weights 1, 0, 3 of 4: numbers below a quarter are the first, all others the last, and none the middle."""
    weights = np.array([[1.0, 0.0, 3.0]] * 6, np.float32)
    firsts = [0.0, 0.2499, 0.25, 0.5, 0.9999, np.nextafter(np.float32(1), np.float32(0))]
    uniforms = np.array([[first, 0.0] for first in firsts], np.float32)
    blocks = weights.sum(axis=1, keepdims=True, dtype=np.float64)
    assert drawing.inverted(weights, blocks, uniforms).tolist() == [0, 0, 2, 2, 2, 2]


def test_the_second_number_continues_the_first():
    """A token of probability 2^-26, rarer than one number can tell, lies between two steps of the first."""
    weights = np.array([[2.0**25, 1.0, 2.0**25 - 1.0]] * 2)
    blocks = weights.sum(axis=1, keepdims=True)
    uniforms = np.array([[0.5, 0.0], [0.5, 0.5]], np.float32)
    assert drawing.inverted(weights, blocks, uniforms).tolist() == [1, 2]


def test_what_a_small_number_has_behind_its_24_bits_is_not_counted_twice():
    """Float32 is finer near 0. With those bits added, the first token here would come half as often as it should."""
    weights = np.array([[1.0, 2.0**24 - 1.0]] * 2)
    uniforms = np.array([[0.75 * 2.0**-24, 0.5], [2.0**-24, 0.0]], np.float32)
    assert drawing.inverted(weights, weights.sum(axis=1, keepdims=True), uniforms).tolist() == [0, 1]


def test_a_row_draws_the_same_whatever_shares_its_batch():
    logits, own = mx.random.normal((9, 700)), keys(9)
    together, _ = drawing.on_cpu(logits, own)
    for row in range(9):
        alone, _ = drawing.on_cpu(logits[row : row + 1], own[row : row + 1])
        assert alone.item() == together[row].item()


def test_a_logit_that_is_no_number_reaches_the_normaliser():
    """Nobody draws silently from such a row: the log-probability is not finite either."""
    for wrong in (np.nan, np.inf):
        logits = np.zeros((1, 9), np.float32)
        logits[0, 4] = wrong
        for asked in (None, keys(1)):
            tokens, normalisers = map(np.array, drawing.on_cpu(mx.array(logits), asked))
            assert 0 <= tokens[0] < 9
            assert np.isnan(normalisers[0])
