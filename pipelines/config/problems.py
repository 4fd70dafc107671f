"""From pydantic's errors to sentences that name the place, the key, what was found and what to write instead."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any, cast, get_origin

from pydantic import ValidationError

from pipelines.config.checks import Conflict
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Path, dotted, find, suggest
from pipelines.config.section import Section
from pipelines.config.yaml_writer import as_yaml
from pipelines.errors import ConfigError, GrpoError

DEFAULT = "default"
INDEX = re.compile(r"\[(\d+)\]")
"""How registries write a position: `rewards[0]` is the key `rewards.0`."""

NOT_FINITE = re.compile(r"[-+]?(inf|infinity)|nan", re.IGNORECASE)
ALL = "`grpo config check` lists all, each with its hint"
SHOWN_CHARACTERS = 60
SHOWN = 4
"""Problems told at once."""

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "too_short": "a list that is not empty",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
"""Plain words for the types of error whose own message speaks of Python."""

YES_AND_NO = frozenset(["yes", "no", "on", "off", "y", "n", "true", "false", "1", "0"])


@dataclass
class _Wrong:
    """What is wrong with one key; a key that may be several things has an error for each."""

    path: Path
    value: Any
    errors: list[Any] = field(default_factory=list[Any])


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the keys it is about, a sentence that names them and their places, and a way out."""

    paths: tuple[Path, ...]
    message: str
    hint: str


def config_error(error: ValidationError, origins: Mapping[Path, str]) -> ConfigError:
    """One ConfigError for all problems: each with its place and dotted key; and where to find them with a hint each."""
    found = problems(error, origins, most=SHOWN)
    count = len(_conflicts(error)) + len(_wrong(error))
    more = f"; and {count - SHOWN} more" if count > SHOWN else ""
    hints = [problem.hint for problem in found if problem.hint] + [ALL] * bool(more)
    told = "; ".join(problem.message for problem in found)
    return ConfigError(told + more, hint="; ".join(dict.fromkeys(hints)))


def problems(error: ValidationError, origins: Mapping[Path, str], most: int | None = None) -> list[Problem]:
    """What pydantic found, at most so many, settings that exclude each other first."""
    told = [_conflict(conflict, origins) for conflict in _conflicts(error)]
    wrong = islice(_wrong(error), most)
    return [*told, *(Problem((value.path,), *_sentence(value, origins)) for value in wrong)][:most]


def _conflicts(error: ValidationError) -> list[Conflict]:
    groups = (item.get("ctx", {})["found"] for item in error.errors() if item["type"] == "conflict")
    return [conflict for group in groups for conflict in group]


def _wrong(error: ValidationError) -> list[_Wrong]:
    """Each key with all that is wrong with it."""
    wrong: dict[Path, _Wrong] = {}
    for item in error.errors():
        if item["type"] != "conflict":
            path = _key_path(item["loc"])
            wrong.setdefault(path, _Wrong(path, item["input"])).errors.append(item)
    return list(wrong.values())


def located(error: GrpoError, origins: Mapping[Path, str]) -> Problem:
    """An error whose message begins with a key gets the place of that key in front, unless nobody wrote it."""
    first, space, rest = error.message.partition(" ")
    key = INDEX.sub(r".\1", first.rstrip(":"))
    path = path_of(key)
    if find(ExperimentConfig, path) is None:
        return Problem((), error.message, error.hint)
    place = place_of(path, origins)
    message = f"{key}{':' * first.endswith(':')}{space}{rest}"
    return Problem((path,), message if place == DEFAULT else f"{place}: {message}", error.hint)


