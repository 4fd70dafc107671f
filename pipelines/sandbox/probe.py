"""What a throw-away worker tries, to see whether a set of layers holds and leaves the standard library usable."""

import ctypes
import importlib
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

UNLOADED = ("colorsys", "sched", "html.entities")
"""Modules of the standard library that nothing has imported yet."""


def check(checks: list[str]) -> int:
    """0 if all that is asked for is so; SIGSYS where a filter ends the process, as it should."""
    for name in checks:
        if not CHECKS[name]():
            return 2 + list(CHECKS).index(name)
    return 0


def imports() -> bool:
    """Pure modules and extension modules can be imported, a thread can run, a file can be written."""
    for name in UNLOADED:
        importlib.import_module(name)
    for folder in sys.path:
        for extension in sorted(Path(folder).glob("lib-dynload/*.so"))[:1]:
            ctypes.CDLL(str(extension), mode=os.RTLD_LAZY)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    with tempfile.TemporaryFile(dir=os.getcwd()) as stream:  # noqa: PTH109
        return stream.write(b"x") == 1


def alone() -> bool:
    """No process of others can be seen or signalled."""
    return os.getpid() < 10 and os.getppid() <= 1


def enclosed() -> bool:
    """The file system of the trainer is out of sight."""
    return not any(Path(name).exists() for name in ("/etc/passwd", "/proc/1", "/sys/kernel", "/home"))


def no_network() -> bool:
    """There is no way out: not even the loopback device answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) != 0


def filtered() -> bool:
    """A forbidden call ends the process before it returns."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    return False


def locked() -> bool:
    """Files outside the allowed trees cannot be opened."""
    try:
        os.listdir("/")  # noqa: PTH208
    except PermissionError:
        return True
    return False


def powerless() -> bool:
    """No capability is left; /proc may be out of sight, then asking for one must fail."""
    try:
        os.setgroups([1])
    except PermissionError:
        return True
    return False


CHECKS = {
    "imports": imports, "alone": alone, "enclosed": enclosed, "no network": no_network, "locked": locked,
    "powerless": powerless, "filtered": filtered,
}  # fmt: skip
