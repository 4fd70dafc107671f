"""A trainer that scores what it is handed, one JSON line each, and says what its world looks like afterwards.

A process of its own: an answer that kills its parent kills this one and not the test. Orphans of its descendants
come back to it (Linux's child subreaper), so that whatever outlives an answer is found among its children.
"""

import ctypes
import json
import os
import sys
import time
import warnings
from pathlib import Path

SUBREAPER = 36
TEST_SECONDS = 2.0
GRACE_SECONDS = 2.0
"""How long a killed process may take to be gone on a busy machine."""


def living(ancestor: int) -> dict[int, str]:
    """Every living descendant of a process, and its command line."""
    parents, found = {}, {ancestor}
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if fields and fields[0] not in "ZX":
            parents[int(entry.name)] = int(fields[1])
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return {process: command(process) for process in found - {ancestor}}


def command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return ""


def own_state() -> dict[str, object]:
    """What an answer must not change in the trainer."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "umask": mask,
        "niceness": os.nice(0),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def main() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    answers, os.environ["READY"] = os.fdopen(os.dup(1), "w"), "1"
    os.dup2(2, 1)  # whatever a sandbox lets through is no answer of ours
    from pipelines.rewards.code import judge_code, read_test
    from pipelines.sandbox.base import Limits

    def score_of(completion: str, tests: list[object]) -> float:
        """`score_code`, but with a shorter clock: many answers are ended by it."""
        verdicts = judge_code(completion, [read_test(test) for test in tests], Limits(test_seconds=TEST_SECONDS))
        return sum(verdicts.passed) / len(tests) if verdicts else 0.0

    warnings.simplefilter("error")
    score_of("```python\ndef one():\n    return 1\n```", ["assert one() == 1"])
    served, before = set(living(os.getpid())), own_state()  # a sandbox may keep a server of its own
    for line in sys.stdin:
        entry = json.loads(line)
        start = time.monotonic()
        score = score_of(entry["completion"], entry["tests"])
        seconds = time.monotonic() - start
        end = time.monotonic() + GRACE_SECONDS
        while len(left := living(os.getpid())) > len(served) and time.monotonic() < end:
            time.sleep(0.02)
        changed = {name: value for name, value in own_state().items() if value != before[name]}
        new = {process: name for process, name in left.items() if process not in served}
        left = new if len(left) > len(served) else {}
        print(
            json.dumps({"score": score, "seconds": seconds, "left": left, "changed": changed}), file=answers, flush=True
        )


if __name__ == "__main__":
    main()
