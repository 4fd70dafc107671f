"""One row of a data set: its fields, the checks that make it usable, and its JSON form."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from pipelines.errors import DataError

Message = dict[str, Any]
Prompt = str | list[Message]
ROLES = ("system", "user", "assistant", "tool")
JUDGES = ("options", "correct_letters", "correct_index", "required_steps")
"""Fields of `meta` by which a row without a completion can still be scored."""


@dataclass(frozen=True)
class Row:
    """What is asked, what a good completion looks like, and what else rewards may use."""

    prompt: Prompt
    """A text, which becomes one user message, or chat messages with `role` and `content`."""
    completion: str | None = None
    system: str | None = None
    test_cases: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict[str, Any])
    source: str = ""
    """Where it stood: `file:line`."""

    @property
    def is_code(self) -> bool:
        return bool(self.test_cases)

    @property
    def is_mcq(self) -> bool:
        return bool(self.meta.get("options")) and ("correct_letters" in self.meta or "correct_index" in self.meta)


class BadRowError(DataError):
    """A row that cannot be used; the reader of the file adds where it stands."""


def parse(text: str) -> dict[str, Any]:
    """The JSON object in one line of a file; BadRowError for anything else, also for what Python alone would accept."""
    try:
        record = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _json_error(text, error) from error
    except UnicodeEncodeError as error:
        raise BadRowError(
            "half of a surrogate pair stands alone", hint="the text was cut inside a character"
        ) from error
    except RecursionError as error:
        raise BadRowError("nested too deeply", hint="a row is a flat object; keep what is nested small") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadRowError(str(error).partition(";")[0], hint="write very long numbers as text") from error
    if not isinstance(record, dict):
        raise BadRowError(f"not an object but {_kind(record)}", hint=ONE_OBJECT)
    return cast("dict[str, Any]", record)


ONE_OBJECT = 'JSONL holds one object a line, such as {"prompt": "2+2=?", "completion": "4"}'


def row_from(record: Mapping[str, Any], *, prompt_key: str, completion_key: str, source: str = "") -> Row:
    """Check the fields of a parsed object and make a row of them; fields without a meaning here are ignored."""
    if prompt_key not in record:
        fields = ", ".join(map(repr, list(record)[:8])) or "no fields"
        raise BadRowError(f"no field {prompt_key!r}; the row has {fields}", hint="name the field in data.prompt_key")
    row = Row(
        prompt=_prompt(record[prompt_key], prompt_key),
        completion=_optional_text(record, completion_key),
        system=_optional_text(record, "system"),
        test_cases=_test_cases(record.get("test_cases")),
        meta=_meta(record.get("meta")),
        source=source,
    )
    if completion_key not in record and not row.is_code and not any(name in row.meta for name in JUDGES):
        raise BadRowError(
            f"no field {completion_key!r}, and nothing else to score a completion by",
            hint=f'name the field in data.completion_key, or write "{completion_key}": null if there is none',
        )
    return row


def to_json(row: Row, **more: object) -> str:
    """One line without its newline; `from_json` gives the row back."""
    return json.dumps(vars(row) | more, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_json(record: Mapping[str, Any]) -> Row:
    """The row of an object that `to_json` wrote; other fields are left alone."""
    return Row(
        prompt=record["prompt"],
        completion=record["completion"],
        system=record["system"],
        test_cases=tuple(record["test_cases"]),
        meta=record["meta"],
        source=record["source"],
    )


def _prompt(value: object, key: str) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise BadRowError(f"{key} is blank", hint="give every row something to answer")
        return value
    if not isinstance(value, list):
        raise BadRowError(f"{key} is {_kind(value)}", hint="a prompt is a text or a list of chat messages")
    messages = cast("list[object]", value)
    checked = [_message(message, f"{key}[{i}]") for i, message in enumerate(messages)]
    if not any(message["role"] == "user" and message["content"].strip() for message in checked):
        raise BadRowError(f"{key} has no user message with a text", hint="a conversation asks something")
    if checked[-1]["role"] == "assistant":
        raise BadRowError(
            f"{key} ends with the assistant's message", hint="what it should say belongs in the completion"
        )
    return checked


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadRowError(f"{where} is {_kind(value)}", hint='a message is {"role": "user", "content": "..."}')
    message = cast("Message", value)
    if message.get("role") not in ROLES:
        raise BadRowError(f"{where}.role is {message.get('role')!r}", hint=f"roles are {', '.join(ROLES)}")
    if not isinstance(message.get("content"), str):
        raise BadRowError(
            f"{where}.content is {_kind(message.get('content'))}", hint="the content of a message is a text"
        )
    return message


def _optional_text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRowError(f"{key} is {_kind(value)}", hint=f"write {key} as a text, in quotes")
    if not value.strip():
        raise BadRowError(f"{key} is blank", hint=f'write "{key}": null if there is none')
    return value


def _test_cases(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRowError(f"test_cases is {_kind(value)}", hint="test_cases is a list")
    for i, case in enumerate(cast("list[object]", value)):
        is_pair = isinstance(case, dict) and {"input", "expected"} <= case.keys()
        if not is_pair and not (isinstance(case, str) and case.strip()):
            raise BadRowError(
                f"test_cases[{i}] is {_kind(case)}" + (" without input and expected" if isinstance(case, dict) else ""),
                hint='a test is an assert or a call as a text, or {"input": ..., "expected": ...}',
            )
    return tuple(cast("list[Any]", value))


def _meta(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRowError(f"meta is {_kind(value)}", hint="meta is an object")
    return cast("dict[str, Any]", value)


def _kind(value: object) -> str:
    """A value's type in JSON's words."""
    if isinstance(value, str):
        return "a text" if value.strip() else "a blank text"
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRowError(f"the field {twice!r} stands twice", hint="keep one of them")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise BadRowError(f"{name} is not JSON", hint="write null where a number is unknown")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRowError(f"the number {text} is too large", hint="write very large numbers as text")
    return value


def _json_error(text: str, error: json.JSONDecodeError) -> BadRowError:
    if "\0" in text:
        return BadRowError(f"NUL byte at character {text.index(chr(0)) + 1}", hint="is the file UTF-16, or binary?")
    if error.msg == "Extra data":
        return BadRowError(f"more than one value in the line (character {error.colno})", hint=ONE_OBJECT)
    return BadRowError(f"not JSON: {error.msg} (character {error.colno})", hint=ONE_OBJECT)
