"""Charts as SVG inside a page: histograms, distributions, and lines over updates. Their colours come with the page."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from pipelines.monitoring.page import Html, joined, tag

CHART_WIDTH, CHART_HEIGHT, BASELINE, TOP = 280, 96, 80, 12

WIDTH, HEIGHT = 348, 150
LEFT, RIGHT, UPPER, LOWER = 54, 8, 8, 20
"""Room for the numbers beside and below a chart of lines."""
LABEL_LENGTH = 7
"""Characters that fit there; more are pressed together."""

SPAN_WIDTH, SPAN_HEIGHT, SPAN_MARGIN = 140, 14, 4

COLOURS = 8
MOST_LINES = 2 * COLOURS
"""The second eight have the colours of the first, dashed."""

MOST_POINTS = 240
"""More values than this are drawn as means of neighbours, in the band from their smallest to their largest."""

SMOOTHED_FROM = 30
"""So many points or more also get a line of means over a tenth of them."""

MOST_BINS = 24
"""Whole numbers are counted in so many bins at most, each 1, 2 or 5 times a power of ten wide."""

TICKS = 4
ROUNDING = 1e-9
"""A span smaller than this beside its ends, and so far a tick may be beside the end of its axis, is no distance."""


@dataclass(frozen=True)
class Line:
    """The values of one run over its updates, in ascending order; `ends` are intervals around the values, if known.

    Numbers are finite, and at most 1e300 in size.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    colour: int = 0
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class _Scale:
    """Where the numbers of a chart lie on it."""

    left: float
    right: float
    low: float
    high: float

    def x(self, step: float) -> float:
        span = self.right - self.left
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - self.left) / span if span else 0.5)

    def y(self, value: float) -> float:
        span = self.high - self.low
        return HEIGHT - LOWER - (HEIGHT - LOWER - UPPER) * ((value - self.low) / span if span else 0.5)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """A line through (update, value)."""
        return "M" + "L".join(f"{self.x(step):.1f} {self.y(value):.1f}" for step, value in points)


def histogram(counts: Sequence[int], low: float, high: float, caption: str) -> Html:
    """Bars over equal bins of [low, high], the count above each that holds something."""
    width, top = CHART_WIDTH / max(1, len(counts)), max(counts, default=0)
    marks: list[Html] = []
    gap = min(1.0, width / 8)
    for index, count in enumerate(counts):
        if not count:
            continue
        height, left = max(1.0, (BASELINE - TOP) * count / top), index * width
        box = {"x": f"{left + gap:.1f}", "y": f"{BASELINE - height:.1f}", "width": f"{width - 2 * gap:.1f}"}
        marks.append(tag("rect", tag("title", f"{count}"), **box, height=f"{height:.1f}"))
        middle = {"x": f"{left + width / 2:.1f}", "y": f"{BASELINE - height - 3:.1f}", "text-anchor": "middle"}
        marks.append(tag("text", f"{count}", **middle))
    marks.append(tag("line", x1="0", x2=f"{CHART_WIDTH}", y1=f"{BASELINE}", y2=f"{BASELINE}"))
    marks.append(tag("text", f"{low:.3g}", x="0", y=f"{CHART_HEIGHT - 3}"))
    marks.append(tag("text", f"{high:.3g}", x=f"{CHART_WIDTH}", y=f"{CHART_HEIGHT - 3}", **{"text-anchor": "end"}))
    drawing = tag("svg", *marks, viewBox=f"0 0 {CHART_WIDTH} {CHART_HEIGHT}", role="img", **{"aria-label": caption})
    return tag("figure", tag("figcaption", caption), drawing)


