"""Answers that never end or eat the machine: loops and bombs.

What multiplies is bounded in time and number: a sandbox in the making shares its machine with others.
"""

from sandbox_corpus import PUZZLE, Entry, hostile

ENDED = "bounded by `END`, so that even unlimited it is over"
STDIO = [{"input": "5\n", "expected": "82763\n"}]
SLOW = PUZZLE[:1]
"""One test for what ends by the clock: each costs the whole limit."""

LOOPS: list[Entry] = [
    hostile("loop_pass", "spins in a call", "def puzzle(n):\n    while True:\n        pass", SLOW),
    hostile("loop_at_import", "spins before anything is defined", "while True:\n    pass", SLOW),
    hostile(
        "loop_sleep", "waits without using any CPU time", "import time\ndef puzzle(n):\n    time.sleep(10**6)", SLOW
    ),
    hostile(
        "loop_power",
        "stays in C, where no Python signal handler runs",
        "def puzzle(n):\n    return len(str(9**9**9))",
        SLOW,
    ),
    hostile(
        "loop_regex",
        "a regular expression that backtracks for ever, in C",
        "import re\ndef puzzle(n):\n    return re.match(r'(a+)+$', 'a' * 64 + 'b')",
        SLOW,
    ),
    hostile(
        "loop_sum_range",
        "sums for years in C",
        "def puzzle(n):\n    return sum(range(10**15))",
        SLOW,
    ),
    hostile(
        "loop_catches_everything",
        "swallows every exception raised into it",
        """
        def puzzle(n):
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    continue
        """,
        SLOW,
    ),
    hostile(
        "loop_signals_ignored",
        "ignores every signal it may, then spins",
        """
        import signal
        def puzzle(n):
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            while True:
                pass
        """,
        SLOW,
    ),
    hostile(
        "loop_signals_masked",
        "masks every signal and disarms the timers, then spins",
        """
        import signal
        def puzzle(n):
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            while True:
                pass
        """,
        SLOW,
    ),
    hostile(
        "loop_own_session",
        "leaves the process group and the session, then waits",
        """
        import os, time
        def puzzle(n):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
                os._exit(0)
            time.sleep(60)
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "loop_thread_keeps_alive",
        "a thread that is no daemon keeps the interpreter from ending",
        """
        import threading, time
        threading.Thread(target=lambda: time.sleep(60)).start()
        def puzzle(n):
            return 0
        """,
    ),
    hostile(
        "loop_at_exit",
        "answers wrongly, then spins while the interpreter ends",
        """
        import atexit
        @atexit.register
        def spin():
            while True:
                pass
        def puzzle(n):
            return 0
        """,
    ),
    hostile(
        "loop_infinite_generator",
        "yields for ever what the test collects",
        "def puzzle(n):\n    while True:\n        yield n",
        ["assert list(puzzle(17)) == [17]"],
    ),
    hostile(
        "loop_self_stop",
        "stops its own process, so that waiting for its end never ends",
        "import os, signal\ndef puzzle(n):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 0",
        SLOW,
    ),
    hostile(
        "loop_reads_stdin",
        "waits for input that never comes",
        "import sys\ndef puzzle(n):\n    while True:\n        sys.stdin.readline()",
        SLOW,
    ),
    hostile(
        "loop_after_right_output",
        "prints the answer and never ends",
        "print(82763, flush=True)\nwhile True: pass",
        STDIO,
    ),
]

BOMBS: list[Entry] = [
    hostile(
        "bomb_fork",
        f"forks without end; {ENDED}",
        """
        import os, time
        END = time.time() + 12
        for _ in range(10):
            try:
                os.fork()
            except OSError:
                pass
        while time.time() < END:
            time.sleep(0.1)
        def puzzle(n):
            return 0
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_fork_in_call",
        f"each child forks again and spins; {ENDED}",
        """
        import os, time
        def puzzle(n):
            end = time.time() + 12
            for _ in range(300):
                try:
                    if os.fork() == 0:
                        while time.time() < end:
                            pass
                        os._exit(0)
                except OSError:
                    break
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_subprocess",
        f"starts programs without end; {ENDED}",
        """
        import subprocess, sys
        def puzzle(n):
            kept = []
            for _ in range(60):
                kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(12)"]))
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_threads",
        f"starts threads without end; {ENDED}",
        """
        import threading, time
        def puzzle(n):
            for _ in range(3000):
                threading.Thread(target=time.sleep, args=(12,), daemon=True).start()
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_memory_list",
        "a list without end",
        "def puzzle(n):\n    kept = []\n    while True:\n        kept.append([0] * 10**6)",
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_memory_bytes",
        "one huge allocation",
        "def puzzle(n):\n    return len(bytearray(10**12)) * 0",
        control=False,
    ),
    hostile(
        "bomb_memory_str",
        "a text doubled without end",
        "def puzzle(n):\n    text = 'x' * 1024\n    while True:\n        text += text",
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_memory_import",
        "eats memory before anything is defined",
        "kept = [b'x' * 2**24 for _ in range(10**4)]",
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_memory_mmap",
        "maps anonymous memory and touches each page",
        """
        import mmap
        KEPT = []
        def puzzle(n):
            for _ in range(200):
                area = mmap.mmap(-1, 2**27)
                for page in range(0, 2**27, 4096):
                    area[page] = 1
                KEPT.append(area)
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_memory_shared",
        "fills memory that counts for no process",
        """
        import os
        KEPT = []
        def puzzle(n):
            for index in range(200):
                number = os.memfd_create(str(index))
                KEPT.append(number)
                for _ in range(16):
                    os.write(number, b"x" * 2**23)
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_disk",
        "fills the disk with one file",
        """
        def puzzle(n):
            with open("fill", "wb") as file:
                for _ in range(2000):
                    file.write(b"x" * 2**20)
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile(
        "bomb_many_files",
        "fills the disk with many files",
        """
        def puzzle(n):
            for index in range(20000):
                with open(f"fill{index}", "wb") as file:
                    file.write(b"x" * 5000)
            return -1
        """,
        SLOW,
        control=False,
    ),
    hostile("bomb_recursion", "recurses without end", "def puzzle(n):\n    return puzzle(n + 1)"),
    hostile(
        "bomb_recursion_in_c",
        "recurses past every limit until the stack of C overflows",
        "import sys\nsys.setrecursionlimit(2**30)\ndef puzzle(n):\n    return puzzle(n + 1)",
    ),
    hostile(
        "bomb_zip",
        "a small text that unpacks to a huge one",
        """
        import zlib
        def puzzle(n):
            packed = zlib.compress(b"0" * 2**24)
            return len(b"".join(zlib.decompress(packed) for _ in range(1000)))
        """,
        SLOW,
        control=False,
    ),
]
