"""A test on standard input and output: the solution runs as a program, and what it prints is compared here."""

import contextlib
import json
import os
import select
import time

from pipelines.sandbox.base import StdioTest
from pipelines.sandbox.client import Lines
from pipelines.sandbox.workers import Answer, Ended, anonymous_file, await_ready, how_it_ended

CHUNK_BYTES = 1 << 16
KEPT_ERROR_BYTES = 4096
SETTLED_SECONDS = 1.0
TOO_LATE = "no time left for this test"


class Stream:
    """What comes out of a pipe: all of it up to a limit, or the last of it."""

    def __init__(self, most: int, *, tail: bool = False) -> None:
        self.most, self.tail = most, tail
        self.kept = bytearray()
        self.full = self.ended = False

    def take(self, descriptor: int) -> None:
        part = os.read(descriptor, CHUNK_BYTES)
        self.ended = not part
        self.kept += part
        if len(self.kept) > self.most:
            self.full = not self.tail
            del self.kept[: -self.most]

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


def run(answer: Answer, test: StdioTest) -> str:
    """Empty if the program ended well and printed what it should; else why not."""
    until = min(answer.until, time.monotonic() + answer.limits.test_seconds)
    if time.monotonic() >= answer.until:
        return TOO_LATE
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(anonymous_file(json.dumps(answer.solution).encode()))
        given = stack.enter_context(anonymous_file(test.input.encode("utf-8", "surrogatepass")))
        (status, status_end), (out, out_end), (err, err_end) = (os.pipe() for _ in range(3))
        for reader in (status, out, err):
            stack.callback(os.close, reader)
        try:
            answer.make("program", [status_end, source.fileno(), given.fileno(), out_end, err_end])
        finally:
            for writer in (status_end, out_end, err_end):
                os.close(writer)
        stack.callback(answer.client.end)
        lines = Lines(status)
        await_ready(lines)
        printed, complained = Stream(answer.limits.output_kb << 10), Stream(KEPT_ERROR_BYTES, tail=True)
        ended = _watch(lines, {out: printed, err: complained}, until)
        if printed.full:
            return f"printed more than {answer.limits.output_kb} KiB"
        if ended is None:
            return f"timed out after {answer.limits.test_seconds:g} s"
        answer.accuse(ended, "the program")
        return _verdict(ended, printed.text(), complained.text(), test)


def _watch(lines: Lines, streams: dict[int, Stream], until: float) -> Ended | None:
    """Read until the program has ended and its pipes are empty; None if that takes too long or prints too much.

    Whoever else holds the pipes open after the end is not waited for.
    """
    ended: Ended | None = None
    while True:
        wanted = [descriptor for descriptor, stream in streams.items() if not stream.ended]
        watched = wanted if ended else [*wanted, lines.descriptor]
        ready, _, _ = select.select(watched, [], [], 0.0 if ended else max(0.0, until - time.monotonic()))
        if not ready:
            return ended
        for descriptor in ready:
            if descriptor in streams:
                streams[descriptor].take(descriptor)
            else:
                ended = how_it_ended(lines, SETTLED_SECONDS)
        if any(stream.full for stream in streams.values()):
            return None


def _verdict(ended: Ended, printed: str, complained: str, test: StdioTest) -> str:
    if ended.signal or ended.status or ended.lost:
        last = complained.strip().splitlines()[-1:] or [""]
        return f"exit status {ended.status}{ended.words()}: {last[0]}".rstrip(": ")[:300]
    if normalised(printed) == normalised(test.expected):
        return ""
    return f"printed {printed.strip()[:120]!r}, expected {test.expected.strip()[:120]!r}"


def normalised(text: str) -> list[str]:
    """Lines without white space at their ends, and without blank lines at the end of the text."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
