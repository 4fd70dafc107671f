"""From pydantic's errors to sentences that name the place, the key, what was found and what to write instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from pipelines.config.checks import Conflict
from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Path, dotted, find, suggest
from pipelines.errors import ConfigError

DEFAULT = "default"
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
    "too_short": "a list that is not empty",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
"""Plain words for the types of error whose own message speaks of Python."""

YES_AND_NO = frozenset(["yes", "no", "on", "off", "y", "n", "true", "false", "1", "0"])


@dataclass
class _Problem:
    """What is wrong with one key; a key that may be several things has an error for each."""

    path: Path
    value: Any
    errors: list[Any] = field(default_factory=list[Any])


def config_error(error: ValidationError, origins: Mapping[Path, str]) -> ConfigError:
    """One ConfigError for all problems: each with its place and dotted key; the first hint that there is."""
    told: list[tuple[str, str]] = []
    problems: dict[Path, _Problem] = {}
    for item in error.errors():
        if item["type"] == "conflict":
            told += [_conflict(conflict, origins) for conflict in item.get("ctx", {})["found"]]
        else:
            path = _key_path(item["loc"])
            problems.setdefault(path, _Problem(path, item["input"])).errors.append(item)
    told += [_sentence(problem, origins) for problem in problems.values()]
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    hints = [hint for _, hint in told[:SHOWN] if hint]
    return ConfigError("; ".join(message for message, _ in told[:SHOWN]) + more, hint="; ".join(dict.fromkeys(hints)))


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
        inside_section = not path or (key is not None and key.nested is not None)
        if isinstance(part, int) or inside_section:
            path = (*path, part)
    return path


def _conflict(conflict: Conflict, origins: Mapping[Path, str]) -> tuple[str, str]:
    places = (
        (key, origins.get(tuple(int(part) if part.isdecimal() else part for part in key.split(".")), DEFAULT))
        for key in conflict.keys
    )
    named = " and ".join(f"{key} ({place})" if origins else key for key, place in places)
    return f"{named}: {conflict.message}", conflict.hint


def _sentence(problem: _Problem, origins: Mapping[Path, str]) -> tuple[str, str]:
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
    if item["type"] in EXPECTED:
        return EXPECTED[item["type"]]
    return item["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(problem: _Problem, kinds: list[str]) -> str:
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
    elif "string_type" in kinds and value is not None:
        hint = f"put it in quotes to make it text; on a command line: '{dotted(problem.path)}=\"...\"'"
    elif "model_type" in kinds and value is None:
        hint = f"leave {dotted(problem.path)} out for its defaults"
    return hint


def _literal_hint(problem: _Problem, value: str) -> str:
    expected = next(item["ctx"]["expected"] for item in problem.errors if item["type"] == "literal_error")
    words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(", ")]
    close = get_close_matches(value, words, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
