"""A seccomp-BPF filter: which system calls end the process, which are refused, which do not exist.

What no honest answer needs and what could reach other processes, the network or the kernel's far corners ends the
process at once (SIGSYS), so that trying is never free. What a library may ask in passing is refused with EPERM, and
calls newer than the table do not exist (ENOSYS). Source: Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import struct

from pipelines.sandbox import kernel

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT = 0x00050000 | 1, 0x00050000 | 38  # errno EPERM, ENOSYS
AUDIT_ARCH = (0xC000003E, 0xC00000B7)
X32_BIT, NEWEST = 0x40000000, 463
NONE = -1

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
AT_NUMBER, AT_ARCHITECTURE = 0, 4
AT_ARGUMENT = (16, 24)  # low halves of the first two, on little-endian machines

KILLED = {
    "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "fork": (57, NONE), "vfork": (58, NONE), "execve": (59, 221), "execveat": (322, 281),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": kernel.PIVOT_ROOT, "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "lookup_dcookie": (212, 18),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "iopl": (172, NONE), "ioperm": (173, NONE), "modify_ldt": (154, NONE),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "migrate_pages": (256, 238), "move_pages": (279, 239), "vhangup": (153, 58),
}  # fmt: skip
REFUSED = {
    "syslog": (103, 116), "personality": (135, 92), "setpgid": (109, 154), "setsid": (112, 157), "mknod": (133, NONE),
    "mknodat": (259, 33), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "setpriority": (141, 140),
    "ioprio_set": (251, 30),
}  # fmt: skip
CLONE, CLONE3, SOCKET, PRCTL, PRLIMIT = (56, 220), (435, 435), (41, 198), (157, 167), (302, 261)
AF_UNIX = 1
PROTECTED_OPTIONS = (kernel.PR_SET_PDEATHSIG, kernel.PR_SET_DUMPABLE, kernel.PR_SET_CHILD_SUBREAPER, 0x59616D61)

Instruction = tuple[int, int, int, int]


def program(architecture: int) -> list[Instruction]:
    """The filter for a column of the tables: (code, jump if true, jump if false, operand) each."""
    lines: list[Instruction] = [
        (LOAD, 0, 0, AT_ARCHITECTURE),
        (EQUAL, 1, 0, AUDIT_ARCH[architecture]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, AT_NUMBER),
        (AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, KILL),
        (AT_LEAST, 0, 1, NEWEST),
        (RETURN, 0, 0, ABSENT),
    ]
    for table, action in ((KILLED, KILL), (REFUSED, REFUSE), ({"clone3": CLONE3}, ABSENT)):
        for numbers in table.values():
            if numbers[architecture] != NONE:
                lines += [(EQUAL, 0, 1, numbers[architecture]), (RETURN, 0, 0, action)]
    lines += _clone(CLONE[architecture]) + _socket(SOCKET[architecture])
    lines += _prctl(PRCTL[architecture]) + _prlimit(PRLIMIT[architecture])
    return [*lines, (RETURN, 0, 0, ALLOW)]


def install() -> None:
    """Bind this thread and all it starts, for good. Needs no_new_privs; OSError where the kernel has no filters."""
    if kernel.ARCHITECTURE is None:
        raise OSError(38, "no table of system calls for this machine")
    lines = program(kernel.ARCHITECTURE)
    packed = b"".join(struct.pack("=HBBI", *line) for line in lines)
    memory = ctypes.create_string_buffer(packed, len(packed))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(memory)))
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.addressof(header))


def _clone(number: int) -> list[Instruction]:
    """Threads yes, processes no: they would outlive, multiply, and escape every count."""
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, AT_ARGUMENT[0]),
        (ANY_BIT, 0, 1, kernel.CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, KILL),
    ]


def _socket(number: int) -> list[Instruction]:
    """Unix sockets are refused, as name services ask for one in passing; every other family ends the process."""
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, AT_ARGUMENT[0]),
        (EQUAL, 0, 1, AF_UNIX),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, KILL),
    ]


def _prctl(number: int) -> list[Instruction]:
    """What ties a process to its parent, and what lets others look into it, stays as it is."""
    checks = [line for option in PROTECTED_OPTIONS for line in ((EQUAL, 0, 1, option), (RETURN, 0, 0, REFUSE))]
    return [(EQUAL, 0, len(checks) + 2, number), (LOAD, 0, 0, AT_ARGUMENT[0]), *checks, (RETURN, 0, 0, ALLOW)]


def _prlimit(number: int) -> list[Instruction]:
    """Limits of its own only (pid 0)."""
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, AT_ARGUMENT[0]),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
