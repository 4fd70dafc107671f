"""Runs the tests of one answer: starts candidate and judge, keeps the clock, collects verdicts, leaves nothing behind.

A test passes only if the judge says so, in time. What ends a candidate or the clock fails the test at hand; the tests
after it get a fresh candidate, as long as the answer's time lasts. A failure of the sandbox itself is a SandboxError.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.errors import SandboxError
from pipelines.sandbox import programs
from pipelines.sandbox.base import Limits, StdioTest, Test, Verdicts
from pipelines.sandbox.client import Lines, borrowed
from pipelines.sandbox.isolation import Isolation, available
from pipelines.sandbox.workers import READY_SECONDS, Answer, await_ready, how_it_ended

GRACE_SECONDS = 0.3
KINDS = {"AssertTest": "assert", "CallTest": "call", "CheckTest": "check"}


@dataclass
class Session:
    """A candidate and its judge, as the trainer sees them."""

    judge: Lines
    judge_status: Lines
    candidate_status: Lines


def run_tests(
    solution: str, tests: Sequence[Test], limits: Limits | None = None, *, isolation: Isolation | None = None
) -> Verdicts:
    """Every test's verdict. Raises SandboxError if isolation could not be set up or was taken down from outside."""
    limits, isolation = limits or Limits(), isolation or available()
    start = time.monotonic()
    reasons: dict[int, str] = {}
    judged = [place for place, test in enumerate(tests) if not isinstance(test, StdioTest)]
    with borrowed() as client:
        answer = Answer(client, solution, limits, isolation, start + limits.total_seconds)
        for place, test in enumerate(tests):
            if isinstance(test, StdioTest):
                reasons[place] = programs.run(answer, test)
        while judged:
            said = _judge_some(answer, [tests[place] for place in judged])
            reasons.update(zip(judged, said, strict=False))
            judged = judged[len(said) :]
    ordered = tuple(reasons[place] for place in range(len(tests)))
    return Verdicts(tuple(not reason for reason in ordered), ordered, isolation.level, time.monotonic() - start)


def _judge_some(answer: Answer, tests: list[Test]) -> list[str]:
    """Reasons for at least the first of these tests: one candidate's worth of them."""
    if time.monotonic() >= answer.until:
        return [programs.TOO_LATE] * len(tests)
    order = {
        "source": answer.solution,
        "limit": answer.limits.message_kb << 10,
        "tests": [{"kind": KINDS[type(test).__name__]} | asdict(test) for test in tests],
    }
    with _started(answer) as (session, verdicts):
        try:
            verdicts.settimeout(READY_SECONDS)
            verdicts.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            raise SandboxError(f"the judge took no order: {error}", hint="it was killed from outside") from error
        return _collect(answer, session, len(tests))


def _collect(answer: Answer, session: Session, count: int) -> list[str]:
    reasons: list[str] = []
    loaded = _verdict(answer, session)
    if not isinstance(loaded, dict):
        return [f"loading: {loaded}"] * count
    if not loaded["loaded"]:
        why = _death(answer, session, loaded) if loaded["gone"] else loaded["reason"]
        return [f"the solution did not load: {why}"] * count
    while len(reasons) < count:
        verdict = _verdict(answer, session)
        if not isinstance(verdict, dict):
            return [*reasons, verdict]
        if verdict["test"] != len(reasons):
            raise SandboxError("the judge skipped a test", hint="this is a bug of the sandbox")
        if verdict["gone"]:
            return [*reasons, _death(answer, session, verdict)]
        reasons.append("" if verdict["passed"] is True else verdict["reason"] or "failed")
    return reasons


def _verdict(answer: Answer, session: Session) -> dict[str, Any] | str:
    """The judge's next word, or why there is none. SandboxError if the judge was ended by nobody here."""
    allowed = min(answer.until, time.monotonic() + answer.limits.test_seconds)
    line = session.judge.next(allowed)
    if line is not None:
        return json.loads(line)
    if not session.judge.ended:
        late = f"after {answer.limits.test_seconds:g} s" if allowed < answer.until else "with all tests of the answer"
        return f"timed out {late}"
    ended = how_it_ended(session.judge_status, READY_SECONDS)
    if ended.killed_from_outside(answer.limits):
        raise SandboxError("the judge was killed from outside", hint="memory may have run out")
    return "the test ended its judge: out of memory, or by exiting"


def _death(answer: Answer, session: Session, verdict: dict[str, Any]) -> str:
    """What the judge says of a candidate that is gone, and how it ended where that can be told."""
    ended = how_it_ended(session.candidate_status, GRACE_SECONDS)
    answer.accuse(ended, "the candidate")
    return f"{verdict['reason']}{ended.words()}"


@contextlib.contextmanager
def _started(answer: Answer) -> Iterator[tuple[Session, socket.socket]]:
    """A pair that has said it is ready; both are dead and reaped afterwards."""
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        (judge, judge_end), (candidate, candidate_end) = os.pipe(), os.pipe()
        for reader in (judge, candidate):
            stack.callback(os.close, reader)
        with theirs:
            try:
                answer.make("pair", [judge_end, theirs.fileno(), candidate_end])
            finally:
                os.close(judge_end)
                os.close(candidate_end)
        stack.callback(answer.client.end)
        session = Session(Lines(ours.fileno()), Lines(judge), Lines(candidate))
        for status in (session.judge_status, session.candidate_status):
            await_ready(status)
        yield session, ours
