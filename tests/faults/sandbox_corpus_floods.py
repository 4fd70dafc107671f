"""Answers that flood whoever reads, and answers that leave before they are judged."""

from sandbox_corpus import PUZZLE, Entry, hostile

STDIO = [{"input": "5\n", "expected": "82763\n"}]
SLOW = PUZZLE[:1]
"""One test for what ends by the clock: each costs the whole limit."""

FLOODS: list[Entry] = [
    hostile(
        "flood_stdout",
        "prints without end",
        """
def puzzle(n):
    while True:
        print('x' * 10**5)
""",
        SLOW,
    ),
    hostile(
        "flood_stderr",
        "complains without end",
        "import sys\ndef puzzle(n):\n    while True:\n        sys.stderr.write('x' * 10**5)",
        SLOW,
    ),
    hostile(
        "flood_import",
        "prints much before anything is defined",
        "for _ in range(3000):\n    print('82763' * 10**4)\ndef puzzle(n):\n    return 0",
        SLOW,
    ),
    hostile(
        "flood_every_descriptor",
        "writes into each descriptor that is open",
        """
        import os
        def puzzle(n):
            for _ in range(50):
                for number in range(64):
                    try:
                        os.set_blocking(number, False)
                        os.write(number, b"x" * 65536)
                    except OSError:
                        pass
            return -1
        """,
    ),
    hostile(
        "flood_stdio",
        "prints every number, the expected one too",
        "for number in range(100000):\n    print(number)",
        STDIO,
    ),
    hostile(
        "flood_and_right",
        "is right, and prints three megabytes over it",
        "def double(n):\n    for _ in range(3):\n        print('x' * 10**6)\n    return 2 * n",
        ["assert double(2) == 4"],
    ),
    hostile("flood_stdio_endless", "prints the answer for ever", "while True:\n    print(82763)", STDIO),
    hostile("flood_result", "returns more than anybody wants to read", "def puzzle(n):\n    return 'x' * 2**27", SLOW),
    hostile(
        "flood_exception",
        "raises with a message of a hundred megabytes",
        "def puzzle(n):\n    raise ValueError('82763' * 2 * 10**7)",
        SLOW,
    ),
]

EXITS: list[Entry] = [
    hostile("exit_at_import", "leaves with success before a test ran", "import sys\nsys.exit(0)"),
    hostile("exit_at_import_raised", "raises SystemExit itself", "def puzzle(n):\n    return 0\nraise SystemExit"),
    hostile(
        "exit_builtin", "calls exit() and prints afterwards", "exit()\nprint('passed')\ndef puzzle(n):\n    return 0"
    ),
    hostile("exit_in_call", "leaves in a call", "import sys\ndef puzzle(n):\n    sys.exit(0)"),
    hostile("exit_now_at_import", "leaves past all handlers", "import os\nos._exit(0)"),
    hostile("exit_now_in_call", "leaves past all handlers in a call", "import os\ndef puzzle(n):\n    os._exit(0)"),
    hostile("exit_abort", "dies of SIGABRT", "import os\ndef puzzle(n):\n    os.abort()"),
    hostile(
        "exit_kill_self",
        "dies of SIGKILL",
        "import os, signal\ndef puzzle(n):\n    os.kill(os.getpid(), signal.SIGKILL)",
    ),
    hostile(
        "exit_kill_self_import",
        "dies of SIGKILL early",
        "import os\nos.kill(os.getpid(), 9)\ndef puzzle(n):\n    return 0",
    ),
    hostile("exit_kill_group", "kills its process group", "import os\ndef puzzle(n):\n    os.killpg(0, 9)"),
    hostile("exit_segfault", "reads from address 0", "import ctypes\ndef puzzle(n):\n    return ctypes.string_at(0)"),
    hostile(
        "exit_in_del",
        "leaves with success when its result is let go",
        """
        import os
        class Result:
            def __del__(self):
                os._exit(0)
        def puzzle(n):
            Result()
            return 0
        """,
    ),
    hostile(
        "exit_at_exit",
        "leaves with success whatever came before",
        "import atexit, os\natexit.register(os._exit, 0)\ndef puzzle(n):\n    return 0",
    ),
    hostile(
        "exit_generator",
        "leaves with success while the test iterates",
        "import os\ndef puzzle(n):\n    yield 1\n    os._exit(0)",
        ["assert list(puzzle(17)) == [1, 2]"],
    ),
    hostile(
        "exit_keyboard_interrupt",
        "raises what is no Exception",
        "def puzzle(n):\n    raise KeyboardInterrupt",
    ),
    hostile(
        "exit_exec",
        "becomes another program that ends with success",
        "import os\ndef puzzle(n):\n    os.execv('/bin/true', ['true'])",
    ),
    hostile("exit_stdio", "ends with success and no output", "import os\nos._exit(0)", STDIO),
]
