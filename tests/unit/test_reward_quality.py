"""thinking_quality, answer_quality, repetition_penalty, and the words they are made of."""

import time

import pytest

from pipelines.errors import ConfigError
from pipelines.rewards import RewardContext, RewardRegistry
from pipelines.rewards.quality import ANSWER_PHRASES
from pipelines.rewards.words import phrase_hits, repeated_share, words

ACCEPTANCE = {"target_length_min": 40, "target_length_max": 90, "excessive_length_threshold": 120}


def of(name, context, **config):
    return RewardRegistry.create(name, config).compute(context)["reward"]


def thinking(text="one two three", tokens=50, **fields):
    return RewardContext(generated_text=f"<think>{text}</think>4", thinking_tokens=tokens, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5 apples", ["it's", "3", "5", "apples"]),
        ("北京 is big", ["北", "京", "is", "big"]),
        ("abc中文def", ["abc", "中", "文", "def"]),
        ("Straße_ÉTÉ", ["strasse", "été"]),
        ("😀 --", []),
        ("It\u2019s \u00e9t\u00e9", ["it's", "\u00e9t\u00e9"]),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_repeated_share_by_hand():
    assert repeated_share("a b c d", 3) == 0
    assert repeated_share("a b a b a b", 2) == pytest.approx(1 - 2 / 5)
    assert repeated_share("a b", 3) == 0
    assert repeated_share("好好好好", 1) == 0.75


@pytest.mark.parametrize("text", ["hello", "difficult", "fundamental", "hmmm", "a Hummer", "unsure", "Let me thinker"])
def test_harmless_words_are_not_forbidden(text):
    assert phrase_hits(text, ANSWER_PHRASES) == []
    assert of("answer_quality", RewardContext(generated_text=text)) == 1.0


def test_phrases_are_found_as_whole_words():
    assert phrase_hits("Hmm, LET  me\nthink. hmm", ANSWER_PHRASES) == ["hmm", "let me think", "hmm"]
    assert phrase_hits("我不知道。", ["不知道"]) == ["不知道"]
    assert phrase_hits("c++ is c++ but not c+", ["c++"]) == ["c++", "c++"]
    assert phrase_hits("what? (?)", ["(?)", " "]) == ["(?)"]
    assert phrase_hits("anything", []) == []
    assert phrase_hits("It's '' quoted", ["''", "it's"]) == ["it's", "''"]
    assert phrase_hits("Stra\u00dfe, stra\u00dfe", ["STRA\u00dfE"]) == ["stra\u00dfe".casefold()] * 2
    assert phrase_hits("the sum", ["the \u017fum"]) == ["the sum"]
    assert phrase_hits("_hmm_ 'hmm' hmm's", ["hmm"]) == ["hmm", "hmm"]
    assert phrase_hits("I can't, you can\u2019t", ["can", "t"]) == []
    assert phrase_hits("ฉันไม่รู้คำตอบ", ["ไม่รู้"]) == ["ไม่รู้"]


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (20, 0.5), (40, 1), (90, 1), (105, 0.5), (120, 0), (500, 0)])
def test_thinking_length(tokens, expected):
    assert of("thinking_quality", thinking(tokens=tokens), **ACCEPTANCE) == pytest.approx(expected)


def test_no_thinking_is_zero():
    assert of("thinking_quality", RewardContext(generated_text="4")) == 0.0
    assert of("thinking_quality", RewardContext(generated_text="<think> </think>4", thinking_tokens=50)) == 0.0


def test_thinking_penalties():
    assert of("thinking_quality", thinking("I cannot help with one"), **ACCEPTANCE) == pytest.approx(0.9)
    assert of("thinking_quality", thinking("a a a a a"), **ACCEPTANCE) == pytest.approx(1 - 0.5 * 2 / 3)
    unclosed = RewardContext(generated_text="<think>one two three", thinking_tokens=50)
    assert of("thinking_quality", unclosed, **ACCEPTANCE) == pytest.approx(0.8)
    nested = RewardContext(generated_text="<think>a<think>b</think>4", thinking_tokens=50)
    assert of("thinking_quality", nested, **ACCEPTANCE, tag_penalty=2.0) == 0.0
    preopened = RewardContext(generated_text="one two</think>4", thinking_tokens=50, thinking_opened=True)
    assert of("thinking_quality", preopened, **ACCEPTANCE) == 1.0


def test_thinking_says_why():
    result = RewardRegistry.create("thinking_quality", ACCEPTANCE).compute(thinking("as an AI language model, no"))
    assert result["phrases"] == ["as an ai language model"]
    assert result["thinking_tokens"] == 50


def test_answer_penalties_add_up_to_a_maximum():
    assert of("answer_quality", RewardContext(generated_text="Hmm, 4")) == 0.75
    assert of("answer_quality", RewardContext(generated_text="hmm hmm hmm hmm hmm")) == 0.0
    assert of("answer_quality", RewardContext(generated_text="hmm hmm hmm"), max_penalty=0.4) == pytest.approx(0.6)
    assert of("answer_quality", RewardContext(generated_text="a b c a b c")) == pytest.approx(0.75)


def test_answers_that_are_no_answers():
    assert of("answer_quality", RewardContext(generated_text=" ")) == 0.0
    assert of("answer_quality", RewardContext(generated_text="4", answer_tokens=1), min_length=2) == 0.0
    assert of("answer_quality", RewardContext(generated_text="<think>all of it")) == 0.0


def test_repetition_penalty():
    assert of("repetition_penalty", RewardContext(generated_text="a b c d e")) == 0.0
    assert of("repetition_penalty", RewardContext(generated_text="a a a a a"), max_penalty=2.0) == pytest.approx(-4 / 3)
    assert of("repetition_penalty", RewardContext(generated_text="")) == 0.0


def test_thresholds_must_be_in_order():
    with pytest.raises(ConfigError, match="target_length_max < excessive_length_threshold"):
        RewardRegistry.create("thinking_quality", {"excessive_length_threshold": 100})


@pytest.mark.parametrize("piece", ["word ", "好", "hmm ", "<think>", " ", "😀", "a-"])
@pytest.mark.parametrize("name", ["thinking_quality", "answer_quality", "repetition_penalty"])
def test_five_megabytes(name, piece):
    text = piece * (5_000_000 // len(piece.encode()))
    context = RewardContext(generated_text=text, thinking=text, answer=text, thinking_tokens=9, answer_tokens=9)
    start = time.process_time()
    assert -1 <= of(name, context) <= 1
    assert time.process_time() - start < 1.5
