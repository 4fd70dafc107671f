"""How `inspect-rewards` looks in a terminal: rows with reasons, distributions, agreement, the battery.

Everything that a model or a plugin wrote is made visible and cut before it is shown.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo_cli.output import Output, cell

SHOWN_ROWS = 10
SHOWN_FAILURES = 5
SHOWN_PAIRS = 10
NARROWEST, NAME, BAR = 16, 24, 40
EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"
FULL = "\u2588"


def show(out: Output, summary: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Everything there is to say, in the order in which a person asks."""
    _rows(out, summary, records)
    _components(out, summary)
    _histograms(out, summary)
    _agreement(out, summary)
    _failures(out, summary, records)
    _attacks(out, summary)


def _rows(out: Output, summary: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> None:
    from pipelines.monitoring.visible import cut, excerpt
    from pipelines.rewards.inspection import strangest

    title, shown, why = f"{len(records)} rows", list(records), dict[int, str]()
    if not out.verbose and len(records) > SHOWN_ROWS:
        strange = strangest(records, SHOWN_ROWS, low_gold=summary["low_gold"])
        title = f"The {SHOWN_ROWS} strangest of {len(records)} rows (-v shows all)"
        shown, why = [records[each.row] for each in strange], {each.row: each.why for each in strange}
    width = _space(4, 6 + min(NAME, max(len(name) for name in [*records[0]["rewards"], "reward"])) + 7)
    lines: list[tuple[Any, ...]] = []
    for record in shown:
        lines.append((f"{record['row']:>5}", "total", record["total"], excerpt(record["generated"], width)))
        lines += [
            ("", cut(name, NAME), value, cut(reason(record, name), width)) for name, value in record["rewards"].items()
        ]
        if record["row"] in why:
            lines.append(("", "(shown since)", None, cut(why[record["row"]], width)))
    out.table(title, ("  row", "reward", "value", "the completion, and why"), lines)


def reason(record: Mapping[str, Any], name: str) -> str:
    """What one reward said about a row, beside its number."""
    said = record["reasons"].get(name, {})
    words = ", ".join(f"{key} {cell(value)}" for key, value in said.items())
    return words or ("abstains" if record["rewards"][name] is None else "")


def _components(out: Output, summary: Mapping[str, Any]) -> None:
    from pipelines.monitoring.visible import cut

    found, space = summary["components"], min(NAME, _space(8, 5 + 6 + 6 + 5 + 5 + 6 + 7))
    out.table(
        f"\nRewards on {summary['rows']} rows",
        ("reward", "rows", "mean", "std", "min", "max", "r(len)", "ms/row"),
        [
            (
                cut(each["name"], space),
                each["count"],
                *(_short(each[key]) for key in ("mean", "std", "low", "high", "length_correlation")),
                float(f"{1000 * each['seconds'] / max(1, summary['rows']):.2g}"),
            )
            for each in found
        ],
    )
    for why in dict.fromkeys(each["undefined"] for each in found if each["undefined"]):
        names = ", ".join(cut(each["name"], NAME) for each in found if each["undefined"] == why)
        out.data(f"r(len) is undefined for {names}: {why}")
    if summary["groups"]:
        groups = summary["groups"]
        alike = f"{groups['without_spread']} of {groups['prompts']} prompts earn the same with all "
        out.data(f"{alike}{groups['samples']} samples: nothing to learn from these")


def _histograms(out: Output, summary: Mapping[str, Any]) -> None:
    from pipelines.monitoring.visible import cut

    lines: list[str] = []
    found = summary["components"]
    for each in found[: -1 if len(found) == 2 else None]:  # the only reward is the total
        lines += [f"\n{cut(each['name'], NAME)}, rows by value", *bars(each["histogram"], each["edges"])]
    out.data("\n".join(lines))


def bars(histogram: Sequence[int], edges: Sequence[float]) -> Iterator[str]:
    """A line for every bin that holds something; the longest bar has BAR columns."""
    low, high = edges
    step, top = (high - low) / len(histogram), max(histogram, default=0)
    for index, count in enumerate(histogram):
        if count:
            label = f"{low + index * step:.3g} to {low + (index + 1) * step:.3g}"
            yield f"  {label:<14} {_bar(count / top)} {count}"


def _bar(share: float) -> str:
    """At least an eighth of a column."""
    full, rest = divmod(max(1, round(share * BAR * 8)), 8)
    return FULL * full + (EIGHTHS[rest] if rest else "")


def _agreement(out: Output, summary: Mapping[str, Any]) -> None:
    from pipelines.monitoring.visible import cut

    pairs = sorted(summary["agreement"]["pairs"], key=lambda pair: -abs(pair["rank"] or 0))
    if not pairs:
        return
    shown = pairs if out.verbose else pairs[:SHOWN_PAIRS]
    whose = "rows and adversarial texts" if summary["source"] == "gold" and summary["attacks"] else "rows"
    more = f", the closest {len(shown)} of {len(pairs)} pairs" if len(shown) < len(pairs) else ""
    names = sum(max(min(NAME, len(pair[key])) for pair in shown) for key in ("first", "second"))
    width = _space(5, names + 10)
    out.table(
        f"\nDo they agree? On {summary['agreement']['texts']} {whose}{more}",
        ("reward", "and", "r", "rank", "in words"),
        [
            (
                cut(pair["first"], NAME),
                cut(pair["second"], NAME),
                _short(pair["pearson"]),
                _short(pair["rank"]),
                cut(pair["words"], width),
            )
            for pair in shown
        ],
    )


def _failures(out: Output, summary: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> None:
    from pipelines.monitoring.visible import cut, excerpt

    failures: list[dict[str, Any]] = summary["failures"]
    if not failures:
        return
    shown = failures if out.verbose else failures[:SHOWN_FAILURES]
    more = f", the first {len(shown)}" if len(shown) < summary["failed"] else ""
    width = _space(2, 5)
    lines: list[tuple[str, str]] = []
    for each in shown:
        lines.append((f"{each['row']:>5}", cut(f"{each['name']}: {each['error']}", width)))
        lines.append(("", excerpt(records[int(each["row"])]["generated"], width) or "(an empty completion)"))
    out.table(
        f"\n{summary['failed']} failure{'s' * (summary['failed'] > 1)}{more}",
        ("  row", "the error, and the completion"),
        lines,
    )


def _attacks(out: Output, summary: Mapping[str, Any]) -> None:
    from pipelines.monitoring.visible import cut, excerpt

    attacks = summary["attacks"]
    if not attacks:
        return
    width = _space(6, 15 + 4 + 6 + 5 + 6)
    out.table(
        f"\nTexts that deserve nothing; gold gets {cell(summary['gold'])}, high: rows above half of that",
        ("text", "rows", "mean", "high", "best", "verdict"),
        [
            (
                each["name"],
                each["rows"],
                _short(each["total"]),
                "-" if each["high_share"] is None else f"{each['high_share']:.0%}",
                _short(each["best"] and each["best"]["total"]),
                cut(each["verdict"], width),
            )
            for each in attacks
        ],
    )
    for each in attacks:
        best = each["best"]
        if best and (each["high"] or (each["high_share"] and out.verbose)):
            text = excerpt(best["generated"], _width() - 4) or "(an empty text)"
            payer = f", paid by {cut(each['by'], NAME)}" if each["by"] else ""
            out.data(f"\n{each['name']}{payer}; row {best['row']} gets {cell(best['total'])}:\n    {text}")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _width() -> int:
    """The terminal's columns; 80 for files and pipes, unless COLUMNS says otherwise."""
    return shutil.get_terminal_size((80, 24)).columns


def _space(columns: int, taken: int) -> int:
    """What is left for the texts of a table with so many columns, frame included."""
    frame = 3 * columns + 1 if sys.stdout.isatty() else 2 * (columns - 1)
    return max(NARROWEST, _width() - taken - frame)
