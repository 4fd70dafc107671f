"""System calls that Python does not wrap, by number and through libc; each failure is an OSError.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.
"""

import contextlib
import ctypes
import os
import platform
import sys

CLONE_THREAD = 0x00010000
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 22, 36, 38

ARCHITECTURES = {"x86_64": 0, "amd64": 0, "aarch64": 1, "arm64": 1}
ARCHITECTURE = ARCHITECTURES.get(platform.machine().lower()) if sys.platform == "linux" else None
"""Column of every table of numbers; None where no table is known."""

PIVOT_ROOT, CAPSET = (155, 41), (126, 91)
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = (444, 444), (445, 445), (446, 446)

_LIBC = ctypes.CDLL(None, use_errno=True)
_LONG = ctypes.c_long


def syscall(numbers: tuple[int, int], *arguments: object) -> int:
    """One raw call; `numbers` is the pair (x86-64, aarch64)."""
    if ARCHITECTURE is None:
        raise OSError(38, "no table of system calls for this machine")
    _LIBC.syscall.restype = _LONG
    result = _LIBC.syscall(_LONG(numbers[ARCHITECTURE]), *(_long(item) for item in arguments))
    return _checked(result, f"system call {numbers[ARCHITECTURE]}")


def prctl(option: int, *arguments: object) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return _checked(_LIBC.prctl(ctypes.c_int(option), *(_long(item) for item in padded)), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = [item.encode() if item else None for item in (source, target, kind)]
    result = _LIBC.mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None)
    _checked(result, f"mount {source} on {target}")


def detach(target: str) -> None:
    """Unmount lazily: gone from the tree at once, freed when nobody uses it."""
    _checked(_LIBC.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def die_with_parent() -> None:
    """SIGKILL for this process as soon as the thread that forked it ends."""
    prctl(PR_SET_PDEATHSIG, 9)


def drop_capabilities() -> None:
    """No capability of any kind, and none to be had again."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # EPERM: has none to lose; EINVAL: past the last
            prctl(PR_CAPBSET_DROP, capability)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscall(CAPSET, ctypes.addressof(header), ctypes.addressof(nothing))


def _long(item: object) -> object:
    return _LONG(item) if isinstance(item, int) else item


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