def setting_error(error: ValidationError, settings: type[Section], where: str) -> ConfigError:
    """The first problem of settings that only their owner knows, such as those of a reward; `where` is their key."""
    found = error.errors()[0]
    key, known = ".".join([where, *map(str, found["loc"])]), sorted(settings.model_fields)
    if found["type"] == "extra_forbidden":
        close = get_close_matches(str(found["loc"][-1]), known, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        return ConfigError(f"{key}: no such key", hint=f"{guess}known are {', '.join(known) or 'none'}")
    name = str(found["loc"][0]) if found["loc"] else ""
    field = settings.model_fields.get(name)
    meaning = f"{name}: {' '.join(field.description.split()).rstrip('.')}" if field and field.description else ""
    hint = meaning or f"known are {', '.join(known)}"
    if found["type"] == "missing":
        return ConfigError(f"{key} is missing", hint=hint)
    if found["type"] == "value_error":
        return ConfigError(f"{key}: {found['msg'].removeprefix('Value error, ')}", hint=hint)
    wrong = _Wrong((*found["loc"], 0), found["input"], [found])
    message = f"{key} should be {_expected(found)}, not {_shown(found['input'])}"
    return ConfigError(message, hint=_hint(wrong, [found["type"]]) or hint)


def path_of(key: str) -> Path:
    """`("rewards", 0, "weight")` for `rewards.0.weight`."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def place_of(path: Path, origins: Mapping[Path, str]) -> str:
    """Where the value, or else the nearest thing around it, was written."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return DEFAULT


def _key_path(location: tuple[str | int, ...]) -> Path:
    """Pydantic's location without the names it gives to the members of a union."""
    path: Path = ()
    for part in location:
        key = find(ExperimentConfig, path) if path else None
        inside = not path or (key is not None and (key.nested is not None or get_origin(key.field.annotation) is dict))
        if isinstance(part, int) or inside:
            path = (*path, part)
    return path


def _conflict(conflict: Conflict, origins: Mapping[Path, str]) -> Problem:
    paths = tuple(path_of(key) for key in conflict.keys)
    places = zip(conflict.keys, (origins.get(path, DEFAULT) for path in paths), strict=True)
    named = " and ".join(f"{key} ({place})" if origins else key for key, place in places)
    return Problem(paths, f"{named}: {conflict.message}", conflict.hint)


def _sentence(problem: _Wrong, origins: Mapping[Path, str]) -> tuple[str, str]:
    where = f"{place_of(problem.path, origins)}: {dotted(problem.path)}"
    kinds = [item["type"] for item in problem.errors]
    if "extra_forbidden" in kinds:
        return f"{where}: unknown key", suggest(ExperimentConfig, problem.path)
    key = find(ExperimentConfig, problem.path)
    meaning = f"{dotted(key.path)}: {key.sentence}" if key else ""
    if "missing" in kinds:
        return f"{where} is missing", meaning
    expected = " or ".join(dict.fromkeys(_expected(item) for item in problem.errors))
    return f"{where} should be {expected}, not {_shown(problem.value)}", _hint(problem, kinds) or meaning


def _expected(item: Any) -> str:
    if item["type"] == "string_pattern_mismatch":
        return f"text of the form {item['ctx']['pattern']}"
    if item["type"] in EXPECTED:
        return EXPECTED[item["type"]]
    return item["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _hint(problem: _Wrong, kinds: list[str]) -> str:
    value, wants_number = problem.value, "int_type" in kinds or "float_type" in kinds
    hint = ""
    if "literal_error" in kinds and isinstance(value, str):
        hint = _literal_hint(problem, value)
    elif "bool_type" in kinds and str(value).lower() in YES_AND_NO:
        hint = "write true or false, without quotes"
    elif "int_type" in kinds and isinstance(value, float) and value.is_integer():
        hint = f"write {value:.0f}"
    elif wants_number and isinstance(value, str) and _numeric(value):
        hint = f"write {value.replace('_', '')} without quotes or underscores"
    elif wants_number and isinstance(value, str) and NOT_FINITE.fullmatch(value):
        hint = "NaN and infinities are not allowed"
    elif kinds in (["tuple_type"], ["list_type"]) and isinstance(value, (str, dict)) and value:
        hint = f"write a list: [{as_yaml(cast(object, value))[:SHOWN_CHARACTERS]}]"
    elif "model_type" in kinds and isinstance(problem.path[-1], int):
        name = value[:SHOWN_CHARACTERS] if isinstance(value, str) else "..."
        hint = f"write {{name: {name}}}"
    elif "string_type" in kinds and value is not None:
        line = f"; on a command line: '{dotted(problem.path)}=\"...\"'"
        hint = "put it in quotes to make it text" + line * all(isinstance(part, str) for part in problem.path)
    elif "model_type" in kinds and value is None:
        hint = f"leave {dotted(problem.path)} out for its defaults"
    return hint


def _literal_hint(problem: _Wrong, value: str) -> str:
    expected = next(item["ctx"]["expected"] for item in problem.errors if item["type"] == "literal_error")
    words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(", ")]
    close = get_close_matches(value.casefold().replace("-", "_"), words, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _numeric(text: str) -> bool:
    try:
        return text.isascii() and math.isfinite(float(text))
    except ValueError:
        return False
