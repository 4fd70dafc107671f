"""A process that compares formulas with math-verify, one pair after the other.

Every pair has CPU_SECONDS of the processor's time, whatever else the machine does; then the kernel ends the process,
also in the middle of a multiplication. Of math-verify's readers only the one of LaTeX is used, a grammar; the other,
for plain expressions, hands them to Python's `eval`. The grammar does so with single numbers, since that is how sympy
reads them, and `refuse` lets nothing else through.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

CPU_SECONDS = 3.0
MEMORY_BYTES = 2 << 30
EVALUATED = re.compile(
    r"from sympy import \*|E\s*|(?:Integer|Float|Symbol) ?\('?\w[\w.]*'? ?\)\s*|def monomial_[\w\s(),:=+*<>-]*"
)
"""What sympy makes of single numbers and names, and of how many unknowns there are."""
FORBIDDEN = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "socket.", "subprocess.")
READY = b"ready"
PACKAGE = "math_verify"


def main() -> None:
    """Argument: descriptor of the socket. It ends when the other end closes, or with the question it is at."""
    channel = int(sys.argv[-1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable()
    same("x+1", "1+x")  # what it has to import
    sys.addaudithook(refuse)
    with Connection(channel) as connection:
        connection.send_bytes(READY)
        while True:
            try:
                reference, answer = json.loads(connection.recv_bytes())
            except (EOFError, ConnectionError):
                return
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            try:
                verdict = same(reference, answer)
            except (MemoryError, RecursionError):
                verdict = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(json.dumps(verdict).encode())


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: PermissionError for text compiled as Python that is not EVALUATED, and for other programs."""
    if event == "compile":
        source, name = arguments
        text = source.decode() if isinstance(source, bytes) else source
        allowed = not isinstance(text, str) or not str(name).startswith("<") or bool(EVALUATED.fullmatch(text))
    else:
        allowed = not event.startswith(FORBIDDEN)
    if not allowed:
        raise PermissionError(event)


def same(reference: str, answer: str) -> bool:
    """Whether math-verify takes two formulas in LaTeX for the same; what it cannot read is the same as nothing."""
    return bool(import_module(PACKAGE).verify(_read(reference), _read(answer), timeout_seconds=None))


@lru_cache(maxsize=256)
def _read(latex: str) -> list[Any]:
    package = import_module(PACKAGE)
    reader = package.LatexExtractionConfig()
    # The clock is the kernel's: math-verify's own is an alarm, which only a main thread may set.
    return package.parse(f"${latex}$", [reader], fallback_mode="no_fallback", parsing_timeout=None)
