"""What `inspect-rewards` found as one HTML page: warnings, rewards, histograms, the battery, the strangest rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.monitoring.charts import histogram
from pipelines.monitoring.page import Html, joined, page, table, tag
from pipelines.monitoring.visible import excerpt
from pipelines.rewards.inspection import TOTAL, strangest

STRANGEST = 10
MOST_ROWS = 200
MOST_TEXT = 4000
EXCERPT = 90

SOURCES = {"gold": "gold completions", "completions": "given completions", "samples": "fresh samples"}

Record = Mapping[str, Any]


def inspection_page(summary: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The page of a stage's summary and rows."""
    names = ", ".join(each["name"] for each in summary["components"][:-1])
    return page(
        "Rewards under inspection",
        tag("h1", "Rewards under inspection"),
        tag("p", f"{names}, on {summary['rows']} {SOURCES[summary['source']]}", class_="dim"),
        _warnings(summary["warnings"]),
        _battery(summary),
        _components(summary),
        _agreement(summary),
        _failures(summary, records),
        _strange(summary, records),
        _rows(records),
    )


def _warnings(warnings: Sequence[str]) -> Html:
    if not warnings:
        return tag("p", "Nothing to warn of.", class_="good")
    return tag("ul", *(tag("li", warning) for warning in warnings), class_="warnings")


def _battery(summary: Mapping[str, Any]) -> Html:
    attacks = summary["attacks"]
    if not attacks:
        return Html("")
    names = [each["name"] for each in summary["components"][:-1]]
    rows = [
        (
            joined([tag("b", each["name"]), tag("div", each["about"], class_="dim")]),
            _cell(each["total"]),
            "-" if each["high_share"] is None else f"{each['high_share']:.0%}",
            tag("span", each["verdict"], class_="bad" if each["high"] else "good"),
            *(_cell(each["rewards"][name]) for name in names),
        )
        for each in attacks
    ]
    columns = ("text", "mean", "high", "verdict", *names)
    best = [_best(each) for each in attacks if each["high"] and each["best"]]
    words = f"Gold gets {_cell(summary['gold'])} on average; high is the share of rows with more than half of that."
    heading = tag("h2", "Texts that deserve nothing")
    return joined([heading, tag("p", words), table(columns, rows, (1, 2, *range(4, len(columns)))), *best])


def _best(attack: Mapping[str, Any]) -> Html:
    best = attack["best"]
    heading = f"{attack['name']}, paid by {attack['by']}: row {best['row']} gets {_cell(best['total'])}"
    return joined([tag("h3", heading), tag("pre", best["generated"] or "(an empty text)")])


def _components(summary: Mapping[str, Any]) -> Html:
    found, count = summary["components"], max(1, summary["rows"])
    columns = ("reward", "rows", "mean", "std", "min", "max", "r with length", "ms per row", "")
    rows = [
        (
            each["name"],
            str(each["count"]),
            *(_cell(each[key]) for key in ("mean", "std", "low", "high", "length_correlation")),
            _cell(1000 * each["seconds"] / count),
            f"r is undefined: {each['undefined']}" if each["undefined"] else "",
        )
        for each in found
    ]
    charts = [histogram(each["histogram"], *each["edges"], caption=each["name"]) for each in found]
    return joined(
        [
            tag("h2", "Rewards"),
            table(columns, rows, range(1, 8)),
            tag("h2", "Rows by value"),
            tag("div", *charts, class_="charts"),
        ]
    )


def _agreement(summary: Mapping[str, Any]) -> Html:
    pairs = summary["agreement"]["pairs"]
    if not pairs:
        return Html("")
    rows = [
        (each["first"], each["second"], _cell(each["pearson"]), _cell(each["rank"]), each["words"]) for each in pairs
    ]
    words = f"On {summary['agreement']['texts']} texts: Pearson's r, and the same of the ranks."
    return joined(
        [tag("h2", "Do they agree?"), tag("p", words), table(("reward", "and", "r", "rank", "in words"), rows, (2, 3))]
    )


def _failures(summary: Mapping[str, Any], records: Sequence[Record]) -> Html:
    failures: list[Record] = summary["failures"]
    if not failures:
        return Html("")
    rows = [
        (str(each["row"]), each["name"], each["error"], excerpt(records[int(each["row"])]["generated"], EXCERPT))
        for each in failures
    ]
    heading = f"{summary['failed']} failures" + (f", the first {len(rows)}" if len(rows) < summary["failed"] else "")
    return joined([tag("h2", heading), table(("row", "reward", "error", "completion"), rows, (0,))])


def _strange(summary: Mapping[str, Any], records: Sequence[Record]) -> Html:
    found = strangest(records, STRANGEST, low_gold=summary["low_gold"])
    parts: list[Html] = [tag("h2", f"The {len(found)} strangest rows")]
    for each in found:
        record = records[each.row]
        values = [(name, _cell(value), _said(record, name)) for name, value in record["rewards"].items()]
        parts += [
            tag("h3", f"Row {each.row}: {each.why}"),
            tag("pre", _start(record["prompt"])),
            tag("pre", _start(record["generated"]) or "(an empty completion)"),
            table(("reward", "value", "why"), [*values, (TOTAL, _cell(record["total"]), "")], (1,)),
        ]
    return joined(parts)


def _rows(records: Sequence[Record]) -> Html:
    shown = records[:MOST_ROWS]
    names = list(shown[0]["rewards"]) if shown else []
    lines = [
        (
            str(each["row"]),
            _cell(each["total"]),
            *(_cell(each["rewards"][name]) for name in names),
            str(each["thinking_tokens"] + each["answer_tokens"]),
            excerpt(each["generated"], EXCERPT),
        )
        for each in shown
    ]
    columns = ("row", TOTAL, *names, "tokens", "completion")
    first = f"The first {len(shown)} of {len(records)} rows" if len(shown) < len(records) else f"All {len(shown)} rows"
    return tag("details", tag("summary", first), table(columns, lines, range(len(columns) - 1)))


def _said(record: Record, name: str) -> str:
    return ", ".join(f"{key} {value}" for key, value in record["reasons"].get(name, {}).items())


def _start(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n[... {len(text) - MOST_TEXT} more characters]"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
