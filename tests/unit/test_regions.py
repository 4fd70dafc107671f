"""Where thinking ends, on real byte-level tokenizers: tags as one token, as several, and spelled otherwise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipelines.algorithms.regions import Tags, region_masks, tags_for, thinking_length
from pipelines.config import GenerationConfig

SENTENCES = ["<think>\nTwo and two are four.\n</think>\nThe answer is 4.", "le café est là, 二加二等于四 🙂"] * 20
CLOSE = "</think>"


class ByteLevel:
    """A byte-level BPE with the two methods asked of a tokenizer, and one more to spell text byte by byte."""

    def __init__(self, special=()):
        self.inner = Tokenizer(models.BPE())
        self.inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>", *special], show_progress=False
        )
        self.inner.train_from_iterator(SENTENCES, trainer)
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self.spell = lambda text: [self.inner.token_to_id(byte) for byte in pieces.pre_tokenize_str(text)[0][0]]

    def encode(self, text, *, add_special_tokens):
        return self.inner.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids):
        return self.inner.decode(ids, skip_special_tokens=False)


SPLIT = ByteLevel()
SPECIAL = ByteLevel(special=["<think>", CLOSE])
TOKENIZERS = {"several tokens": SPLIT, "one token": SPECIAL}
TAGS = {tokenizer: tags_for(tokenizer, GenerationConfig()) for tokenizer in (SPLIT, SPECIAL)}
EOS = 0

every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_the_tokenizers_are_what_the_tests_need():
    assert len(TAGS[SPLIT].close) > 1
    assert len(TAGS[SPLIT].open) > 1
    assert [len(TAGS[SPECIAL].open), len(TAGS[SPECIAL].close)] == [1, 1]
    assert SPLIT.decode(ids_of(SPLIT, "café 二🙂")) == "café 二🙂"
    assert len(SPLIT.spell("二")) == 3


@every_tokenizer
@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize(
    ("completion", "preopened", "thinking"),
    [
        ("<think>2+2</think>4", False, "<think>2+2</think>"),
        ("2+2</think>4", True, "2+2</think>"),
        ("2+2</think>4", False, "2+2</think>"),
        ("a</think>b<think>c</think>d", True, "a</think>b<think>c</think>"),
        ("<think>a</think>b<think>c", False, "<think>a</think>"),
        ("a</think>b</think>c", True, "a</think>b</think>"),
        ("still thinking", True, "still thinking"),
        ("<think>still thinking", False, "<think>still thinking"),
        ("so, <think>late", False, "so, <think>late"),
        ("no tags at all", False, ""),
        ("almost </think a tag", False, ""),
        ("<think>café 二加二等于四 🙂</think>二", False, "<think>café 二加二等于四 🙂</think>"),
        ("</think>", True, "</think>"),
        ("", True, ""),
        ("", False, ""),
    ],
)
def test_thinking_ends_after_the_last_close_tag(tokenizer, completion, preopened, thinking, decoding):
    ids = ids_of(tokenizer, completion)
    length = thinking_length(ids, TAGS[tokenizer], preopened, tokenizer.decode if decoding else None)
    assert tokenizer.decode(ids[:length]) == thinking
    assert tokenizer.decode(ids[length:]) == completion[len(thinking) :]


@every_tokenizer
def test_eos_belongs_to_the_region_it_ends(tokenizer):
    tags = TAGS[tokenizer]
    for text, preopened, in_thinking in [("a</think>b", True, False), ("a</think>", True, False), ("a", True, True)]:
        ids = [*ids_of(tokenizer, text), EOS]
        thinking, answer = region_masks([thinking_length(ids, tags, preopened)], [len(ids)], len(ids) + 2)
        assert thinking[0, len(ids) - 1] == in_thinking
        assert answer[0, len(ids) - 1] != in_thinking
        assert not (thinking | answer)[0, len(ids) :].any()


@every_tokenizer
@pytest.mark.parametrize("before", ["", "2+2", "二加二🙂", "é" * 7])
def test_a_tag_spelled_otherwise_is_found_through_the_text(tokenizer, before):
    ids = [*tokenizer.spell(before + CLOSE), *ids_of(tokenizer, "4 二")]
    assert thinking_length(ids, TAGS[tokenizer], True) == len(ids)  # ids alone cannot see it
    length = thinking_length(ids, TAGS[tokenizer], True, tokenizer.decode)
    assert tokenizer.decode(ids[:length]) == before + CLOSE


@every_tokenizer
def test_a_later_close_tag_spelled_otherwise_still_counts(tokenizer):
    ids = [*ids_of(tokenizer, "a</think>b"), *tokenizer.spell("二</think>c")]
    length = thinking_length(ids, TAGS[tokenizer], False, tokenizer.decode)
    assert tokenizer.decode(ids[:length]) == "a</think>b二</think>"


@every_tokenizer
def test_an_open_tag_spelled_otherwise_opens_thinking(tokenizer):
    ids = tokenizer.spell("🙂<think>hm")
    assert thinking_length(ids, TAGS[tokenizer], False, tokenizer.decode) == len(ids)


def test_a_token_with_the_end_of_the_tag_and_more_is_thinking():
    texts = {1: "hm", 2: "</", 3: "think", 4: ">", 5: ">\n4", 6: "!"}
    decode = lambda ids: "".join(texts[token] for token in ids)  # noqa: E731
    tags = Tags(open=(9,), close=(2, 3, 4))
    assert thinking_length([1, 2, 3, 5, 6], tags, True, decode) == 4


def test_text_is_decoded_only_where_the_tag_may_hide():
    """A tag found as ids leaves only what follows it to look through."""
    seen = []

    def decode(ids):
        seen.append(list(ids))
        return "".join({7: "<think>", 8: "</think>"}.get(token, "x") for token in ids)

    assert thinking_length([1, 2, 8, 3, 4], Tags((7,), (8,)), True, decode) == 3
    assert seen == [[3, 4], [8]]


def test_empty_tags_never_occur():
    tags = tags_for(SPLIT, GenerationConfig(think_start_tag="", think_end_tag=""))
    assert tags == Tags((), ())
    assert thinking_length([1, 2, 3], tags, False, SPLIT.decode) == 0
    assert thinking_length([1, 2, 3], tags, True, SPLIT.decode) == 3


def test_padding_equal_to_eos_is_no_part_of_a_region():
    thinking, answer = region_masks(np.array([2, 0]), np.array([3, 1]), 4)
    np.testing.assert_array_equal(thinking, [[True, True, False, False], [False] * 4])
    np.testing.assert_array_equal(answer, [[False, False, True, False], [True, False, False, False]])


pieces = st.lists(st.sampled_from(["<think>", CLOSE, "</thi", "nk>", "é", "二", "🙂", "a", "\n", " 4"]), max_size=12)


@every_tokenizer
@given(pieces=pieces, spelled=st.lists(st.booleans(), min_size=12, max_size=12), preopened=st.booleans())
@settings(deadline=None, max_examples=200)
def test_against_the_definition_on_text(tokenizer, pieces, spelled, preopened):
    """The shortest prefix whose text holds every close tag, by trying all prefixes; however the text was tokenised."""
    ids = []
    for piece, bytewise in zip(pieces, spelled, strict=False):
        ids += tokenizer.spell(piece) if bytewise else ids_of(tokenizer, piece)
    text = "".join(pieces)
    if text.count(CLOSE):
        prefixes = [tokenizer.decode(ids[:length]).count(CLOSE) for length in range(len(ids) + 1)]
        expected = prefixes.index(text.count(CLOSE))
    else:
        expected = len(ids) if preopened or "<think>" in text else 0
    assert thinking_length(np.array(ids, dtype=np.int32), TAGS[tokenizer], preopened, tokenizer.decode) == expected


@given(
    rows=st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=5),
    preopened=st.booleans(),
    extra=st.integers(0, 3),
    tags=st.sampled_from([Tags((1,), (2,)), Tags((1, 3), (2, 3)), Tags((3, 3), (2, 2, 4))]),
)
@settings(deadline=None)
def test_the_regions_partition_the_loss_mask(rows, preopened, extra, tags):
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max()) + extra
    thinking, answer = region_masks([thinking_length(row, tags, preopened) for row in rows], lengths, width)
    assert not (thinking & answer).any()
    np.testing.assert_array_equal(thinking | answer, np.arange(width) < lengths[:, None])
    for row, mask in zip(rows, answer, strict=True):
        after = [token for token, kept in zip(row, mask, strict=False) if kept]
        assert not any(tuple(after[i : i + len(tags.close)]) == tags.close for i in range(len(after)))
