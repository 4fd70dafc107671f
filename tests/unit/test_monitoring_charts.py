"""Charts: round ticks that can be told apart, nothing outside its box, every text escaped, whatever the numbers are."""

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.monitoring import charts
from pipelines.monitoring.charts import (
    MOST_POINTS,
    Line,
    buckets,
    distribution,
    histogram,
    interval,
    labels,
    lines,
    number,
    ticks,
)
from pipelines.monitoring.charts import smoothed as smooth

NUMBERS = st.one_of(
    st.floats(-1e300, 1e300),
    st.floats(-1, 1),
    st.integers(-5, 5).map(float),
    st.sampled_from([0.0, -0.0, 5e-324, -1e-310, 1e300, -1e300, 1.0, 1.0 + 2**-52, 1e16, 1e16 + 2]),
)
HOSTILE = '<script>alert("1")</script> & \x1b[31m\u202e\ud800'
COORDINATES = {"x": 0, "x1": 0, "x2": 0, "cx": 0, "y": 1, "y1": 1, "y2": 1, "cy": 1}
BOXES = {"rect", "text", "line", "circle"}
EACH = settings(max_examples=40)


def spans(low, high):
    return high - low > max(1e-9 * max(abs(low), abs(high)), 1e-300)


@given(NUMBERS, NUMBERS, st.integers(1, 10))
@example(-1e300, 1e300, 4)
@example(0.0, 5e-324, 4)
@example(1e16, 1e16 + 2, 4)
def test_ticks_are_few_round_ascending_and_inside(one, other, count):
    low, high = sorted((one, other))
    found = ticks(low, high, count)
    if not spans(low, high):
        assert found == [low]
        return
    assert len(found) <= count + 1
    assert found == sorted(set(found))
    room = 1e-9 * max(abs(low), abs(high), high - low)
    assert all(low - room <= value <= high + room for value in found)
    if len(found) > 1:
        step = found[1] - found[0]
        assert float(f"{step:.0e}") == pytest.approx(step, rel=1e-5)
        assert f"{step:.0e}"[0] in "125"
        assert all(abs(value / step - round(value / step)) < 1e-5 for value in found)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 1, [0, 0.5, 1]),
        (-0.3, 0.9, [0, 0.5]),
        (0.12, 0.47, [0.2, 0.3, 0.4]),
        (3, 3, [3]),
        (5, 4, [5]),
    ],
)
def test_ticks_by_hand(low, high, found):
    assert ticks(low, high) == pytest.approx(found)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 0.5, 1.0], ["0", "0.5", "1"]),
        ([0.9992, 0.9994, 0.9996], ["0.9992", "0.9994", "0.9996"]),
        ([0.000095, 0.0001, 0.000105], ["9.5e-5", "1e-4", "1.05e-4"]),
        ([0.0000025, 0.000003], ["2.5e-6", "3e-6"]),
        ([0.000028, 0.00003, 0.000032], ["2.8e-5", "3e-5", "3.2e-5"]),
        ([0.0, 500000.0, 1e6], ["0", "5e+5", "1e+6"]),
        ([-0.00001, -0.0], ["-1e-5", "0"]),
        ([0.0000002, 0.0000004], ["2e-7", "4e-7"]),
        ([20000.0, 25000.0], ["20,000", "25,000"]),
        ([1e6, 2e6], ["1e+6", "2e+6"]),
        ([1234.2, 1234.4], ["1,234.2", "1,234.4"]),
    ],
)
def test_labels_tell_ticks_apart(values, found):
    assert labels(values) == found


