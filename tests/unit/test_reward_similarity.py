"""semantic_similarity: equal to its definitions, and to scikit-learn's on the same two texts."""

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.similarity import common_subsequence, jaccard, rouge_l, tfidf
from pipelines.rewards.words import words

METHODS = ["tfidf", "jaccard", "rouge_l"]
PAIRS = [
    ("the cat sat on the mat", "a cat sat on a mat"),
    ("The capital of France is Paris.", "Paris is the capital"),
    ("7 apples", "7 pears and 3 plums"),
    ("北京是中国的首都", "中国的首都是北京"),
    ("completely different", "nothing shared 12345"),
]


def score(answer, reference, **config):
    result = RewardRegistry.create("semantic_similarity", config).compute(
        RewardContext(generated_text=answer, answer=answer, reference_answer=reference)
    )
    return result["reward"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", ["42", "a", "?", "北", "😀", "Paris  is\nbig", "word " * 1_000_000])
def test_equal_texts_score_one(method, text):
    assert score(text, text, method=method, min_length=10, apply_length_penalty=True) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_unlike_texts_score_zero(method):
    assert score("4", "5", method=method) == 0.0
    assert score("😀", "😁", method=method) == 0.0
    assert score("", "5", method=method) == 0.0


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_tfidf_is_scikit_learns(one, other):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    by_word = TfidfVectorizer(tokenizer=words, token_pattern=None, ngram_range=(1, 2))
    union = FeatureUnion([("word", by_word), ("char", TfidfVectorizer(analyzer="char", ngram_range=(2, 4)))])
    vectors = union.fit_transform([one, other]).toarray()
    expected = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert tfidf(one, other) == pytest.approx(expected, abs=1e-9)


def counted(tokens, sizes):
    """How often each run of neighbours occurs, the slow and readable way."""
    return Counter(tuple(tokens[at : at + size]) for size in sizes for at in range(len(tokens) - size + 1))


def cosine(mine, yours):
    """Over two documents, with idf = ln((1 + 2) / (1 + df)) + 1."""
    both = {*mine, *yours}
    idf = {run: math.log(3 / (1 + (run in mine) + (run in yours))) + 1 for run in both}
    one, other = ([counts[run] * idf[run] for run in both] for counts in (mine, yours))
    norms = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / norms if norms else 0.0


scripts = st.text(st.sampled_from("ab cd\n.x9北京中\u0627\u0644\U0001f600\U0001f601\u00df\ud800\x00"), max_size=60)


@given(one=scripts, other=scripts)
def test_tfidf_is_its_definition(one, other):
    folded, also = one.casefold(), other.casefold()
    kinds = [
        (counted(words(folded), (1, 2)), counted(words(also), (1, 2))),
        (counted(" ".join(folded.split()), (2, 3, 4)), counted(" ".join(also.split()), (2, 3, 4))),
    ]
    cosines = [cosine(mine, yours) for mine, yours in kinds if mine or yours]
    assert tfidf(one, other) == pytest.approx(sum(cosines) / len(cosines) if cosines else 0.0, abs=1e-9)


def test_tfidf_of_more_characters_than_bits():
    every = "".join(map(chr, range(0x4E00, 0x4E00 + 16_000)))
    other = "".join(map(chr, range(0x20000, 0x20000 + 16_000)))
    assert tfidf(every, other) == 0.0
    assert tfidf(every, every) == pytest.approx(1.0, abs=1e-9)
    assert 0 < tfidf(every, every[:8000]) < 1


def test_jaccard_by_hand():
    assert jaccard("a b c", "b c d e") == pytest.approx(2 / 5)


def test_rouge_l_by_hand():
    assert rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)


def test_common_subsequence_is_its_definition():
    generator = np.random.default_rng(0)
    for _ in range(50):
        one, other = (["abc"[i] for i in generator.integers(0, 3, size)] for size in generator.integers(0, 12, 2))
        table = np.zeros((len(one) + 1, len(other) + 1), int)
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
        assert common_subsequence(one, other) == table[-1, -1]


def test_symmetric():
    for one, other in PAIRS:
        for method in (tfidf, jaccard, rouge_l):
            assert method(one, other) == pytest.approx(method(other, one))


def test_penalties_by_hand():
    same_words = "a b c d", "a b c d a b c d"
    assert score(*same_words, method="jaccard") == 1.0
    assert score(*same_words, method="jaccard", apply_length_penalty=True) == 0.5
    assert score(*same_words[::-1], method="jaccard", apply_length_penalty=True) == 0.5
    assert score(*same_words, method="jaccard", apply_verbosity_penalty=True) == 1.0
    verbose = {"apply_verbosity_penalty": True, "verbosity_penalty_strength": 0.1}
    assert score(*same_words[::-1], method="jaccard", **verbose) == pytest.approx(0.6)
    assert score("a", "a a a a a", method="jaccard", min_length=10) == pytest.approx(0.1)
    assert score("a a", "a", method="jaccard", min_length=10) == 1.0


def test_abstains_without_a_reference():
    assert RewardRegistry.create("semantic_similarity").compute(RewardContext(answer="x")) is None


def test_an_unknown_method():
    with pytest.raises(ConfigError, match=r"config\.method"):
        RewardRegistry.create("semantic_similarity", {"method": "bert"})


@pytest.mark.parametrize("method", METHODS)
def test_five_megabytes(method):
    start = time.perf_counter()
    assert 0 <= score("one two three " * 360_000, "two three four " * 360_000, method=method) <= 1
    assert time.perf_counter() - start < 1.5
