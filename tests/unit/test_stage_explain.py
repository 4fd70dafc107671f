"""The lines that say why: exact words, because people and tests read them everywhere."""

import pytest

from pipelines.stages.explain import differences
from pipelines.stages.identity import Identity


def lines(old, new, inputs=({}, {}), version=(1, 1)):
    return differences(Identity("train", version[0], old, inputs[0]), Identity("train", version[1], new, inputs[1]))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"trainer": {"grpo_beta": 0.04}}, {"trainer": {"grpo_beta": 0.0}}, ["trainer.grpo_beta: 0.04 -> 0.0"]),
        ({"model": {"use_lora": False}}, {"model": {"use_lora": True}}, ["model.use_lora: false -> true"]),
        ({"data": {"limit": None}}, {"data": {"limit": 5}}, ["data.limit: null -> 5"]),
        ({"data": {}}, {"data": {"limit": 5}}, ["data.limit: (absent) -> 5"]),
        ({"data": {"limit": 5}}, {"data": {}}, ["data.limit: 5 -> (absent)"]),
        ({"a": "x"}, {"a": "y"}, ['a: "x" -> "y"']),
        (
            {"rewards": [{"name": "exact_match", "weight": 1.0}]},
            {"rewards": [{"name": "exact_match", "weight": 0.5}, {"name": "length_penalty"}]},
            ["rewards.0.weight: 1.0 -> 0.5", 'rewards.1: (absent) -> {"name":"length_penalty"}'],
        ),
        ({"schedule": None}, {"schedule": {"name": "cosine"}}, ['schedule: null -> {"name":"cosine"}']),
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": 1}, {"a": 1}, []),
    ],
)
def test_lines(old, new, expected):
    assert lines(old, new) == expected


def test_digests_show_their_first_digits():
    inputs = {"train_data": "1a2b3c4d" + "0" * 56}, {"train_data": "3c4d5e6f" + "0" * 56}
    assert lines({}, {}, inputs=inputs) == ["inputs.train_data: 1a2b3c4d... -> 3c4d5e6f..."]


def test_a_new_input_is_named():
    assert lines({}, {}, inputs=({}, {"plugins": "ab" * 32})) == ["inputs.plugins: (absent) -> abababab..."]


def test_version():
    assert lines({}, {}, version=(1, 2)) == ["version of the stage: 1 -> 2"]


def test_never_ran():
    assert differences(None, Identity("train", 1, {}, {})) == ["never ran"]


@pytest.mark.parametrize(("old_tail", "new_tail"), [("a", "b"), ("", "b"), ("a" * 300, "a" * 299 + "b")])
def test_long_texts_show_where_they_part(old_tail, new_tail):
    (line,) = lines({"system": "x" * 500 + old_tail}, {"system": "x" * 500 + new_tail})
    before, after = line.removeprefix("system: ").split(" -> ")
    assert before != after
    assert len(line) < 200
