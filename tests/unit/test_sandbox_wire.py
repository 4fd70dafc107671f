"""The wire between candidate and judge: plain data there and back, and nothing that no honest side would say."""

import json
import os
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest

from pipelines.sandbox import wire


class NoHooks:
    def encode_other(self, value, encoder, depth):
        raise wire.WireError("no plain data")

    def decode_other(self, tag, body, decoder, depth):
        raise wire.WireError(f"unknown tag {tag!r}")


def there_and_back(value):
    sent = json.loads(json.dumps(wire.Encoder(NoHooks()).encode(value)))
    return wire.Decoder(NoHooks()).decode(sent)


VALUES = [
    None, True, 0, -(2**62), 2**4000, 0.1, -0.0, float("inf"), 1 + 2j, "", "ok \U0001f600 \ud800", b"\x00\xff", [], (),
    [1, [2, (3, {4})], {"a": (5,)}], {(1, 2): [3]}, {1, 2}, frozenset({"x"}), bytearray(b"ab"), deque([1, 2], 5),
    Counter("aab"), OrderedDict(b=1, a=2), defaultdict(None, {1: 2}), Fraction(1, 3), Decimal("1.50"), range(1, 9, 2),
    slice(1, None, 2), date(2024, 2, 29), datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    time(1, 2, 3), timedelta(days=-1, microseconds=5), ...,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_data_comes_back_as_it_was(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_aliases_and_cycles_survive():
    shared = [1]
    back = there_and_back([shared, shared])
    assert back[0] is back[1]
    shared.append(shared)
    back = there_and_back(shared)
    assert back[1] is back


@pytest.mark.parametrize(
    "make", [lambda: 1 << (wire.LARGEST_BITS + 1), lambda: nested(wire.DEEPEST + 5)], ids=["large", "deep"]
)
def test_what_is_too_large_is_not_sent(make):
    with pytest.raises(wire.WireError):
        wire.Encoder(NoHooks()).encode(make())


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: list[object] = [
    {}, [], [1], [[]], ["nothing"], ["l"], ["l", 5, []], ["l", 0, 7], ["l", 0, {"a": 1}], ["r", 0], ["r", -1],
    ["r", True],
    ["i", "zz"], ["i", 5], ["t", 5], ["b", "\u1234"], ["fr", 1, 0], ["fr", 1, "a"],
    ["de", "x"], ["dt", 1], ["da", 0, 0, 0],
    ["d", 0, [[1]]], ["d", 0, [[["l", 1, []], 1]]], ["s", 0, [["l", 1, []]]], ["f", [["l", 0, []]]], ["q", 0, [], "x"],
    ["ra", 1, 2, 0], ["k", "os", "system"], ["z", "a", "b"], ["vi", [1]], ["__reduce__", "os.system"],
]  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE, ids=str)
def test_nonsense_is_refused(message):
    with pytest.raises(wire.WireError):
        wire.Decoder(NoHooks()).decode(message)


def test_depth_is_bounded_before_the_stack_is():
    message = "x"
    for _ in range(400):
        message = ["t", [message]]
    with pytest.raises(wire.WireError):
        wire.Decoder(NoHooks()).decode(message)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{]", b"\x00\x00\x10\x00" + b"[" * 4096, b"\x00\x00\x00\x01\xff"],
    ids=["too long", "no JSON", "deep JSON", "no text"],
)
def test_a_bad_frame_is_refused(data):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with pytest.raises(wire.WireError):
        wire.read_frame(reader, 1 << 20)
    os.close(reader)


def test_a_cut_frame_is_the_end():
    reader, writer = os.pipe()
    os.write(writer, b"\x00\x00\x00\x09[1,")
    os.close(writer)
    with pytest.raises(EOFError):
        wire.read_frame(reader, 1 << 20)
    os.close(reader)


def test_changes_are_seen_by_identity():
    container = [1, [2]]
    before = wire.snapshot(container)
    assert wire.unchanged(container, before)
    container[1] = [2]
    assert not wire.unchanged(container, before)
