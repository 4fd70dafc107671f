"""One row of a data set: its fields, the checks that make it usable, and its JSON form."""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from pipelines.errors import DataError

Message = dict[str, Any]
Prompt = str | list[Message]
ROLES = ("system", "user", "assistant", "tool")
JUDGES = ("options", "correct_letters", "correct_index", "required_steps")
"""Fields of `meta` by which a row without a completion can still be scored."""

MAX_DEPTH = 100
"""Levels of lists and objects in a row; what writes rows again needs room above what reads them."""

INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Unicode calls them letters and symbols; they show nothing."""

SHOWN_CHARACTERS = 60


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


class UnfinishedRowError(BadRowError):
    """A value that does not end in its line."""


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
        raise _too_deep() from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadRowError(str(error).partition(";")[0], hint="write very long numbers as text") from error
    if not isinstance(record, dict):
        raise BadRowError(f"not an object but {_kind(record)}", hint=ONE_OBJECT)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(record) > MAX_DEPTH:
        raise _too_deep()
    return cast("dict[str, Any]", record)


def _depth(value: object) -> int:
    """Levels of lists and objects, level by level: no stack to run out of."""
    level: list[Any] = [value]
    depth = 0
    while nested := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _too_deep() -> BadRowError:
    return BadRowError(
        f"nested too deeply, beyond {MAX_DEPTH} levels", hint="a row is a flat object; keep what is nested small"
    )


A_MESSAGE = 'a message is {"role": "user", "content": "..."}'
ONE_OBJECT = 'JSONL holds one object a line, such as {"prompt": "2+2=?", "completion": "4"}'


def row_from(record: Mapping[str, Any], *, prompt_key: str, completion_key: str, source: str = "") -> Row:
    """Check the fields of a parsed object and make a row of them; fields without a meaning here are ignored."""
    if prompt_key not in record:
        raise BadRowError(
            f"no field {prompt_key!r}; the row has {_names(record)}", hint=_where_prompts_are(record, prompt_key)
        )
    prompt, said = _prompt(record[prompt_key], prompt_key)
    completion = _completion(record, completion_key)
    if said is not None and completion is not None:
        raise BadRowError(
            f"{prompt_key} ends with the assistant's message, and {completion_key} says something as well",
            hint=f"keep one of them: without {completion_key} the conversation's last message is the completion",
        )
    row = Row(
        prompt=prompt,
        completion=completion if said is None else said,
        system=_optional_text(record, "system"),
        test_cases=_test_cases(record.get("test_cases")),
        meta=_meta(record.get("meta")),
        source=source,
    )
    told = row.completion is not None or completion_key in record
    if not told and not row.is_code and not any(name in row.meta for name in JUDGES):
        raise BadRowError(
            f"no field {completion_key!r}, and nothing else to score a completion by",
            hint=f'name the field in data.completion_key, or write "{completion_key}": null if there is none',
        )
    return row


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(_shown, list(record)[:8])) or "no fields"


def _where_prompts_are(record: Mapping[str, Any], prompt_key: str) -> str:
    """A hint; of one object that holds all the rows, how to write them."""
    for name, value in record.items():
        first = cast("list[object]", value)[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and prompt_key in first:
            return f"the rows stand inside: `jq -c '.{json.dumps(name)}[]' FILE > rows.jsonl`"
    return "set data.prompt_key=messages" if "messages" in record else "name the field in data.prompt_key"


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_json(row: Row, **more: object) -> str:
    """One line without its newline; `from_json` gives the row back."""
    return _COMPACT.encode(vars(row) | more)


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


def _prompt(value: object, key: str) -> tuple[Prompt, str | None]:
    """What is asked; and what the assistant says at the end of a conversation, which is the completion."""
    if isinstance(value, str):
        if is_blank(value):
            raise BadRowError(f"{key} is blank", hint="give every row something to answer")
        return value, None
    if not isinstance(value, list):
        raise BadRowError(f"{key} is {_kind(value)}", hint="a prompt is a text or a list of chat messages")
    messages = cast("list[object]", value)
    checked = [_message(message, f"{key}[{i}]") for i, message in enumerate(messages)]
    said = None
    if checked and checked[-1]["role"] == "assistant":
        said = checked.pop()["content"]
        if is_blank(said):
            raise BadRowError(f"{key}[{len(checked)}].content is blank", hint="leave the assistant's last message out")
    asked = [message["content"] for message in checked if message["role"] == "user"]
    if all(map(is_blank, asked)):
        raise BadRowError(f"{key} has no user message with a text", hint="a conversation asks something")
    if is_blank(asked[-1]):
        raise BadRowError(f"{key}: the last message of the user is blank", hint="give every row something to answer")
    if checked[-1]["role"] == "assistant":
        raise BadRowError(f"{key} ends with two messages of the assistant", hint="join them into one")
    return checked, said


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadRowError(f"{where} is {_kind(value)}", hint=A_MESSAGE)
    message = cast("Message", value)
    for name in ("role", "content"):
        if name not in message:
            raise BadRowError(f"{where} has no {name}; it has {_names(message)}", hint=A_MESSAGE)
    if message["role"] not in ROLES:
        raise BadRowError(f"{where}.role is {_shown(message['role'])}", hint=f"roles are {', '.join(ROLES)}")
    if not isinstance(message["content"], str):
        raise BadRowError(f"{where}.content is {_kind(message['content'])}", hint="the content of a message is a text")
    return message


def _completion(record: Mapping[str, Any], key: str) -> str | None:
    """A text, or the one message of the assistant that holds it."""
    value = record.get(key)
    messages = cast("list[object]", value) if isinstance(value, list) else []
    if len(messages) != 1 or not isinstance(messages[0], dict):
        return _optional_text(record, key)
    message = _message(messages[0], f"{key}[0]")
    if message["role"] != "assistant":
        raise BadRowError(f"{key}[0].role is {_shown(message['role'])}", hint="a completion is the assistant's")
    return _optional_text({key: message["content"]}, key)


def _optional_text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        numbers = isinstance(value, int | float)
        whole_file = f": `jq -c '.{json.dumps(key)} |= tostring' FILE > rows.jsonl`" if numbers else ""
        raise BadRowError(f"{key} is {_kind(value)}", hint=f"write {key} as a text, in quotes{whole_file}")
    if is_blank(value):
        raise BadRowError(f"{key} is blank", hint=f'write "{key}": null if there is none')
    return value


def _test_cases(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRowError(f"test_cases is {_kind(value)}", hint="test_cases is a list")
    for i, case in enumerate(cast("list[object]", value)):
        is_pair = isinstance(case, dict) and {"input", "expected"} <= case.keys()
        if not is_pair and not (isinstance(case, str) and not is_blank(case)):
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
    meta = cast("dict[str, Any]", value)
    if isinstance(meta.get("options"), list):
        _check_index(meta.get("correct_index"), len(meta["options"]))
    return meta


def _check_index(index: object, options: int) -> None:
    """Right answers by their places: a place that no option has could never be chosen."""
    for place in cast("list[object]", index) if isinstance(index, list) else [index] if index is not None else []:
        if type(place) is not int or not 0 <= place < options:
            raise BadRowError(
                f"meta.correct_index is {_shown(place)}, and there are {options} options",
                hint="a whole number counted from 0, or a list of those; correct_letters takes letters",
            )


def is_blank(text: str) -> bool:
    """Whether there is nothing to see in a text: white space, controls, zero-width and filler characters only."""
    return all(unicodedata.category(char) in INVISIBLE or char in BLANK_LETTERS for char in text)


def _kind(value: object) -> str:
    """A value's type in JSON's words."""
    if isinstance(value, str):
        return "a blank text" if is_blank(value) else "a text"
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def _shown(value: object) -> str:
    """A value as Python writes it, cut where it would fill the screen."""
    written = repr(value)
    return written if len(written) <= SHOWN_CHARACTERS else written[: SHOWN_CHARACTERS - 3] + "..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise BadRowError(f"the field {_shown(twice)} stands twice", hint="keep one of them")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise BadRowError(f"{name} is not JSON", hint="write null where a number is unknown")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRowError(f"the number {_shown(text)[1:-1]} is too large", hint="write very large numbers as text")
    return value


def _json_error(text: str, error: json.JSONDecodeError) -> BadRowError:
    """What the parser stumbled over, in the words of who wrote the file."""
    if "\0" in text:
        return BadRowError(f"NUL byte at character {text.index(chr(0)) + 1}", hint="is the file UTF-16, or binary?")
    if text.startswith("\ufeff"):
        return BadRowError("a byte order mark inside the file", hint="files were joined: remove the mark between them")
    looks = next((what for what, begins in FOREIGN_LINES.items() if begins.match(text.lstrip())), "")
    if looks:
        return BadRowError(f"not JSON but what looks like {looks}", hint=ONE_OBJECT)
    at = f"(character {error.pos + 1})"
    if error.msg == "Extra data":
        return BadRowError(f"more than one value in the line {at}", hint=_between_values(text[error.pos :], text))
    if error.pos >= len(text.rstrip()) > 0 or error.msg.startswith("Unterminated string"):
        return UnfinishedRowError(
            f"not JSON: the value does not end in this line; {error.msg} {at}",
            hint="each row stands on one line: `jq -c . FILE > rows.jsonl` joins the lines of an indented file",
        )
    return BadRowError(f"not JSON: {error.msg} {at}", hint=ONE_OBJECT)


def _between_values(rest: str, text: str) -> str:
    if rest.startswith(","):
        return "remove the comma at the end: rows are separated by newlines alone"
    if "\r" in text.rstrip():
        return "lines that end in a carriage return alone: write newlines, as with `tr '\\r' '\\n'`"
    return ONE_OBJECT


FOREIGN_LINES = {
    "a comment": re.compile(r"#|//|/\*"),
    "a Python dict": re.compile(r"\{\s*'"),
    "YAML": re.compile(r"---|-?\s*[A-Za-z_]\w*:(\s|$)"),
    "tab-separated values": re.compile(r"[^{\[\t]*\t"),
    "comma-separated values": re.compile(r"[^{\[,]*,"),
}
"""What people have where JSON is expected, by how the line begins, white space aside."""