def distribution(before: Sequence[int], after: Sequence[int], caption: str) -> Html:
    """How often whole numbers occur, as shares: `before` as an outline, `after`, which is not empty, as bars.

    The caption is also a class of the drawing, so that the page may colour thinking and answer as it does elsewhere.
    """
    low, high = min([*before, *after]), max([*before, *after])
    width = next(width for width in _widths() if high // width - low // width < MOST_BINS)
    edges = [index * width - 0.5 for index in range(low // width, high // width + 2)]  # around whole numbers
    old, new = (list(_shares(values, edges)) for values in (before, after))
    scale = _Scale(edges[0], edges[-1], 0.0, 1.05 * max([*old, *new]))
    marks = [_horizontal(scale, value, f"{value:.0%}") for value in ticks(0, scale.high)]
    marks += _bars(edges, new, scale)
    if before:
        steps = "".join(
            f"V{scale.y(share):.1f}H{scale.x(right):.1f}" for share, right in zip(old, edges[1:], strict=True)
        )
        marks.append(
            tag("path", class_="outline", d=f"M{scale.x(edges[0]):.1f} {scale.y(0):.1f}{steps}V{scale.y(0):.1f}")
        )
    for value in ticks(scale.left, scale.right, 2 * TICKS):
        if value == round(value):
            text = {"x": f"{scale.x(value):.1f}", "y": f"{HEIGHT - 5}", "text-anchor": "middle"}
            marks.append(tag("text", f"{value + 0.0:,.0f}", **text))
    box = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class_": caption}
    drawing = tag("svg", *marks, role="img", **box, **{"aria-label": caption})
    return tag("figure", tag("figcaption", caption), drawing)


def lines(drawn: Sequence[Line], caption: str, meaning: str = "") -> Html:
    """One metric of one or more runs; nothing for lines without values."""
    drawn = [line for line in drawn if line.steps]
    if not drawn:
        return Html("")
    scale = _scale(drawn)
    marks = [*_grid(scale), *(mark for line in drawn for mark in _line(line, scale))]
    label = f"{caption}: " + ", ".join(f"{line.label} {number(line.values[-1])}" for line in drawn)
    drawing = tag("svg", *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", **{"aria-label": label})
    last = joined(tag("span", f" {number(line.values[-1])}", class_=look(line.colour)) for line in drawn)
    return tag("figure", tag("figcaption", tag("span", caption, title=meaning or caption), last), drawing)


def interval(low: float, value: float, high: float, colour: int) -> Html:
    """A fraction and its interval on a line from 0 to 1, small enough for the cell of a table."""
    x = [f"{SPAN_MARGIN + (SPAN_WIDTH - 2 * SPAN_MARGIN) * part:.1f}" for part in _clamped(low, value, high)]
    middle = f"{SPAN_HEIGHT / 2}"
    marks = (
        tag("line", x1=f"{SPAN_MARGIN}", x2=f"{SPAN_WIDTH - SPAN_MARGIN}", y1=middle, y2=middle),
        tag("path", d=f"M{x[0]} {middle}H{x[2]}"),
        tag("circle", cx=x[1], cy=middle, r="3"),
    )
    box = {"viewBox": f"0 0 {SPAN_WIDTH} {SPAN_HEIGHT}", "class_": f"span {look(colour)}"}
    return tag("svg", *marks, role="img", **box, **{"aria-label": f"{value:.1%}, {low:.1%} to {high:.1%}"})


def bar(share: float) -> Html:
    """A part of a whole, small enough for the cell of a table."""
    long, box = f"{SPAN_WIDTH * _clamped(share)[0]:.1f}", {"x": "0", "y": "3", "height": "8"}
    ground, mark = tag("rect", width=f"{SPAN_WIDTH}", class_="ground", **box), tag("rect", width=long, **box)
    frame = {"viewBox": f"0 0 {SPAN_WIDTH} {SPAN_HEIGHT}", "class_": "span"}
    return tag("svg", ground, mark, role="img", **frame, **{"aria-label": f"{share:.1%}"})


def look(colour: int) -> str:
    """The classes of the page that draw one run."""
    return f"c{colour % COLOURS}" + (" dashed" if colour >= COLOURS else "")


def _clamped(*parts: float) -> list[float]:
    return [min(1.0, max(0.0, part)) for part in parts]


def number(value: float) -> str:
    """Three digits; from 1000 on all before the point, thousands apart; from 1e9 on and below 1e-4 powers of ten."""
    value += 0.0  # no minus before a zero
    if 999.5 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers inside [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high - low > max(ROUNDING * max(abs(low), abs(high)), 1e-300):
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - ROUNDING))
    first, last = math.ceil(low / step - ROUNDING), math.floor(high / step + ROUNDING)
    return [index * step for index in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """A text for each value, with as many digits as tell them apart; powers of ten for all where one has many zeros."""
    rounded: list[Decimal] = []
    for digits in range(3, 17):
        rounded = [Decimal(f"{value + 0.0:.{digits}g}").normalize() for value in values]
        if len(set(rounded)) == len(values):
            break
    plain, powers = [f"{value:,f}" for value in rounded], [f"{value:e}" if value else "0" for value in rounded]
    long = any(LABEL_LENGTH < len(text) > len(power) for text, power in zip(plain, powers, strict=True))
    return powers if long else plain


def _scale(drawn: Sequence[Line]) -> _Scale:
    values = [value for line in drawn for value in line.values]
    values += [end for line in drawn for pair in line.ends for end in pair]
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    lowest = 0.0 if low >= 0 and low - room < 0.25 * high else low - room
    steps = [step for line in drawn for step in (line.steps[0], line.steps[-1])]
    return _Scale(min(steps), max(steps), lowest, high + room)


def _grid(scale: _Scale) -> Iterator[Html]:
    values = ticks(scale.low, scale.high)
    for value, label in zip(values, labels(values), strict=True):
        yield _horizontal(scale, value, label)
    for step in sorted({scale.left, scale.right}):
        anchor = "end" if step == scale.right != scale.left else "start"
        text = {"x": f"{scale.x(step):.1f}", "y": f"{HEIGHT - 5}", "text-anchor": anchor}
        yield tag("text", f"{step:,.0f}", **text)


def _widths() -> Iterator[int]:
    """1, 2, 5, 10, 20, ..."""
    return (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))


def _shares(values: Sequence[int], edges: Sequence[float]) -> Iterator[float]:
    """The part of the values between each two edges."""
    ordered = sorted(values)
    below = [bisect(ordered, edge) for edge in edges]
    return ((upper - lower) / max(1, len(values)) for lower, upper in pairwise(below))


def _bars(edges: Sequence[float], shares: Sequence[float], scale: _Scale) -> Iterator[Html]:
    gap = min(1.0, (scale.x(edges[1]) - scale.x(edges[0])) / 8)
    for (left, right), share in zip(pairwise(edges), shares, strict=True):
        if share:
            x, y, end = scale.x(left) + gap, scale.y(share), scale.x(right) - gap
            box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{end - x:.1f}", "height": f"{scale.y(0) - y:.1f}"}
            lowest, highest = left + 0.5, right - 0.5
            said = f"{lowest:,.0f}" + (f" to {highest:,.0f}" if highest > lowest else "")
            yield tag("rect", tag("title", f"{said}: {share:.1%}"), **box)


def _horizontal(scale: _Scale, value: float, label: str) -> Html:
    """A line of the grid with its label."""
    y = f"{scale.y(value):.1f}"
    text = {"x": f"{LEFT - 5}", "y": f"{scale.y(value) + 3:.1f}", "text-anchor": "end"}
    pressed = {"textLength": f"{LEFT - 6}", "lengthAdjust": "spacingAndGlyphs"} if len(label) > LABEL_LENGTH else {}
    return joined([tag("line", x1=f"{LEFT}", x2=f"{WIDTH - RIGHT}", y1=y, y2=y), tag("text", label, **text, **pressed)])


def _line(line: Line, scale: _Scale) -> Iterator[Html]:
    colour = look(line.colour)
    points = list(zip(line.steps, line.values, strict=True))
    ends = line.ends if len(points) <= MOST_POINTS else ()
    for step, (low, high) in zip(line.steps, ends, strict=False):
        yield tag("path", class_=f"ends {colour}", d=scale.path([(step, low), (step, high)]))
    if len(points) < 2 or ends:
        for step, value in points:
            dot = {"cx": f"{scale.x(step):.1f}", "cy": f"{scale.y(value):.1f}", "r": "2.2"}
            yield tag("circle", tag("title", f"{line.label}, update {step}: {number(value)}"), **dot, class_=colour)
    parts = buckets(points)
    middles = [(step, middle) for step, _, middle, _ in parts]
    if len(parts) < len(points):
        upper, lower = [(step, high) for step, _, _, high in parts], [(step, low) for step, low, _, _ in parts]
        yield tag("path", class_=f"band {colour}", d=scale.path([*upper, *reversed(lower)]) + "Z")
    if len(middles) >= SMOOTHED_FROM:
        yield tag("path", class_=f"faint {colour}", d=scale.path(middles))
        middles = smoothed(middles)
    if len(middles) > 1:
        yield tag("path", tag("title", line.label), class_=colour, d=scale.path(middles))


def buckets(points: Sequence[tuple[int, float]]) -> list[tuple[float, float, float, float]]:
    """(update, smallest, mean, largest) of neighbouring points, at most `MOST_POINTS` of them."""
    size = math.ceil(len(points) / MOST_POINTS) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(s for s, _ in part) / len(part), min(values), sum(values) / len(values), max(values))
        for part in parts
        if (values := [value for _, value in part])
    ]


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value with the mean of its neighbours, a tenth of all of them, fewer at both ends."""
    reach = max(1, len(points) // 20)
    found: list[tuple[float, float]] = []
    for index, (step, _) in enumerate(points):
        near = min(reach, index, len(points) - 1 - index)
        window = [value for _, value in points[index - near : index + near + 1]]
        found.append((step, sum(window) / len(window)))
    return found
