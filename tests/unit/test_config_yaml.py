"""The strict YAML reader: what plain words mean, what is refused, and where."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.strict_yaml import MAX_VALUES, parse
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError


def value_of(text):
    return parse(text, lambda line: f"c.yaml:{line}").value


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        value_of(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("12", 12),
        ("-0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("'010'", "010"),
        ('"1e-5"', "1e-5"),
        ("'true'", "true"),
        ("v1.2", "v1.2"),
    ],
)
def test_plain_words(text, value):
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: 010", 2, "b: 010 is octal"),
        ("a:\n  b: .nan", 2, "a.b: .nan is not a finite"),
        ("a: [1, -.inf]", 1, "a.1: -.inf is not a finite"),
        ("a: 1e999", 1, "a: 1e999 is too large"),
        ("a: " + "9" * 200, 1, "a: a number of 200 characters"),
        ("a: 1\nb:\n  c: 1\n  c: 2", 4, "b.c: written twice, first in line 3"),
        ("a: 1\n\tb: 2", 2, "indented with a tab"),
        ("a:\n\t- 1", 2, "indented with a tab"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags"),
        ("a: !!int '3'", 1, "tags"),
        ("", 1, "no value"),
        ("# only a comment", 1, "no value"),
        ("a: 1\n1: 2", 2, "a key has to be a word"),
        ("? [a]\n: 1", 1, "a key has to be a word"),
        ("a: [1", 1, "flow sequence"),
        ("a: \x07", 1, "0x0007"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: &a [*a]", 1, "inside its own anchor"),
        ("a: &a {b: *a}", 1, "inside its own anchor"),
        ("a: {<<: [1]}", 1, "only mappings"),
        ("[" * 100_000, 1, "nested deeper"),
        ("a: " + "{b: " * 60, 1, "nested deeper"),
    ],
)
def test_refused_with_the_place(text, line, part):
    error = refusal(text)
    assert part in error.message
    assert error.hint
    if not text.startswith("a: [1"):  # where an unclosed bracket is noticed is the parser's business
        assert error.message.startswith(f"c.yaml:{line}: ")


def test_an_alias_bomb_is_refused_before_it_expands():
    rows = [
        f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    error = refusal("\n".join(["a: &a [x, x, x]", *rows]))
    assert f"more than {MAX_VALUES} values" in error.message


def test_aliases_and_merge_keys_that_mean_well():
    text = "base: &base {name: a, weight: 1}\nitems:\n- <<: *base\n  weight: 2\n- *base\n"
    assert value_of(text)["items"] == [{"name": "a", "weight": 2}, {"name": "a", "weight": 1}]


def test_of_several_merged_mappings_the_first_wins():
    assert value_of("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}")["c"] == {"x": 1, "y": 2}


def test_every_value_remembers_its_line():
    document = parse("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n", lambda line: f"f:{line}")
    assert document.origins[("a", "b")] == "f:2"
    assert document.origins[("a", "c", 0)] == "f:4"
    assert document.origins[("a", "c", 1, "d")] == "f:5"


plain = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
trees = st.recursive(
    plain | printable, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3)
)


@given(trees)
def test_what_the_writer_writes_the_reader_reads(tree):
    assert value_of(f"v: {as_yaml(tree)}") == {"v": tree}


@given(trees)
def test_what_the_writer_writes_any_yaml_reader_reads(tree):
    assert yaml.safe_load(f"v: {as_yaml(tree)}") == {"v": tree}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_spelling_of_a_float_is_a_number(number):
    for text in (repr(number), f"{number:e}", f"{number:.17g}", f"{number:E}"):
        assert math.isclose(value_of(text), float(text))
