"""The configuration as JSON Schema (draft 2020-12), for editors: types, ranges, defaults and what each key means.

It says what one key may hold; that settings agree with each other is for the loader to say, and whole numbers are
told from 1.0 there. What rewards and benchmarks are called, and what they take, is known above this room and handed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic.json_schema import GenerateJsonSchema

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.section import Section

DIALECT = GenerateJsonSchema.schema_dialect
TITLE = "Configuration of grpo"


@dataclass(frozen=True)
class Named:
    """What one name stands for: a sentence, and the section of its settings (None if any keys and values will do)."""

    meaning: str
    settings: type[Section] | None


def json_schema(*, rewards: Mapping[str, Named], benchmarks: Mapping[str, Named]) -> dict[str, Any]:
    """The schema of a whole file. Names that are not given are refused, unless the file lists plugins."""
    schema = _tidy(ExperimentConfig.model_json_schema())
    definitions: dict[str, Any] = schema["$defs"]
    lists = {
        "rewards": (rewards, definitions["RewardConfig"]),
        "evaluation": (benchmarks, definitions["EvaluationConfig"]),
    }
    for known, item in lists.values():
        item["properties"]["name"]["examples"] = list(known)
        item["allOf"] = [_where_name_is(name, named) for name, named in known.items()]
        for named in known.values():
            definitions |= _definitions(named.settings)
    names = {key: {"items": {"properties": {"name": {"enum": list(known)}}}} for key, (known, _) in lists.items()}
    no_plugins = {"properties": {"plugins": {"maxItems": 0}}}
    return {"$schema": DIALECT, "title": TITLE, **schema, "if": no_plugins, "then": {"properties": names}}


def _where_name_is(name: str, named: Named) -> dict[str, Any]:
    """What holds for an item of this name; `config` cannot be left out if it has a key without a default."""
    section = named.settings
    then: dict[str, Any] = {"properties": {"name": {"description": named.meaning}}}
    if section is not None:
        then["properties"]["config"] = {"$ref": f"#/$defs/{_name(section)}"}
        if any(field.is_required() for field in section.model_fields.values()):
            then["required"] = ["config"]
    return {"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": then}


def _definitions(section: type[Section] | None) -> dict[str, Any]:
    """A section's schema by its name, and those of sections inside it."""
    if section is None:
        return {}
    schema = _tidy(section.model_json_schema())
    return {**schema.pop("$defs", {}), _name(section): schema}


def _name(section: type[Section]) -> str:
    return f"{section.__module__}.{section.__qualname__}"


def _tidy(schema: Any) -> Any:
    """Descriptions on one line, without pydantic's titles, and without defaults that repeat a whole section."""
    if isinstance(schema, list):
        return [_tidy(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    tidied: dict[str, Any] = {}
    for key, value in node.items():
        if key == "description":
            tidied[key] = " ".join(value.split())
        elif key == "properties":
            tidied[key] = {name: _tidy(inner) for name, inner in value.items()}
        elif key == "default":
            tidied |= {} if "$ref" in node else {key: value}
        elif key != "title":
            tidied[key] = _tidy(value)
    return tidied