@given(NUMBERS, NUMBERS)
def test_labels_of_ticks_differ_and_say_the_value(one, other):
    found = ticks(min(one, other), max(one, other))
    texts = labels(found)
    assert len(set(texts)) == len(found)
    for value, text in zip(found, texts, strict=True):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.12345, "0.123"),
        (-1.5, "-1.5"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1,000"),
        (-999.6, "-1,000"),
        (1234567.0, "1,234,567"),
        (3e-5, "3e-5"),
        (1e-12, "1e-12"),
        (2.5e9, "2.5e+9"),
        (1e300, "1e+300"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@given(NUMBERS)
def test_a_number_is_short_and_near(value):
    text = number(value)
    assert len(text) <= len("-999,999,999")
    assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=5e-324)
    assert text != "-0"


POINTS = st.lists(st.floats(-1e6, 1e6), max_size=40).flatmap(
    lambda values: st.integers(1, 40).map(lambda times: list(enumerate(values * times, 1)))
)


@EACH
@given(POINTS)
def test_buckets_cover_every_point_in_order(points):
    found = buckets(points)
    assert len(found) <= MOST_POINTS
    assert (len(found) == len(points)) == (len(points) <= MOST_POINTS)
    size = math.ceil(len(points) / MOST_POINTS) or 1
    weights = [min(size, len(points) - size * index) for index in range(len(found))]
    assert sum(weights) == len(points)
    for place in (0, 2):  # the update and the mean
        of_points = sum(point[place // 2] for point in points)
        of_buckets = sum(weight * part[place] for weight, part in zip(weights, found, strict=True))
        assert of_buckets == pytest.approx(of_points, rel=1e-9, abs=1e-3)
    assert [part[0] for part in found] == sorted({part[0] for part in found})
    slack = 1e-6
    assert all(low - slack <= middle <= high + slack for _, low, middle, high in found)
    values = [value for _, value in points]
    assert not values or (min(part[1] for part in found), max(part[3] for part in found)) == (min(values), max(values))


@EACH
@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.integers(1, 300), st.integers(1, 50))
def test_smoothing_keeps_straight_lines(start, slope, count, between):
    points = [(1 + between * index, start + slope * index) for index in range(count)]
    found = smooth(points)
    assert [step for step, _ in found] == [step for step, _ in points]
    assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-9, abs=1e-3)


def test_smoothing_smooths():
    points = [(index, float(index % 2)) for index in range(100)]
    assert all(0.3 < value < 0.7 for _, value in smooth(points)[5:-5])


def checked(markup, width, height):
    """The elements of a chart, each inside its box."""
    figure = ET.fromstring(markup)
    drawing = figure if figure.tag == "svg" else figure.find("svg")
    assert drawing.get("viewBox") == f"0 0 {width} {height}"
    ends = (width, height)
    for element in drawing.iter():
        for name, axis in COORDINATES.items():
            if element.tag in BOXES and name in element.attrib:
                assert -0.05 <= float(element.get(name)) <= ends[axis] + 0.05
        if element.tag == "rect":
            assert float(element.get("x")) + float(element.get("width")) <= width + 0.1
            assert float(element.get("width")) > 0
        if element.tag == "path" and "H" not in element.get("d"):
            numbers = [float(text) for text in re.findall(r"-?[\d.]+|nan|inf", element.get("d"))]
            assert all(-0.05 <= value <= width + 0.05 for value in numbers[::2])
            assert all(-0.05 <= value <= height + 0.05 for value in numbers[1::2])
    return figure


def chart(*drawn, caption="reward", meaning="what it is"):
    return checked(lines(drawn, caption, meaning), charts.WIDTH, charts.HEIGHT)


SERIES = st.lists(NUMBERS, min_size=1, max_size=20).flatmap(
    lambda values: st.lists(st.integers(0, 10**9), min_size=len(values), max_size=len(values), unique=True).map(
        lambda steps: Line("a", sorted(steps), values)
    )
)


@EACH
@given(st.lists(SERIES, min_size=1, max_size=2))
@example([Line("a", [1], [5e-324])])
@example([Line("a", [1, 2], [-1e300, 1e300])])
@example([Line("a", [1, 2], [0.0, 5e-324])])
@example([Line("a", [1, 2, 3], [1e16, 1e16 + 2, 1e16 + 4])])
def test_lines_stay_inside_whatever_the_values(drawn):
    figure = chart(*drawn)
    beside = [text for text in figure.iter("text") if float(text.get("x")) < charts.LEFT]
    assert beside
    assert all(len(text.text) <= charts.LABEL_LENGTH or "textLength" in text.attrib for text in beside)


@pytest.mark.parametrize("count", [1, 2, 29, 30, MOST_POINTS, MOST_POINTS + 1, 5000])
def test_lines_of_any_length(count):
    figure = chart(Line("a", range(1, count + 1), [math.sin(step) for step in range(count)]))
    kinds = {path.get("class").split()[0] for path in figure.iter("path")}
    assert ("band" in kinds) == (count > MOST_POINTS)
    assert ("faint" in kinds) == (count >= charts.SMOOTHED_FROM)
    assert ("c0" in kinds) == (count > 1)
    assert len(list(figure.iter("circle"))) == (count == 1)
    assert len(ET.tostring(figure)) < 20_000


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e300, -1e-300])
def test_a_constant_is_drawn_in_the_middle_of_something(value):
    figure = chart(Line("a", [1, 2, 3], [value] * 3))
    heights = {float(point.split()[1]) for point in figure.find(".//path").get("d").lstrip("M").split("L")}
    assert len(heights) == 1


