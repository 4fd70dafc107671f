"""The key of a stage: canonical, stable over machines, deaf to order, sharp-eared to every value."""

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.errors import StageError
from pipelines.stages.explain import differences
from pipelines.stages.identity import (
    Identity,
    canonical_json,
    from_dict,
    read_identity,
    write_identity,
)

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
configs = st.dictionaries(st.text(max_size=6), values, max_size=4)
digests = st.dictionaries(st.text(max_size=6), st.text("0123456789abcdef", min_size=64, max_size=64), max_size=2)


def identity(config=None, inputs=None, stage="preprocess", version=1):
    return Identity(stage, version, config or {}, inputs or {})


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def places(value, path=()):
    """The path of every leaf, empty objects and lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [found for key, item in items for found in places(item, (*path, key))]
    return inner or [path]


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def test_golden_key():
    """If this number changes, every cache in the world is thrown away: raise FORMAT and say so instead."""
    config = {"trainer": {"learning_rate": 1e-5, "seed": -1, "loss": {"type": "dapo"}}, "tags": ["<think>", "\u00e9"]}
    golden = Identity("train", 3, config, {"model": "ab" * 32})
    assert canonical_json(golden.as_dict()) == (
        '{"config":{"tags":["<think>","\\u00e9"],"trainer":{"learning_rate":1e-05,"loss":{"type":"dapo"},"seed":-1}},'
        '"format":1,"inputs":{"model":"' + "ab" * 32 + '"},"stage":"train","version":3}'
    )
    assert golden.key == "59f097534539"


@given(config=configs, inputs=digests)
def test_key_ignores_the_order_of_keys(config, inputs):
    assert identity(config, inputs).key == identity(reordered(config), reordered(inputs)).key


@given(config=configs, data=st.data())
def test_key_changes_with_every_value(config, data):
    path = data.draw(st.sampled_from(places(config)))
    new = data.draw(leaves if path else configs)
    changed = replaced(config, path, new)
    assume(canonical_json(changed) != canonical_json(config))
    assert identity(config).key != identity(changed).key


@given(name=st.sampled_from(["stage", "version", "inputs"]))
def test_key_changes_with_every_other_part(name):
    other = {"stage": "train", "version": 2, "inputs": {"data": "0" * 64}}[name]
    assert identity().key != identity(**{name: other}).key


@given(config=configs, other=configs, inputs=digests)
def test_differences_are_empty_exactly_when_keys_agree(config, other, inputs):
    for second in (other, reordered(config), config | other):
        old, new = identity(config, inputs), identity(second, inputs)
        assert (differences(old, new) == []) == (old.key == new.key)


@given(config=configs, inputs=digests)
def test_reads_back_what_it_wrote(tmp_path_factory, config, inputs):
    directory = tmp_path_factory.mktemp("entry")
    written = identity(config, inputs)
    write_identity(written, directory)
    assert read_identity(directory) == written


def test_tuples_and_lists_mean_the_same():
    assert identity({"stop": ("a", "b")}) == identity({"stop": ["a", "b"]})


def test_true_one_and_one_point_zero_are_three_values():
    assert len({identity({"x": value}).key for value in (True, 1, 1.0, "1")}) == 4


def test_later_changes_of_the_callers_object_do_not_reach_it():
    config = {"tags": ["a"]}
    kept = identity(config)
    config["tags"].append("b")
    assert kept.config == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"trainer": {"lr": math.nan}}, "identity.trainer.lr"),
        ({"x": [1, math.inf]}, r"identity.x\[1\]"),
        ({"x": -math.inf}, "identity.x"),
        ({1: "a"}, "identity: the key 1"),
        ({"x": {1, 2}}, "identity.x: set"),
        ({"x": b"bytes"}, "identity.x: bytes"),
    ],
)
def test_refuses_what_json_cannot_say(value, where):
    with pytest.raises(StageError, match=where):
        Identity("train", 1, value, {})


def test_an_unclaimed_directory_has_no_identity(tmp_path):
    assert read_identity(tmp_path) is None
    assert read_identity(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 1, "stage": 7}', "\x00\x00"])
def test_a_damaged_identity_is_an_error(tmp_path, damage):
    (tmp_path / "identity.json").write_text(damage)
    with pytest.raises(StageError):
        read_identity(tmp_path)


def test_an_identity_of_another_format_is_an_error():
    record = json.loads(canonical_json(identity().as_dict())) | {"format": 99}
    with pytest.raises(StageError, match="format"):
        from_dict(record)
