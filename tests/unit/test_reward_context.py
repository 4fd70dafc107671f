"""Contexts: what is cut from tokens, from text, and what a context made by hand may leave out."""

import pytest

from pipelines.rewards import RewardContext, completion_context, split_regions
from pipelines.rewards.context import between


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>a</think>b", False, ("a", "b")),
        ("a</think>b", True, ("a", "b")),
        ("<think>a</think>b</think>c", False, ("a</think>b", "c")),
        ("no tags", False, ("", "no tags")),
        ("no tags", True, ("no tags", "")),
        ("<think>never closed", False, ("never closed", "")),
        ("", False, ("", "")),
    ],
)
def test_split_regions(text, opened, expected):
    assert split_regions(text, opened=opened) == expected


WORDS = {1: "<think>", 2: "</think>", 3: "a", 4: "b", 9: "<eos>"}


def decode(tokens):
    return "".join(WORDS[token] for token in tokens)


def test_a_completion_becomes_a_context():
    context = completion_context(
        [1, 3, 3, 2, 4, 9],
        4,
        decode=decode,
        tag_tokens=((1,), (2,)),
        eos_ids={9},
        reference_completion="<think>x</think>b",
        prompt_text="p",
        step=3,
    )
    assert (context.thinking, context.answer, context.generated_text) == ("aa", "b", "<think>aa</think>b")
    assert (context.thinking_tokens, context.answer_tokens, context.length_tokens) == (2, 1, 3)
    assert (context.reference_answer, context.prompt_text, context.step) == ("b", "p", 3)


def test_an_empty_completion():
    context = completion_context([9], 0, decode=decode, eos_ids={9})
    assert (context.generated_text, context.length_tokens, context.reference_answer) == ("", 0, None)


def test_what_is_left_out_is_filled_in():
    context = RewardContext(generated_text="<think>one two</think>three")
    assert (context.thinking, context.answer) == ("one two", "three")
    assert (context.thinking_tokens, context.answer_tokens) == (2, 1)


def test_what_is_given_is_kept():
    context = RewardContext(generated_text="<think>a</think>b", answer="c", answer_tokens=7)
    assert (context.thinking, context.answer, context.answer_tokens) == ("", "c", 7)


@pytest.mark.parametrize(
    ("answer", "tags", "inside"),
    [
        ("So: <a> 42 </a> done", ("<a>", "</a>"), "42"),
        ("<a>1</a><a>2</a>", ("<a>", "</a>"), "1"),
        ("</a> then <a>3", ("<a>", "</a>"), "3"),
        (" 42</a>x", ("<a>", "</a>"), "42"),
        ("42</a>", ("", "</a>"), "42"),
        ("<a>42</a>", ("<a>", ""), "42</a>"),
        (" 42 ", ("", ""), "42"),
        ("none", ("<a>", "</a>"), "none"),
    ],
)
def test_an_answer_is_what_stands_between_its_tags(answer, tags, inside):
    assert between(answer, tags) == inside
    tokens = {1: "<think>t</think>", 2: answer}
    context = completion_context(
        [1, 2],
        1,
        decode=lambda ids: "".join(tokens[i] for i in ids),
        answer_tags=tags,
        reference_completion=f"<think>x</think>{answer}",
    )
    assert context.answer == context.reference_answer == inside
    assert context.generated_text == f"<think>t</think>{answer}"


def test_nothing_between_the_tags_is_an_empty_answer():
    context = completion_context(
        [3, 4], 0, decode=lambda ids: "<a></a>42" if len(ids) > 1 else "", answer_tags=("<a>", "</a>")
    )
    assert (context.thinking, context.answer, context.answer_tokens) == ("", "", 2)
