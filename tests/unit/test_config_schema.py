"""The JSON Schema says of every single value what the loader says; `valid` reads it as the standard defines."""

import json
import re
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.config import ExperimentConfig
from pipelines.config.fields import dotted, inside_list, walk
from pipelines.config.schema import Named, json_schema
from pipelines.rewards import RewardRegistry

REWARDS = {name: Named("What it pays.", RewardRegistry.get(name).Config) for name in RewardRegistry.names()}
SCHEMA = json_schema(rewards=REWARDS, benchmarks={"exact_match": Named("Right answers.", None)})
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "examples"}

TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value),
}
LIMITS = {
    "minimum": ("number", lambda value, limit: value >= limit),
    "maximum": ("number", lambda value, limit: value <= limit),
    "exclusiveMinimum": ("number", lambda value, limit: value > limit),
    "exclusiveMaximum": ("number", lambda value, limit: value < limit),
    "minLength": ("string", lambda value, limit: len(value) >= limit),
    "pattern": ("string", lambda value, limit: re.search(limit, value) is not None),
    "minItems": ("array", lambda value, limit: len(value) >= limit),
    "maxItems": ("array", lambda value, limit: len(value) <= limit),
    "required": ("object", lambda value, limit: set(limit) <= set(value)),
    "items": ("array", lambda value, limit: all(valid(item, limit) for item in value)),
    "properties": ("object", lambda value, limit: all(valid(value[k], s) for k, s in limit.items() if k in value)),
}
"""Keywords that say something about values of one type only."""


def valid(value, schema):
    """Whether draft 2020-12 takes the value, for the keywords in use; an unknown keyword is an error."""
    if isinstance(schema, bool):
        return schema
    return all(_holds(value, schema, keyword) for keyword in schema if keyword not in ANNOTATIONS | {"then"})


def _holds(value, schema, keyword):
    rule = schema[keyword]
    if keyword in LIMITS:
        kind, check = LIMITS[keyword]
        return not TYPES[kind](value) or check(value, rule)
    if keyword == "additionalProperties":
        named = schema.get("properties", {})
        return not isinstance(value, dict) or all(valid(value[name], rule) for name in value if name not in named)
    return {
        "$ref": lambda: valid(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")]),
        "type": lambda: TYPES[rule](value),
        "enum": lambda: any(value == one and type(value) is type(one) for one in rule),
        "const": lambda: value == rule,
        "anyOf": lambda: any(valid(value, one) for one in rule),
        "allOf": lambda: all(valid(value, one) for one in rule),
        "if": lambda: not valid(value, rule) or valid(value, schema["then"]),
    }[keyword]()


def accepted(document):
    """What the loader and the rewards say of each value; that settings agree is not asked."""
    try:
        ExperimentConfig.model_validate(document)
    except ValidationError as error:
        if any(item["type"] != "conflict" for item in error.errors()):
            return False
    rewards, benchmarks = ({entry["name"] for entry in document[key]} for key in ("rewards", "evaluation"))
    return bool(document["plugins"]) or (rewards <= set(REWARDS) and benchmarks <= {"exact_match"})


def whole():
    """A document with a value for every key."""
    document = ExperimentConfig().model_dump(mode="json")
    document["trainer"]["lr_schedule_config"] = {"name": "constant", "arguments": [0.1], "warmup": 0}
    return document


def with_value(document, path, value):
    changed = deepcopy(document)
    holder = changed
    for length, part in enumerate(path[:-1], start=1):
        holder = holder[part]
        if inside_list(ExperimentConfig, path[: length + 1]) and isinstance(holder, list):
            holder = holder[0]
    holder[path[-1]] = value
    return changed


KEYS = [key.path for key in walk(ExperimentConfig)]
VALUES = [None, True, 0, 1, -1, 0.5, 2.5, 10**13, "", "x", "auto", "constant", "0" * 40, [], [1], ["x"], [{}], {}]
ODD = [*VALUES, {"x": 1}, {"x": "y"}, [[]], "\n"]


def test_the_default_and_the_empty_file_are_valid():
    assert valid({}, SCHEMA)
    assert valid(whole(), SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", KEYS, ids=dotted)
def test_every_key_takes_what_the_loader_takes(path):
    odd = VALUES if path in {("rewards", "config"), ("evaluation", "config")} else ODD  # what is in them comes below
    verdicts = {}
    for value in odd:
        document = with_value(whole(), path, value)
        verdicts[json.dumps(value)] = (valid(document, SCHEMA), accepted(document))
    assert {text: pair for text, pair in verdicts.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize("name", REWARDS)
def test_settings_of_rewards_take_what_the_reward_takes(name):
    section = REWARDS[name].settings
    usual = {key: 9 for key, field in section.model_fields.items() if field.is_required()}
    for key in [*section.model_fields, "nobody_has_this"]:
        for value in ODD:
            settings = {**usual, key: value}
            try:
                section.model_validate(settings)
                verdict = True
            except ValidationError as error:
                verdict = all(item["type"] == "value_error" for item in error.errors())
            document = {"rewards": [{"name": name, "config": settings}]}
            assert valid(document, SCHEMA) == verdict, (key, value)
    assert valid({"rewards": [{"name": name}]}, SCHEMA) == (not usual)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
odd_values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.lists(st.tuples(st.sampled_from(KEYS), odd_values), min_size=1, max_size=4))
def test_what_the_loader_takes_is_valid(changes):
    document = whole()
    for path, value in changes:
        before, document = document, with_value(document, path, value) if _reaches(document, path) else document
        if not accepted(document):
            document = before
    assert valid(document, SCHEMA)


def _reaches(document, path):
    try:
        with_value(document, path, None)
    except (KeyError, IndexError, TypeError):
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        '{"trainr": {}}',
        '{"trainer": {"learning_rat": 1}}',
        '{"trainer": {"loss": {"typ": "dapo"}}}',
        '{"trainer": {"loss": {"type": "dappo"}}}',
        '{"trainer": {"lr_schedule_config": {"name": "constant"}}}',
        '{"trainer": {"seed": 4294967296}}',
        '{"data": {"val_fraction": 1}}',
        '{"model": {"use_lora": "yes"}}',
        '{"rewards": [{"weight": 1}]}',
        '{"rewards": [{"name": "exact_mach"}]}',
        '{"rewards": [{"name": "exact_match", "config": {"x": 1}}]}',
        '{"rewards": [{"name": "soft_overlong"}]}',
        '{"rewards": ["exact_match"]}',
        '{"evaluation": [{"name": "nothing"}]}',
    ],
)
def test_refused(text):
    assert not valid(json.loads(text), SCHEMA)


def test_with_plugins_any_name_goes():
    assert valid({"plugins": ["own.py"], "rewards": [{"name": "own", "config": {"x": 1}}]}, SCHEMA)


def test_every_key_is_described_and_nothing_else_is_allowed():
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            assert key.get("description") or "$ref" in key, name
            assert "\n" not in key.get("description", "")
    assert SCHEMA["$defs"]["TrainerConfig"]["properties"]["num_training_steps"]["default"] == 110
