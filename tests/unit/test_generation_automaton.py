"""Texts as automata over tokens, and the bytes of tokens, against plain string search and real tokenizers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipelines.errors import ConfigError
from pipelines.generation.automaton import make_automaton
from pipelines.generation.vocabulary import token_bytes
from pipelines.models.load import load

pieces = st.text("ab<é", min_size=0, max_size=5).map(str.encode) | st.binary(max_size=2)


@given(goal=st.text("ab<é", max_size=6), others=st.lists(pieces, max_size=8), data=st.data())
@settings(max_examples=200)
def test_an_automaton_sees_what_a_search_in_the_text_sees(goal, others, data):
    cuts = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda cut: goal.encode()[slice(*cut)])
    vocabulary = [*data.draw(st.lists(cuts, min_size=1, max_size=5)), *others]
    tokens = data.draw(st.lists(st.integers(0, 12), min_size=5, max_size=15))
    automaton, goal = make_automaton(goal, vocabulary), goal.encode()
    text, state = b"", 0
    for token in (min(token, len(vocabulary)) for token in tokens):  # the last column: an id without text
        longer = text + (vocabulary[token] if token < len(vocabulary) else b"")
        ends = [end for end in range(len(text) + 1, len(longer) + 1) if goal and longer[:end].endswith(goal)]
        begun = max(size for size in range(max(1, len(goal))) if longer.endswith(goal[:size]))
        assert automaton.completed[state, token] == bool(ends)
        assert automaton.next_state[state, token] == begun
        start = max(ends) - len(goal) if ends else len(longer) - begun
        if ends or begun:
            assert automaton.inside[state, token] == (start >= len(text))
        text, state = longer, begun


def test_the_empty_text_never_occurs():
    automaton = make_automaton("", [b"a", b""])
    assert not automaton.completed.any()
    assert not automaton.next_state.any()


WORDS = [b"<", b"</", b"think", b">", b"t", b"thi", b"nk", b"h", b" </"]


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ([1, 2, 3], {0: 1, 2: 2, 7: 3}),
        ([8, 2, 3], {0: 8, 2: 2, 7: 3}),  # sentencepiece puts a space before a text of its own
        ([1, 5, 6, 3], {0: 1, 2: 5, 5: 6, 7: 3}),
    ],
)
def test_the_next_token_of_a_tag_at_its_boundaries(spelling, expected):
    following = make_automaton("</think>", WORDS).next_tokens(spelling)
    assert {int(state): int(following[state]) for state in np.flatnonzero(following >= 0)} == expected


def test_off_the_boundaries_the_longest_fitting_token_is_forced():
    automaton = make_automaton("</think>", WORDS)
    forced = automaton.forced_tokens(automaton.next_tokens([1, 2, 3]), WORDS)
    again = 1  # no token continues `<`, `</th` or `</thin`, so the tag begins anew
    assert forced.tolist() == [1, again, 2, 7, again, 6, again, 3]


def test_a_spelling_that_is_not_the_tag_is_refused():
    with pytest.raises(ConfigError, match="does not spell it"):
        make_automaton("</think>", WORDS).next_tokens([1, 2])


def byte_level(texts):
    """A tokenizer of GPT-2's kind whose ids are the 256 bytes and then these texts."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {letter: i for i, letter in enumerate(letters)}
    coded = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(t) for t in texts]
    for ((name, _),) in coded:
        names.setdefault(name, len(names))
    inner = Tokenizer(models.BPE(vocab=names, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_bytes_of_a_byte_level_vocabulary():
    texts = [" the", "</", "\n\n", " é", "<think>"]
    found = token_bytes(byte_level(texts))
    assert sorted(found[:256]) == [bytes([byte]) for byte in range(256)]
    assert found[256:] == [text.encode() for text in texts]


def test_bytes_of_a_sentencepiece_vocabulary():
    names = ["<unk>", "a", "▁", "▁</", "think", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(steps)
    found = token_bytes(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert found[1:5] == [b"a", b" ", b" </", b"think"]
    assert found[5:] == [bytes([byte]) for byte in range(256)]


def test_bytes_of_the_built_in_model_spell_its_texts():
    tokenizer = load("builtin:tiny").tokenizer
    found = token_bytes(tokenizer)
    text = "<think>7+8=15,4+3+1=08</think>85"
    assert b"".join(found[i] for i in tokenizer.encode(text, add_special_tokens=False)) == text.encode()
    assert found[0] == b"<|pad|>"


def test_a_tokenizer_without_a_fast_form_is_asked_token_by_token():
    class Plain:
        def __len__(self):
            return 3

        def encode(self, text, *, add_special_tokens):
            return [0]

        def decode(self, ids):
            return "".join("ab\N{REPLACEMENT CHARACTER}"[i] for i in ids)

    assert token_bytes(Plain()) == [b"a", b"b", "\N{REPLACEMENT CHARACTER}".encode()]
