"""A configuration as a list of values: changes, choices, comparisons, and the file that says the same."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import ExperimentConfig
from pipelines.config.loader import resolve
from pipelines.config.strict_yaml import parse
from pipelines.config.values import Difference, chosen, compare, leaves, part, settings
from pipelines.config.yaml_writer import document_lines
from pipelines.errors import ConfigError

REWARDS = "rewards=[{name: exact_match}, {name: own, config: {a.b: [1, {c: 2}]}}]"


def rows(*assignments):
    loaded = resolve([], assignments, {})
    return settings(loaded.config, loaded.origins)


def dumped(*assignments):
    return resolve([], assignments, {}).config.model_dump(mode="json")


def test_leaves_are_single_values_and_empty_mappings():
    assert list(leaves({"a": {"b": 1, "c": {}}, "d": [1, 2], "e": [{"f": None}], "g": []})) == [
        (("a", "b"), 1),
        (("a", "c"), {}),
        (("d",), [1, 2]),
        (("e", 0, "f"), None),
        (("g",), []),
    ]


def test_only_what_has_another_value_than_the_default_is_changed():
    found = rows("trainer.seed=0", "trainer.grpo_beta=1", "trainer.lr_schedule_config={name: constant, arguments: [1]}")
    changed = {row.key: str(row) for row in found if row.changed}
    assert changed.pop("trainer.grpo_beta") == "trainer.grpo_beta = 1.0  (--set)"
    assert set(changed) == {
        f"trainer.lr_schedule_config.{key}" for key in ("name", "arguments", "warmup", "warmup_init")
    }
    assert not any(row.changed for row in rows())


def test_keys_choose_values_and_sections():
    found = rows()
    assert [row.key for row in chosen(found, ["trainer.seed", "paths"])] == ["trainer.seed", "paths.stages"]
    assert [row.key for row in chosen(found, ["rewards.0.name"])] == ["rewards.0.name"]
    assert chosen(found, []) == found


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("trainer.sed", "did you mean trainer.seed?"),
        ("trainer.lr_schedule_config.name", "ask for trainer.lr_schedule_config"),
        ("trainer.seed.x", "ask for trainer.seed"),
        ("rewards.7", ""),
    ],
)
def test_a_key_that_is_not_there(key, hint):
    with pytest.raises(ConfigError) as caught:
        chosen(rows(), [key])
    assert key in caught.value.message
    assert hint in caught.value.hint


def test_compare_tells_each_key_once():
    before, after = dumped(REWARDS), dumped("trainer.lr_schedule_config={name: constant, arguments: [1]}")
    told = [str(row) for row in compare(before, after).differences]
    assert told == [
        "trainer.lr_schedule_config: null -> {name: constant, arguments: [1], warmup: 0, warmup_init: null}",
        "rewards.1: {name: own, weight: 1.0, config: {a.b: [1, {c: 2}]}} -> (absent)",
    ]
    assert compare(before, before).differences == compare(before, before).unrecorded == []


def test_true_and_1_are_different_and_null_is_not_absent():
    found = compare(dumped("data.synthetic.options={x: 1, y: null}"), dumped("data.synthetic.options={x: true}"))
    assert found.differences[0] == Difference("data.synthetic.options.x", 1, True)
    assert found.differences[1].as_dict() == {"key": "data.synthetic.options.y", "before": None}


def test_what_a_side_does_not_record_is_not_a_difference():
    found = compare({"trainer": {"seed": 1}}, {"trainer": {"seed": 1, "grpo_beta": 0.0}, "model": {"use_lora": True}})
    assert found.differences == []
    assert found.unrecorded == ["trainer.grpo_beta", "model"]


options = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "trainer": st.fixed_dictionaries({"learning_rate": st.floats(0, 1), "seed": st.integers(-1, 9)}),
            "data": st.fixed_dictionaries({"synthetic": st.fixed_dictionaries({"options": options})}),
            "rewards": st.lists(
                st.fixed_dictionaries({"name": st.just("r"), "config": options}), min_size=1, max_size=3
            ),
        },
    ),
    st.booleans(),
)
def test_a_file_of_the_values_loads_to_the_same(given_values, only_changed):
    config = ExperimentConfig.model_validate(given_values)
    values = config.model_dump(mode="json")
    found = settings(config, defaultdict(str))
    shown = part(values, [row.path for row in found if row.changed or not only_changed])
    text = "\n".join(document_lines(shown, ExperimentConfig, lambda path: "a remark")) or "{}"
    assert ExperimentConfig.model_validate(parse(text, str).value) == config
