"""What a model wrote: samples from the beginning, the middle and the end of a run, and answers that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.monitoring.charts import number
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.monitoring.sinks import REDACTED
from pipelines.reports.runs import Run
from pipelines.reports.scores import Change

EACH = 4
MOST_TEXT, MOST_IN_CELL = 3000, 1000
"""Characters that are shown of a text by itself, and in a table."""
SHOWN_CHANGES = {"won": 6, "lost": 6, "still wrong": 4}
HEADINGS = {
    "won": ("Wrong before, right now", "More often right than before"),
    "lost": ("Right before, wrong now", "Less often right than before"),
    "still wrong": ("Wrong before and now", "No more often right than before"),
}
"""For items that are right or wrong, and for those whose samples may be both."""


def samples(run: Run) -> Html:
    """Completions of three updates: in each the best, the worst and those between, by reward."""
    steps = run.sampled_steps()
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
    logged: dict[int, list[dict[str, Any]]] = {step: [] for step in chosen}
    for record in run.samples(chosen):
        logged[record["step"]].append(record)
    parts = [
        joined([tag("h4", f"Update {step}"), tag("div", *map(_sample, _spread(logged[step])), class_="samples")])
        for step in chosen
    ]
    return joined(parts) if parts else tag("p", "No samples were logged.", class_="dim")


def _spread(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best, the worst and evenly what lies between; every one where there are few."""
    ordered = sorted(records, key=lambda record: -(_float(record.get("reward")) or 0.0))
    last = len(ordered) - 1
    places = {round(index * last / (EACH - 1)) for index in range(EACH)} if last > 0 else {0}
    return [ordered[place] for place in sorted(places)] if ordered else []


def _sample(record: Mapping[str, Any]) -> Html:
    rewards = record.get("rewards")
    parts = rewards.items() if isinstance(rewards, dict) else ()
    values = [("reward", record.get("reward")), *parts, ("advantage", record.get("advantage"))]
    shown = [f"{name} {_cell(value)}" for name, value in values]
    shown += [f"{tokens} tokens"] if (tokens := record.get("length_tokens")) is not None else []
    shown += ["cut off"] if record.get("finish_reason") == "length" else []
    reference = record.get("reference")
    expected = [Html("<br>"), f"reference: {excerpt(reference)}"] if reference and reference != REDACTED else []
    return tag("div", *_said_to(record), tag("p", " · ".join(shown), *expected, class_="dim"))


def _said_to(record: Mapping[str, Any]) -> list[Html]:
    """The prompt, and what came of it; nothing where texts were not to be logged."""
    if record.get("completion") == REDACTED:
        return []
    return [tag("pre", excerpt(record.get("prompt")), class_="prompt"), tag("pre", _regions(record))]


def _regions(record: Mapping[str, Any]) -> Html:
    """A completion with its thinking set apart."""
    completion, thinking = str(record.get("completion") or ""), record.get("thinking")
    if not completion:
        return tag("span", "(an empty completion)", class_="dim")
    before, found, after = completion.partition(str(thinking)) if thinking else (completion, "", "")
    return joined([excerpt(before), tag("span", excerpt(found), class_="thinking"), excerpt(after)])


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
