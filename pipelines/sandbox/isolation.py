"""Which layers hold on this machine: each is tried in a throw-away process, and what works is used.

strong: namespaces (user or root's, mount, pid, net, ipc, uts), seccomp, and a private view of the files or Landlock.
medium: seccomp, Landlock or a network namespace on top of basic (on macOS: sandbox-exec).
basic: resource limits, scrubbed environment, closed descriptors, private directory, process group.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipelines.errors import SandboxError
from pipelines.sandbox.base import LEVELS, Level
from pipelines.sandbox.client import Client, Lines, borrowed
from pipelines.sandbox.confine import Bounds, Layers

PROBE_SECONDS = 10.0
PROBE_BOUNDS = Bounds(memory_mb=512, cpu_seconds=10, file_mb=4)
SIGSYS = 31
ALWAYS = "resource limits, scrubbed environment, closed descriptors, private directory"


class TooWeakError(SandboxError):
    """Less isolation than was asked for: nothing to try again."""


@dataclass(frozen=True)
class Isolation:
    """The level, and what each layer is or why it is not used."""

    level: Level
    layers: dict[str, str]
    plan: Layers = field(default=Layers())


_found: dict[tuple[int, int], Isolation] = {}


def available() -> Isolation:
    """What this machine offers this user; tried once a process. SandboxError if not even a process can be made."""
    key = (os.getpid(), os.geteuid())
    if key not in _found:
        with borrowed() as client:
            _found[key] = _look(client)
    return _found[key]


def at_least(minimum: Level) -> Isolation:
    """What is available; TooWeakError below `minimum`."""
    found = available()
    if LEVELS.index(found.level) < LEVELS.index(minimum):
        missing = "; ".join(f"{name}: {state}" for name, state in found.layers.items() if state.startswith("no"))
        raise TooWeakError(
            f"isolation here is {found.level!r}, {minimum!r} is asked for ({missing})",
            hint="run where user namespaces and seccomp are allowed, or lower min_isolation",
        )
    return found


def reduced(level: Level) -> Isolation:
    """What is available, less what would lift it above `level`: to try the lower levels where higher ones work."""
    found = available()
    if LEVELS.index(found.level) <= LEVELS.index(level):
        return found
    plan = replace(found.plan, namespaces="", view=False)
    if level == "basic":
        plan = Layers(capabilities=found.plan.capabilities)
    layers = dict.fromkeys(found.layers, "left out on request") | {"limits": ALWAYS}
    return Isolation(level, layers, plan)


def _look(client: Client) -> Isolation:
    if sys.platform == "darwin":
        state = {"sandbox-exec": "no network, no writes outside, no signals", "limits": ALWAYS}
        return Isolation("medium", state, Layers())
    layers: dict[str, str] = {}
    plan = Layers()
    for name, wanted, checks, promise in (
        ("capabilities", Layers(capabilities=True), ["imports", "powerless"], "none left"),
        ("landlock", Layers(landlock=True), ["imports", "locked"], "only Python's library and a private directory"),
        ("seccomp", Layers(seccomp=True), ["imports", "filtered"], "no processes, sockets, signals, kernel interfaces"),
    ):
        trouble = _try(client, wanted, checks)
        layers[name] = f"no: {trouble}" if trouble else promise
        plan = plan if trouble else replace(plan, **{name: True})
    for candidate, words in _with_namespaces(plan):
        checks = ["imports", "alone", *(["enclosed"] if candidate.view else [])]
        trouble = _try(client, candidate, checks + (["filtered"] if candidate.seccomp else ["no network"]))
        layers["namespaces"] = f"no: {trouble}" if trouble else words
        if not trouble:
            plan = candidate
            break
    layers["limits"] = ALWAYS
    return Isolation(_level(plan), layers, plan)


def _with_namespaces(plan: Layers) -> Iterator[tuple[Layers, str]]:
    """The plans to try, best first."""
    kinds = ("root", "user") if os.geteuid() == 0 else ("user",)
    for view in (True, False):
        for kind in kinds:
            words = (
                f"{kind}, mount, pid, net, ipc, uts" if kind == "user" else "mount, pid, net, ipc, uts, made by root"
            )
            yield replace(plan, namespaces=kind, view=view), words + ("; private view of the files" if view else "")


def _level(plan: Layers) -> Level:
    if plan.namespaces and plan.seccomp and (plan.view or plan.landlock):
        return "strong"
    return "medium" if plan.namespaces or plan.seccomp or plan.landlock else "basic"


def _try(client: Client, layers: Layers, checks: list[str]) -> str:
    """Run a throw-away worker under these layers; empty if all checks came out as they should, else what did not."""
    reader, writer = os.pipe()
    try:
        try:
            client.make("probe", layers, PROBE_BOUNDS, [writer], checks=checks)
        finally:
            os.close(writer)
        lines = Lines(reader)
        until = time.monotonic() + PROBE_SECONDS
        said: list[str] = []
        while (line := lines.next(until)) is not None:
            said.append(line)
    finally:
        with contextlib.suppress(OSError):
            os.close(reader)
    client.end()
    return _reading(said, filtered="filtered" in checks)


def _reading(said: list[str], *, filtered: bool) -> str:
    if said[:1] == ["ready"] and len(said) == 2 and said[1].startswith("ended "):
        killer, status = map(int, said[1].split()[1:3])
        if (killer == SIGSYS) if filtered else (killer == 0 and status == 0):
            return ""
        return f"a check failed (signal {killer}, status {status})"
    return said[-1].removeprefix("failed ") if said else "no answer"
