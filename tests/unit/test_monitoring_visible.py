"""What a model writes, made harmless to look at, and cut to a number of columns."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.monitoring.visible import columns, cut, excerpt, visible

HARMFUL = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u4e94 \U0001f600", "plain \u4e94 \U0001f600"),
        ("\x1b[31mred\x07", "\u241b[31mred\u2407"),
        ("a\r\nb\tc\rd", "a\nb\tc\u240dd"),
        ("\x7f\x9b31m", "\u2421\\u009b31m"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("\ud800", "\\ud800"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("", ""),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@given(st.text(alphabet=st.characters()))
def test_nothing_harmful_is_left(text):
    left = {character for character in visible(text) if unicodedata.category(character) in HARMFUL}
    assert left <= set("\n\t\u200c\u200d")
    visible(text).encode()


@given(st.text(alphabet=st.characters()), st.integers(min_value=3, max_value=60))
def test_cuts_fit_and_stay_in_one_line(text, width):
    for shown in (cut(text, width), excerpt(text, width)):
        assert columns(shown) <= width
        assert len(shown.splitlines()) <= 1


def test_an_excerpt_keeps_both_ends():
    assert excerpt("short  and\nsweet", 20) == "short and sweet"
    assert excerpt("begin " + "x" * 1000 + " end", 11) == "begin\u2026x end"
    assert cut("begin " + "x" * 1000 + " end", 7) == "begin \u2026"
    assert excerpt("\u4e94" * 100, 10) == "\u4e94\u4e94\u2026\u4e94\u4e94"


def test_a_long_text_is_quick():
    from time import perf_counter

    text, start = "<think>\x1b" * 700_000, perf_counter()
    assert len(excerpt(text, 40)) <= 40
    assert perf_counter() - start < 1
