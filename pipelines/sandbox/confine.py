"""From a fork of the server to a confined worker: keeper, first process of the namespaces, and the worker itself.

keeper: leads a process group, makes the namespaces, dies with the server.
init: the first process in them, dies with the keeper and takes all others with it; builds the view; tells how the
worker ended. The worker gives up everything it can before it starts, says "ready", and then runs foreign code.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pipelines.sandbox import kernel, landlock, seccomp, view

NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
NOBODY = 65534
STACK_BYTES = 64 << 20
OPEN_FILES = 128
PROCESSES = 64
MEGABYTE = 1 << 20
LINUX = sys.platform == "linux"
READY, FAILED, ENDED = b"ready\n", b"failed ", b"ended "


@dataclass(frozen=True)
class Layers:
    """Which means of isolation to use; found by `isolation`, sent to the server."""

    namespaces: str = ""
    """"" for none, "user" through a user namespace, "root" with the privileges of root, which are then given up."""
    view: bool = False
    seccomp: bool = False
    landlock: bool = False
    capabilities: bool = False


@dataclass(frozen=True)
class Bounds:
    """Resource limits of one worker, and how many processes its user has already."""

    memory_mb: int
    cpu_seconds: int
    file_mb: int
    others: int = 0


@dataclass
class Order:
    """One worker to be made: what holds it, what it may keep open, and what it does."""

    layers: Layers
    bounds: Bounds
    status: int
    keep: Sequence[int]
    work: Callable[[], int]
    directory: str = ""
    """Its private directory where there is no view of its own."""
    sources: list[str] = field(default_factory=list[str])


class _Final(contextlib.AbstractContextManager[None]):
    """A process ends with this block, whatever happens in it; what went wrong is told on the status descriptor."""

    def __init__(self, status: int) -> None:
        self.status = status

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> NoReturn:
        if error is not None:
            with contextlib.suppress(OSError):
                os.write(self.status, FAILED + f"{type(error).__name__}: {error}".encode()[:400] + b"\n")
        os._exit(1 if error else 0)


def keep(order: Order, server: int) -> None:
    """Be the keeper; called in a fresh fork of the server, never returns."""
    with _Final(order.status):
        os.setsid()
        if LINUX:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            kernel.die_with_parent()
            if os.getppid() != server:
                return
        close_others([order.status, *order.keep])
        if not order.layers.namespaces:
            _be_init(order)
            return
        _enter_namespaces(order.layers)
        first = os.fork()
        if first == 0:
            with _Final(order.status):
                kernel.die_with_parent()
                _be_init(order)
        close_others([])
        os.waitpid(first, 0)


def _enter_namespaces(layers: Layers) -> None:
    user, group = os.geteuid(), os.getegid()
    if layers.namespaces == "root":
        kernel.unshare(NAMESPACES)
        return
    kernel.unshare(NAMESPACES | kernel.CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    _write("/proc/self/gid_map", f"{NOBODY} {group} 1")


def _be_init(order: Order) -> None:
    """Build the view, start the worker, wait for it, tell how it ended."""
    layers = order.layers
    if layers.namespaces:
        socket.sethostname("sandbox")
        if layers.view:
            view.enter(order.sources, order.bounds.file_mb)
    if LINUX:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    init = os.getpid()
    worker = os.fork()
    if worker == 0:
        _be_worker(order, init)
    close_others([order.status])
    while True:
        ended, code, used = os.wait4(-1, 0)
        if ended == worker:
            break
    cpu = used.ru_utime + used.ru_stime
    killer = os.WTERMSIG(code) if os.WIFSIGNALED(code) else 0
    status = 0 if killer else os.WEXITSTATUS(code)
    os.write(order.status, ENDED + f"{killer} {status} {cpu:.2f}\n".encode())


def _be_worker(order: Order, init: int) -> NoReturn:
    """Give up what can be given up, then do the work; ends with the exit status of the work."""
    code = 1
    with _Final(order.status):
        if LINUX:
            kernel.die_with_parent()
            if os.getppid() != init:
                os._exit(1)
        _be_nobody(order)
        _limit(order)
        _restrict(order)
        os.write(order.status, READY)
        os.close(order.status)
        order.status = -1
        code = order.work()
        os._exit(code)
    raise AssertionError("not reached")


def _be_nobody(order: Order) -> None:
    if order.layers.namespaces == "root":
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.die_with_parent()  # a change of user clears it
    if not order.layers.view and order.directory:
        os.chdir(order.directory)
        os.environ["HOME"] = os.environ["TMPDIR"] = order.directory


def _limit(order: Order) -> None:
    """Resource limits; those the system does not know, or sets lower already, are left."""
    bounds = order.bounds
    processes = 4 * PROCESSES if order.layers.seccomp else PROCESSES
    wanted = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (bounds.cpu_seconds, bounds.cpu_seconds + 1),
        resource.RLIMIT_FSIZE: (bounds.file_mb * MEGABYTE,) * 2,
        resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES),
        resource.RLIMIT_NPROC: (bounds.others + processes,) * 2,
        resource.RLIMIT_STACK: (STACK_BYTES, STACK_BYTES),
    }
    if LINUX:
        wanted[resource.RLIMIT_AS] = (_address_space() + bounds.memory_mb * MEGABYTE,) * 2
        wanted |= {resource.RLIMIT_MEMLOCK: (0, 0), resource.RLIMIT_MSGQUEUE: (0, 0)}
    for which, (soft, hard) in wanted.items():
        most = resource.getrlimit(which)[1]
        unlimited = most == resource.RLIM_INFINITY
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (soft if unlimited else min(soft, most), hard if unlimited else min(hard, most)))


def _restrict(order: Order) -> None:
    layers = order.layers
    if not LINUX:
        return
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if layers.capabilities:
        kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if layers.landlock:
        scratch = view.SCRATCH if layers.view else order.directory
        landlock.restrict([*order.sources, *view.DEVICES], [item for item in (scratch, "/dev/null") if item])
    if layers.seccomp:
        seccomp.install()


def close_others(keep_open: Sequence[int]) -> None:
    """Close every descriptor but the standard three and these."""
    last = 2
    for descriptor in sorted(item for item in keep_open if item > 2):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, 1 << 16)


def _address_space() -> int:
    """Bytes of address space that this process has now."""
    return ADDRESS_SPACE or _measure()


def _measure() -> int:
    with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
        return int(stream.read().split()[0]) * resource.getpagesize()


ADDRESS_SPACE = 0
"""Measured by the server once, since a view has no /proc."""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def kill_all(keepers: Sequence[int]) -> None:
    """End every process below this one, whatever it calls itself, and wait until none is left."""
    for keeper in keepers:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(keeper, signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, os.WNOHANG if (stray := _children()) else 0)
        except ChildProcessError:
            return
        for child in stray:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)


def _children() -> list[int]:
    """Pids of processes whose parent this is; needs /proc."""
    found: list[int] = []
    own: Any = os.getpid()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", encoding="latin-1") as stream:  # noqa: PTH123
                    state, parent = stream.read().rpartition(")")[2].split()[:2]
                    if int(parent) == own and state != "Z":
                        found.append(int(name))
    return found
