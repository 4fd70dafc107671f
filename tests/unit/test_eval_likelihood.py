"""mcq and perplexity: what is read is what a softmax written here gives, whatever is padded beside it."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from pipelines.config import ExperimentConfig, GenerationConfig
from pipelines.errors import DataError
from pipelines.evaluation import likelihood
from pipelines.evaluation.base import Sources
from pipelines.evaluation.completions import Piece
from pipelines.evaluation.mcq import Mcq, continuation
from pipelines.evaluation.perplexity import Perplexity, windows
from pipelines.evaluation.questions import encoder_for
from pipelines.evaluation.scoring import score
from pipelines.models.load import load
from pipelines.models.tiny import write_blank
from pipelines.rewards import RewardContext
from pipelines.rows.records import Row

CONFIG = ExperimentConfig()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "blank"
    write_blank(directory)
    return load(str(directory))


@pytest.fixture
def scored(loaded, tmp_path):
    """A function from an evaluator, its settings and rows to records and metrics."""

    def run(kind, rows, **settings):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        evaluator = kind({"path": str(path), **settings})
        prompts = evaluator.items(Sources(loaded.tokenizer, CONFIG, lambda: pytest.fail("there is a file")))
        records = score(evaluator, prompts, loaded, GenerationConfig(), max_tokens=4, seed=0)
        return records, evaluator.metrics(records)

    return run


def twin(loaded, context, target):
    """Log-probabilities of a target, float64 `[C]`: one sequence alone, softmax in NumPy."""
    tokens = [int(token) for token in (*context, *target)]
    logits = np.array(loaded.model(mx.array([tokens])).astype(mx.float32), np.float64)[0]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    table = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.array([table[len(context) - 1 + t, token] for t, token in enumerate(target)])


def test_pieces_of_any_length_side_by_side(loaded, monkeypatch):
    monkeypatch.setattr(likelihood, "POSITIONS_AT_ONCE", 30)
    draw = np.random.default_rng(0)
    sizes = [(1, 1), (5, 3), (2, 9), (30, 4), (3, 0), (1, 12), (7, 2)]
    pieces = [Piece(*(draw.integers(4, 100, size).astype(np.int32) for size in both)) for both in sizes]
    for piece, found in zip(pieces, likelihood.logprobs(loaded, pieces), strict=True):
        np.testing.assert_allclose(found, twin(loaded, piece.context, piece.target), atol=2e-4)


def test_perplexity_of_completions_counts_their_end_of_text(scored, loaded):
    rows = [{"prompt": "1+1=?", "completion": "2"}, {"prompt": "20+30=?", "completion": "it is 50"}]
    records, found = scored(Perplexity, rows)
    encoded = encoder_for(loaded.tokenizer, CONFIG).encode([Row(**row) for row in rows])
    expected = [twin(loaded, each.prompt, each.completion) for each in encoded]
    assert [each.completion[-1] for each in encoded] == [loaded.tokenizer.eos_token_id] * 2
    assert [record["tokens"] for record in records] == [len(each) for each in expected]
    assert found["perplexity"] == pytest.approx(math.exp(-np.concatenate(expected).mean()), rel=1e-4)
    assert [record["score"] for record in records] == pytest.approx([each.mean() for each in expected], abs=2e-4)


def test_perplexity_of_raw_texts_by_token_word_and_byte(scored, loaded):
    texts = ["a quick fox", "1 + 2 = 3"]
    records, found = scored(Perplexity, [{"text": text} for text in texts], window=4)
    first = loaded.tokenizer.eos_token_id  # this tokenizer has no BOS
    assert loaded.tokenizer.bos_token_id is None
    expected = 0.0
    for text in texts:
        tokens = loaded.tokenizer.encode(text, add_special_tokens=False)
        expected -= sum(twin(loaded, each.context, each.target).sum() for each in windows([first, *tokens], 4))
    assert [(record["words"], record["bytes"]) for record in records] == [(3, 11), (5, 9)]
    count = sum(record["tokens"] for record in records)
    assert found["perplexity"] == pytest.approx(math.exp(expected / count), rel=1e-4)
    assert found["word_perplexity"] == pytest.approx(math.exp(expected / 8), rel=1e-4)
    assert found["byte_perplexity"] == pytest.approx(math.exp(expected / 20), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(expected / 20 / math.log(2), rel=1e-4)
    assert found["perplexity_low"] <= found["perplexity"] <= found["perplexity_high"]
    assert "accuracy" not in found


@pytest.mark.parametrize(("count", "size"), [(2, 4), (5, 4), (6, 4), (9, 4), (10, 3)])
def test_windows_ask_for_every_token_once(count, size):
    pieces = list(windows(range(count), size))
    assert [int(token) for piece in pieces for token in piece.target] == list(range(1, count))
    for piece in pieces:
        both = [*piece.context, *piece.target]
        assert both == list(range(both[0], both[-1] + 1))
        assert 1 <= len(piece.target) <= size
        assert len(both) == min(size + 1, both[-1] + 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"text": ""}', "text is no text"), ('{"prompt": "1?", "completion": null}', "neither 'text' nor a completion")],
)
def test_rows_with_nothing_to_read(tmp_path, loaded, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=f"rows.jsonl:1: {message}"):
        Perplexity({"path": str(tmp_path / "rows.jsonl")}).items(Sources(loaded.tokenizer, CONFIG, dict))


ARC = {
    "question": "Which is largest?",
    "choices": {"text": ["a mouse", "an ox", "a fly", "a small elephant"], "label": ["1", "2", "3", "4"]},
    "answerKey": "4",
}
MMLU = {"question": "What is 1+1?", "choices": ["one", "two", "three"], "answer": 1}


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_choices_by_likelihood(scored, loaded, chat):
    (first, second), found = scored(Mcq, [ARC, MMLU], scoring="loglikelihood", chat=chat)
    encoder = encoder_for(loaded.tokenizer, CONFIG, chat=chat)
    prompt = encoder.render(Row([{"role": "user", "content": "Question: Which is largest?\nAnswer:"}]))
    assert chat or prompt == "Question: Which is largest?\nAnswer:"
    encode = loaded.tokenizer.encode
    before = encode(prompt, add_special_tokens=False)
    texts = ARC["choices"]["text"]
    sums = [
        twin(loaded, before, encode(text if chat else f" {text}", add_special_tokens=False)).sum() for text in texts
    ]
    assert first["logprobs"] == pytest.approx(sums, abs=1e-3)
    assert first["correct"] == (int(np.argmax(sums)) == 3)
    assert first["also"]["acc_norm"] == float(np.argmax([s / len(t) for s, t in zip(sums, texts, strict=True)]) == 3)
    assert second["expected"] == "two"
    assert found["accuracy"] == np.mean([first["correct"], second["correct"]])
    assert found["acc_norm"] == np.mean([first["also"]["acc_norm"], second["also"]["acc_norm"]])


def test_letters_by_likelihood(scored):
    (record,), _ = scored(Mcq, [MMLU], scoring="loglikelihood", continuations="letter")
    assert record["prompt"] == "What is 1+1?\nA. one\nB. two\nC. three\nAnswer:"
    assert len(record["logprobs"]) == 3


def test_a_space_goes_with_the_word_behind_it(loaded):
    encoder = encoder_for(loaded.tokenizer, CONFIG, chat=False)
    one, other = continuation(encoder, "Answer: ", "two"), continuation(encoder, "Answer:", " two")
    assert list(one.context) == list(other.context)
    assert list(one.target) == list(other.target)


@pytest.mark.parametrize(
    ("answer", "correct", "extracted"),
    [("B", True, "B"), ("The answer is (B).", True, "B"), ("two", True, "B"), ("A", False, "A"), ("hm", False, None)],
)
def test_letters_that_are_generated(answer, correct, extracted):
    evaluator = Mcq()
    asked = evaluator.asked(MMLU)
    assert asked.question.startswith("What is 1+1?\nA. one\nB. two\nC. three\n")
    found = evaluator.verdict(RewardContext(generated_text=answer, meta=asked.meta))
    assert (found.correct, found.extracted, found.expected) == (correct, extracted, "B")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 3}, "no choice is the right one: 3"),
        ({"answer": "D"}, "'D' is none of A, B, C"),
        ({"answer": None}, "no choice is the right one"),
        ({"choices": ["one"]}, "no list of two or more"),
        ({"choices": "one"}, "no list of two or more"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}, "answer": "A"}, "no list of two or more"),
        ({"question": 3}, "no text in 'question'"),
    ],
)
def test_questions_that_are_none(change, message):
    with pytest.raises(DataError, match=message):
        Mcq().asked(MMLU | change)