def test_intervals_stay_inside_and_are_left_out_where_there_are_too_many():
    steps = [0, 10, 20]
    figure = chart(Line("a", steps, [0.5, 0.6, 0.7], 9, [(0.4, 0.6), (0.5, 0.7), (0.6, 0.8)]))
    assert [path.get("class") for path in figure.iter("path")] == ["ends c1 dashed"] * 3 + ["c1 dashed"]
    assert len(list(figure.iter("circle"))) == 3
    many = range(1, 10 * MOST_POINTS)
    figure = chart(Line("a", many, [0.5] * len(many), 0, [(0.4, 0.6)] * len(many)))
    assert not [path for path in figure.iter("path") if path.get("class").startswith("ends")]


def test_nothing_for_nothing():
    assert lines([], "reward") == ""
    assert lines([Line("a", [], [])], "reward") == ""
    assert "b 1" in lines([Line("a", [], []), Line("b", [1], [1.0])], "reward")


def test_texts_are_escaped_everywhere():
    drawn = [Line(HOSTILE, [1], [1.0]), Line(HOSTILE, [1, 2], [1.0, 2.0], 1)]
    for markup in (lines(drawn, HOSTILE, HOSTILE), histogram([1, 2], 0, 1, HOSTILE)):
        ET.fromstring(markup)
        assert "<script" not in markup
        assert "&lt;script&gt;" in markup
        assert not set(markup) & set("\x1b\u202e\ud800")


@EACH
@given(st.lists(st.integers(0, 10**6), max_size=400), NUMBERS, NUMBERS)
def test_histograms_stay_inside(counts, low, high):
    figure = checked(histogram(counts, low, high, "rewards"), charts.CHART_WIDTH, charts.CHART_HEIGHT)
    assert [int(bar.find("title").text) for bar in figure.iter("rect")] == [count for count in counts if count]


LENGTHS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 10**6)), max_size=60)


@EACH
@given(LENGTHS, LENGTHS.filter(bool))
@example([], [0])
@example([10**6], [0])
def test_distributions_stay_inside_and_their_bars_are_shares(before, after):
    figure = checked(distribution(before, after, "thinking"), charts.WIDTH, charts.HEIGHT)
    bars = [
        re.fullmatch(r"([\d,]+)(?: to ([\d,]+))?: ([\d.]+)%", bar.find("title").text) for bar in figure.iter("rect")
    ]
    for bar in bars:
        low, high = (int((end or bar[1]).replace(",", "")) for end in (bar[1], bar[2]))
        share = sum(low <= value <= high for value in after) / len(after)
        assert float(bar[3]) == pytest.approx(100 * share, abs=0.051)
    assert len(bars) <= charts.MOST_BINS
    assert len(list(figure.iter("path"))) == bool(before)


def test_a_distribution_has_bars_around_its_numbers_and_the_earlier_one_as_an_outline():
    figure = ET.fromstring(distribution([2, 2, 4, 4], [2, 4, 4, 4], "answer"))
    heights = [float(bar.get("height")) for bar in figure.iter("rect")]
    assert heights[1] / heights[0] == pytest.approx(3, rel=0.02)
    middles = [float(bar.get("x")) + float(bar.get("width")) / 2 for bar in figure.iter("rect")]
    named = {text.text: float(text.get("x")) for text in figure.iter("text")}
    assert [named["2"], named["4"]] == pytest.approx(middles, abs=0.2)
    (outline,) = figure.iter("path")
    tops = [float(y) for y in re.findall(r"V([\d.]+)H", outline.get("d"))]
    assert tops[0] == tops[2] < tops[1] == charts.HEIGHT - charts.LOWER


@given(st.floats(0.01, 1.5))
def test_a_bar_is_as_long_as_its_share(share):
    drawing = checked(charts.bar(share), charts.SPAN_WIDTH, charts.SPAN_HEIGHT)
    ground, part = (float(rect.get("width")) for rect in drawing.iter("rect"))
    assert part / ground == pytest.approx(min(1, share), abs=1e-3)


@EACH
@given(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.integers(0, 20))
def test_intervals_stay_inside(low, value, high, colour):
    drawing = checked(interval(low, value, high, colour), charts.SPAN_WIDTH, charts.SPAN_HEIGHT)
    left, right = map(float, re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", drawing.find("path").get("d"))[0])
    assert all(charts.SPAN_MARGIN <= end <= charts.SPAN_WIDTH - charts.SPAN_MARGIN for end in (left, right))
