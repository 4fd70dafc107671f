"""Landlock: which files a process may touch, decided by the process itself and kept by the kernel.

Source: Documentation/userspace-api/landlock.rst (ABI 1-6); newer kernels are asked for what ABI 6 knows.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

from pipelines.sandbox import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY, TRUNCATE = 1, 2, 4, 8, 1 << 14
RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NETWORK, SCOPES = 0b11, 0b11
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | 1 << 15
ASK_VERSION, PATH_BENEATH = 1, 1


def abi() -> int:
    """The kernel's version of Landlock. OSError where it has none or it is turned off."""
    return kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, 0, 0, ASK_VERSION)


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """From here on only these trees; no TCP from ABI 4 on, no signals and abstract sockets outside from ABI 6 on."""
    version = abi()
    handled = RIGHTS_OF_ABI[min(version, 5)]
    attributes = struct.pack("=QQQ", handled, NETWORK * (version >= 4), SCOPES * (version >= 6))
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    memory = ctypes.create_string_buffer(attributes, len(attributes))
    rules = kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, ctypes.addressof(memory), size, 0)
    try:
        for path in readable:
            _allow(rules, path, handled & (EXECUTE | READ_FILE | READ_DIRECTORY))
        for path in writable:
            _allow(rules, path, handled & ~EXECUTE)
        kernel.syscall(kernel.LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    """A path that is not there needs no rule."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - the standard library's path, without pathlib's start-up cost
            rights &= FILE_RIGHTS
        memory = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        kernel.syscall(kernel.LANDLOCK_ADD_RULE, rules, PATH_BENEATH, ctypes.addressof(memory), 0)
    finally:
        os.close(descriptor)
