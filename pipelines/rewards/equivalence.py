"""Whether two formulas mean the same, asked of the package math-verify in a process of its own.

The process is started when there is first something to ask, and again when it has died of a question.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import cache, lru_cache
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from pipelines.errors import RewardError
from pipelines.rewards.answers import marked, wanted_number
from pipelines.rewards.equivalence_process import PACKAGE, READY
from pipelines.rewards.formulas import formula, is_worked
from pipelines.rewards.spelling import plain

START_SECONDS = 60.0
ANSWER_SECONDS = 60.0
"""By the clock, for a machine that is busy with other things; the processor's time is limited to much less."""

LONGEST_SECONDS = START_SECONDS + ANSWER_SECONDS

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pipelines.rewards.equivalence_process import main; main()"
)


def _there(use: str) -> str:
    if use == "always" and not is_installed():
        raise ValueError("math-verify is not installed: `pip install math-verify`, or auto to do without")
    return use


MathVerify = Annotated[Literal["auto", "always", "never"], AfterValidator(_there)]
"""Whether formulas are compared by math-verify: where it is installed, with an error where it is not, or not."""


@cache
def is_installed() -> bool:
    return find_spec(PACKAGE) is not None


def asked(use: MathVerify) -> bool:
    """Whether math-verify is asked under this setting, here."""
    return use == "always" or (use == "auto" and is_installed())


def same_formula(answer: str, reference: str, prompt: str = "") -> bool:
    """Whether an answer that is a formula as a whole, or as a whole marked, means what the reference does.

    False where the reference is a number, which is compared exactly elsewhere, where the answer stands in the prompt
    (repeating what is to be worked out is no answer), and where the formula is none that may be computed with.
    """
    wanted = formula(marked(reference) or reference)
    if wanted is None or not is_worked(wanted) or wanted_number(reference) is not None:
        return False
    given = marked(answer) or answer
    found = formula(given)
    if found is None or (is_worked(found) and plain(given) in plain(prompt)):
        return False
    return remembered(wanted, found)


@lru_cache(maxsize=4096)
def remembered(reference: str, answer: str) -> bool:
    """What was said of a pair; the completions of a group often give the same answer."""
    return JUDGE.ask(reference, answer)


class Judge:
    """The end that asks. Safe to share between threads; they take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def ask(self, reference: str, answer: str) -> bool:
        """The verdict; False where it would take too long, or too much memory."""
        with self._lock:
            connection = self._connection
            if self._process is None or self._process.poll() is not None or connection is None:
                connection = self._started()
            try:
                connection.send_bytes(json.dumps([reference, answer]).encode())
                if connection.poll(ANSWER_SECONDS):
                    return bool(json.loads(connection.recv_bytes()))
            except (EOFError, ConnectionError):
                pass  # the kernel ended it
            self._end()
            return False

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._end()

    def _started(self) -> Connection[Any, Any]:
        self._end()
        ours, theirs = Pipe()
        self._connection = ours
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(sys.path), str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=2,
            env={**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()
        try:
            if ours.poll(START_SECONDS) and ours.recv_bytes() == READY:
                return ours
        except (EOFError, ConnectionError):
            pass
        self._end()
        raise RewardError(
            "math-verify does not start; what it said is above",
            hint="`pip install math-verify` again, or set math_verify: never for exact_match",
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


JUDGE = Judge()
atexit.register(JUDGE.close)
