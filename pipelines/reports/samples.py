"""What a model wrote: samples of updates all over a run, by region, and answers that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pipelines.monitoring.charts import number
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.monitoring.sinks import REDACTED
from pipelines.reports.runs import Run
from pipelines.reports.scores import Change

T = TypeVar("T")

EACH = 4
"""Samples of an update."""
FEWEST_STEPS = 3
MOST_TEXT, MOST_IN_CELL = 2000, 1000
"""Characters that are shown of a text by itself, and in a table."""
SHOWN_CHANGES = {"won": 6, "lost": 6, "still wrong": 4}
HEADINGS = {
    "won": ("Wrong before, right now", "More often right than before"),
    "lost": ("Right before, wrong now", "Less often right than before"),
    "still wrong": ("Wrong before and now", "No more often right than before"),
}
"""For items that are right or wrong, and for those whose samples may be both."""


def samples(run: Run, most_steps: int) -> Html:
    """Completions of updates spread over the run: of each the best, the worst and those between, by reward."""
    chosen = _evenly(run.sampled_steps(), max(most_steps, FEWEST_STEPS))
    logged: dict[int, list[dict[str, Any]]] = {step: [] for step in chosen}
    for record in run.samples(logged):
        logged[record["step"]].append(record)
    if not chosen:
        return tag("p", "No samples were logged.", class_="dim")
    rewards = dict(zip(*run.series.get("reward", ((), ())), strict=True))
    close = str(run.setting("generation", "think_end_tag") or "")
    parts = [
        _step(step, logged[step], rewards.get(step), close, is_open=step in (chosen[0], chosen[-1])) for step in chosen
    ]
    return tag("div", *parts, class_="steps")


def _step(step: int, records: Sequence[Mapping[str, Any]], reward: float | None, close: str, *, is_open: bool) -> Html:
    """One update, folded away or not."""
    ordered = sorted(records, key=lambda record: -(_float(record.get("reward")) or 0.0))
    shown = _evenly(ordered, EACH)
    told = [f"reward {number(reward)}"] if reward is not None else []
    told += [f"{len(shown)} of {len(ordered)} samples" if len(shown) < len(ordered) else f"{len(shown)} samples"]
    summary = tag("summary", tag("b", f"Update {step}"), " ", tag("span", " · ".join(told), class_="dim"))
    body = tag("div", *(_sample(record, close) for record in shown), class_="samples")
    return tag("details", summary, body, **({"open": ""} if is_open else {}))


def _evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly spread, the first and the last included; `most` is at least two."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _sample(record: Mapping[str, Any], close: str) -> Html:
    rewards = record.get("rewards")
    parts = rewards.items() if isinstance(rewards, dict) else ()
    values = [*parts, ("advantage", record.get("advantage"))]
    shown = [f" · {name} {_cell(value)}" for name, value in values]
    shown += [f" · {tokens} tokens"] if isinstance(tokens := record.get("length_tokens"), int) else []
    shown += [" · cut off"] if record.get("finish_reason") == "length" else []
    reward = tag("b", f"reward {_cell(record.get('reward'))}")
    return tag("div", tag("p", reward, tag("span", *shown, class_="dim")), *_said_to(record, close))


def _said_to(record: Mapping[str, Any], close: str) -> list[Html]:
    """The prompt, what came of it by region, and what was expected; nothing where texts were not to be logged."""
    if record.get("completion") == REDACTED:
        return []
    texts = [
        ("prompt", record.get("prompt"), MOST_TEXT // 2),
        *((*part, MOST_TEXT) for part in _regions(record, close)),
    ]
    if reference := record.get("reference"):
        texts.append(("reference", reference, MOST_TEXT // 2))
    cells = [
        cell
        for kind, text, most in texts
        for cell in (tag("span", kind, class_=kind), tag("pre", excerpt(text, most), class_=kind))
    ]
    return [tag("div", *cells, class_="said")]


def _regions(record: Mapping[str, Any], close: str) -> list[tuple[str, str]]:
    """A completion as its thinking, which ends with the last close tag, and its answer; what is empty is left out.

    Where no tag closes, it is all thinking or all answer, as it was when it was cut on its tokens.
    """
    whole = str(record.get("completion") or "")
    before, tag_text, answer = whole.rpartition(close) if close else ("", "", whole)
    if not tag_text and record.get("thinking"):
        before, answer = whole, ""
    parts = [("thinking", (before + tag_text).strip()), ("answer", answer.strip())]
    return [part for part in parts if part[1]] or [("answer", "(an empty completion)")]


def changed(found: Mapping[str, Sequence[Change]], *, is_mean: bool) -> Html:
    """Answers that became right, that became wrong, and that stayed wrong; `is_mean` of items with several samples."""
    parts: list[Html] = []
    for kind, most in SHOWN_CHANGES.items():
        if found[kind]:
            shown = found[kind][:most]
            rows = [_change(change) for change in shown]
            summary = f"{HEADINGS[kind][is_mean]}: {len(found[kind])} item{'s' * (len(found[kind]) != 1)}"
            first = f", the first {len(shown)} of them" if len(shown) < len(found[kind]) else ""
            body = table(("item", "prompt", "expected", "before", "now"), rows, (0,))
            parts.append(tag("details", tag("summary", summary + first), body, **({} if parts else {"open": ""})))
    return joined(parts) if parts else tag("p", "None: all of them were right, and are.", class_="dim")


def _change(change: Change) -> tuple[str | Html, ...]:
    now = change.after
    asked, expected = (excerpt(now.get(name), MOST_IN_CELL // 2) for name in ("prompt", "expected"))
    return (str(now["item"]), asked, expected, _said(change.before), _said(now))


def _said(record: Mapping[str, Any]) -> Html:
    """A completion, and what was read from it."""
    extracted = record.get("extracted")
    read = "no answer read" if extracted is None else f"read as {excerpt(extracted, MOST_IN_CELL)}"
    return joined([excerpt(record.get("completion"), MOST_IN_CELL), tag("div", read, class_="dim")])


def excerpt(text: object, most: int = MOST_TEXT) -> str:
    """The text; of a very long one its beginning and its end, where questions and answers stand."""
    whole, half = "" if text is None else str(text), most // 2
    left_out = len(whole) - 2 * half
    return whole if left_out <= 0 else f"{whole[:half]}\n[... {left_out} more characters ...]\n{whole[-half:]}"


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _cell(value: object) -> str:
    found = _float(value)
    return "-" if found is None else number(found)
