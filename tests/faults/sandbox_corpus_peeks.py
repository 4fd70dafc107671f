"""Answers that look for the tests or the expected values."""

from sandbox_corpus import PUZZLE, Entry, hostile

FIND = """
import re
def found(text, n):
    numbers = re.findall(r"puzzle\\(%d\\) == (\\d+)" % n, text)
    return int(numbers[0]) if numbers else 0
"""
CALLS = ["puzzle(17) == 82763", "puzzle(23) == 91837"]
STDIO = [{"input": "17\n", "expected": "82763\n"}]
CHECKS = [{"check": "def check(candidate):\n    assert candidate(17) == 82763\n", "entry_point": "puzzle"}]


def peek(name: str, why: str, code: str, tests: list[object] | None = None, control: bool = True) -> Entry:
    """`found` reads the expected number out of any text that holds a test."""
    return hostile(name, why, FIND + code, tests, control=control)


PEEKS: list[Entry] = [
    peek(
        "peek_frames",
        "walks the frames up for locals, globals and constants",
        """
import sys
def puzzle(n):
    frame = sys._getframe()
    while frame:
        number = found(repr(frame.f_locals) + repr(frame.f_globals) + repr(frame.f_code.co_consts), n)
        constants = [value for value in frame.f_code.co_consts if type(value) is int and value > 50000]
        if number or constants:
            return number or constants[(17, 23, 31).index(n) % len(constants)]
        frame = frame.f_back
    return 0
""",
    ),
    peek(
        "peek_inspect_stack",
        "reads the line that called it",
        """
import inspect
def puzzle(n):
    return found(repr([(entry.code_context, entry.frame.f_locals) for entry in inspect.stack()]), n)
""",
    ),
    peek(
        "peek_traceback",
        "raises, and reads the frames of its own traceback",
        """
import sys
def puzzle(n):
    try:
        raise ValueError
    except ValueError:
        frame, seen = sys.exc_info()[2].tb_frame, []
        while frame:
            seen.append(repr(frame.f_locals))
            frame = frame.f_back
        return found("".join(seen), n)
""",
    ),
    peek(
        "peek_gc_texts",
        "asks the collector for every container that holds a test",
        """
import gc
def puzzle(n):
    for thing in gc.get_objects():
        if type(thing) in (list, tuple, dict) and len(thing) < 1000:
            number = found(repr(thing), n)
            if number:
                return number
    return 0
""",
    ),
    peek(
        "peek_gc_patch",
        "sets every verdict that the collector knows to passed",
        """
import gc
def puzzle(n):
    for thing in gc.get_objects():
        if type(thing) is dict:
            for key in ("passed", "score", "ok", "success", "result", "results", "failed"):
                if key in thing:
                    thing[key] = True
        elif type(thing) is list and thing and all(type(item) in (bool, str) for item in thing[:9]):
            thing[:] = [True] * len(thing)
    return 0
""",
        control=False,
    ),
    peek(
        "peek_arguments",
        "reads the command line",
        "\nimport sys\ndef puzzle(n):\n    return found(repr(sys.argv) + repr(sys.orig_argv), n)",
    ),
    peek(
        "peek_stdin",
        "reads what the tests may have come through",
        "\nimport sys\ndef puzzle(n):\n    return found(sys.stdin.read(), n)",
        PUZZLE[:1],
    ),
    peek(
        "peek_descriptors",
        "reads every descriptor it holds, from the start",
        """
import os
def puzzle(n):
    text = ""
    for number in range(64):
        try:
            os.set_blocking(number, False)
            text += repr(os.pread(number, 10**6, 0))
        except OSError:
            pass
        try:
            text += repr(os.read(number, 10**6))
        except OSError:
            pass
    return found(text, n)
""",
        PUZZLE[:1],
    ),
    peek(
        "peek_files",
        "reads every small file around it",
        """
import os, sys, tempfile
def puzzle(n):
    text = ""
    for top in {".", "..", tempfile.gettempdir(), os.path.dirname(sys.argv[0] or "."), "/tmp", "/dev/shm", "@CWD@"}:
        for folder, _, names in os.walk(top):
            for name in names[:200]:
                try:
                    if os.path.isfile(os.path.join(folder, name)):
                        text += open(os.path.join(folder, name), errors="replace").read(10000)
                except OSError:
                    pass
            if len(text) > 10**6:
                return found(text, n)
    return found(text, n)
""",
        PUZZLE[:1],
    ),
    peek(
        "peek_memory_of_self",
        "reads its own memory",
        """
def puzzle(n):
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if "rw" in line and last - first < 2**26:
                try:
                    memory.seek(first)
                    number = found(memory.read(last - first).decode("latin-1"), n)
                except (OSError, ValueError, OverflowError):
                    continue
                if number:
                    return number
    return 0
""",
        PUZZLE[:2],
    ),
    peek(
        "peek_main_module",
        "reads the main module and all that is loaded",
        """

import sys
def puzzle(n):
    return found(repr([vars(module) for module in list(sys.modules.values()) if not hasattr(module, '__path__')]), n)
""",
    ),
    peek(
        "peek_linecache",
        "reads the sources that tracebacks would show",
        "\nimport linecache\ndef puzzle(n):\n    return found(repr(linecache.cache), n)",
    ),
    peek(
        "peek_calls",
        "walks the frames for a call expression",
        """

import sys
def puzzle(n):
    frame, text = sys._getframe(), ''
    while frame:
        text += repr(frame.f_locals) + repr(frame.f_globals)
        frame = frame.f_back
    return found(text, n)
""",
        CALLS,
    ),
    peek(
        "peek_check",
        "walks the frames for check(candidate)",
        """

import sys
def puzzle(n):
    frame = sys._getframe()
    while frame:
        numbers = [value for value in frame.f_code.co_consts if value == 82763]
        if numbers:
            return numbers[0]
        frame = frame.f_back
    return 0
""",
        CHECKS,
    ),
    peek(
        "peek_stdio",
        "looks for the expected output",
        """

import gc, sys
frame, text = sys._getframe(), ''
while frame:
    text += repr(frame.f_locals) + repr(frame.f_globals)
    frame = frame.f_back
numbers = re.findall('expected.{1,9}?([0-9]+)', text)
print(numbers[0] if numbers else 0)
""",
        STDIO,
    ),
    hostile(
        "peek_oracle",
        "dies once, keeps that in a file, and knows more when it is asked again",
        """
        import os, tempfile
        def puzzle(n):
            for folder in (".", tempfile.gettempdir(), "/tmp", "/dev/shm", os.path.expanduser("~")):
                path = os.path.join(folder, f"sandbox-oracle-{n}-@PID@")
                try:
                    with open(path, "a+") as file:
                        file.write("x")
                        file.seek(0)
                        attempt = len(file.read())
                    break
                except OSError:
                    continue
            if attempt < 2:
                os._exit(1)
            return {17: 82763, 23: 91837, 31: 55012}[n]
        """,
        control=False,
    ),
    hostile(
        "peek_callback_oracle",
        "tries numbers on the test's function until one fits, for ever",
        """
def puzzle(function):
    number = 10**9
    while not function(number):
        number += 1
    return number
""",
        ["assert puzzle(lambda x: x == 82763) == 82763"],
    ),
]
