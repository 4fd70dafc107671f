"""Why a stage is not what it was: two identities, told apart line by line, in the same words everywhere."""

import re
from typing import Any, cast

from pipelines.stages.identity import Identity, canonical_json

ABSENT = "(absent)"
NEVER = "never ran"
VERSION = "version of the stage"
"""How the line begins that says that another version of grpo made it."""
SHOWN_CHARACTERS = 60
SHOWN_BEFORE = 12
DIGEST_PATTERN = re.compile(r"[0-9a-f]{40,64}")


def differences(old: Identity | None, new: Identity) -> list[str]:
    """Lines such as `trainer.grpo_beta: 0.04 -> 0.0`; empty if and only if both have one key."""
    if old is None:
        return [NEVER]
    lines: list[str] = []
    if old.stage != new.stage:
        lines.append(f"stage: {old.stage} -> {new.stage}")
    if old.version != new.version:
        lines.append(f"{VERSION}: {old.version} -> {new.version}")
    lines += _compare("", old.config, new.config)
    lines += _compare("inputs", old.inputs, new.inputs)
    return lines


def _compare(name: str, old: object, new: object) -> list[str]:
    before, after = canonical_json(old), canonical_json(new)
    if before == after:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return _compare_objects(name, cast("dict[str, Any]", old), cast("dict[str, Any]", new))
    if isinstance(old, list) and isinstance(new, list):
        return _compare_lists(name, cast("list[Any]", old), cast("list[Any]", new))
    return [_line(name, before, after)]


def _compare_objects(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{name}.{key}" if name else key
        if key not in new:
            lines.append(_line(inner, canonical_json(old[key]), ABSENT))
        elif key not in old:
            lines.append(_line(inner, ABSENT, canonical_json(new[key])))
        else:
            lines += _compare(inner, old[key], new[key])
    return lines


def _compare_lists(name: str, old: list[Any], new: list[Any]) -> list[str]:
    lines: list[str] = []
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        lines += _compare(f"{name}.{index}", before, after)
    common = min(len(old), len(new))
    lines += [_line(f"{name}.{common + i}", canonical_json(item), ABSENT) for i, item in enumerate(old[common:])]
    lines += [_line(f"{name}.{common + i}", ABSENT, canonical_json(item)) for i, item in enumerate(new[common:])]
    return lines


def _line(name: str, before: str, after: str) -> str:
    shown_before, shown_after = _shorten(before, after)
    return f"{name}: {shown_before} -> {shown_after}"


def _shorten(before: str, after: str) -> tuple[str, str]:
    """Digests to their first eight digits, long texts to a window that begins just before they differ."""
    digests = [text.strip('"') for text in (before, after)]
    if all(DIGEST_PATTERN.fullmatch(text) or text == ABSENT for text in digests) and digests[0][:8] != digests[1][:8]:
        return _digest(digests[0]), _digest(digests[1])
    start = 0
    if max(len(before), len(after)) > SHOWN_CHARACTERS:
        pairs = enumerate(zip(before, after, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
        start = max(0, first - SHOWN_BEFORE)
    return _window(before, start), _window(after, start)


def _digest(text: str) -> str:
    return text if text == ABSENT else f"{text[:8]}..."


def _window(text: str, start: int) -> str:
    cut = text[start : start + SHOWN_CHARACTERS]
    return ("..." if start else "") + cut + ("..." if len(text) > start + SHOWN_CHARACTERS else "")
