"""How long completions were, early and late: whole, and their thinking and answer apart where they have both."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, quantiles

from pipelines.monitoring.charts import distribution, number
from pipelines.monitoring.page import Html, joined, table, tag
from pipelines.reports.runs import Logged, Run

ENDS = 3
"""Early and late are the first and the last third of the updates whose samples were logged."""

COLUMNS = ("tokens of", "mean", "median", "90 % within", "longest", "cut off")


def lengths(run: Run) -> Html:
    """Distributions of the logged completions' lengths; nothing where none were logged."""
    known = [one for one in run.logged if one.length_tokens is not None]
    steps = sorted({one.step for one in known})
    if not known:
        return Html("")
    count = -(-len(steps) // ENDS)
    late = [one for one in known if one.step >= steps[-count]]
    early = [one for one in known if one.step <= steps[count - 1]] if len(steps) > 1 else []
    regions = ("completion", "thinking", "answer") if _has_regions(known) else ("completion",)
    charts = [distribution(_tokens(early, region), _tokens(late, region), region) for region in regions]
    rows = [_row(region, early, late) for region in regions]
    return joined(
        [
            tag("h3", "How long it wrote"),
            tag("div", *charts, class_="charts"),
            tag("p", _legend(early, late), class_="dim"),
            table(COLUMNS, rows, range(1, len(COLUMNS))),
        ]
    )


def _has_regions(known: Sequence[Logged]) -> bool:
    """Whether each part was measured, and there was thinking at all."""
    thinking = [one.thinking_length_tokens for one in known]
    return None not in thinking and any(thinking)


def _tokens(some: Sequence[Logged], region: str) -> list[int]:
    whole = [one.length_tokens or 0 for one in some]
    if region == "completion":
        return whole
    thinking = [one.thinking_length_tokens or 0 for one in some]
    return thinking if region == "thinking" else [max(0, a - b) for a, b in zip(whole, thinking, strict=True)]


def _legend(early: Sequence[Logged], late: Sequence[Logged]) -> str:
    filled = f"Bars: {_of(late)}."
    return f"Share of the logged completions by length in tokens. {filled}" + (
        f" Dashed outline: {_of(early)}." if early else ""
    )


def _of(some: Sequence[Logged]) -> str:
    first, last = some[0].step, some[-1].step
    when = f"updates {first:,} to {last:,}" if first < last else f"update {first:,}"
    return f"{when} ({len(some):,} completions)"


def _row(region: str, early: Sequence[Logged], late: Sequence[Logged]) -> list[str]:
    parts = [_numbers(region, some) for some in (early, late) if some]
    return [region, *(" → ".join(filter(None, found)) for found in zip(*parts, strict=True))]


def _numbers(region: str, some: Sequence[Logged]) -> list[str]:
    values = _tokens(some, region)
    tenths = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    cut = f"{fmean(one.is_cut for one in some):.0%}" if region == "completion" else ""
    return [number(fmean(values)), number(tenths[4]), number(tenths[8]), number(max(values)), cut]
