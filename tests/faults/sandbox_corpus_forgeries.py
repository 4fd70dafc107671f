"""Answers that write a verdict of their own, or take the ways by which one travels."""

from sandbox_corpus import Entry, hostile

WRONG = "\ndef puzzle(n):\n    return 0\n"
STDIO = [{"input": "17\n", "expected": "82763\n"}]
PAYLOADS = r"""
import json, struct
SAYS = [
    {"passed": True}, {"passed": [True] * 3}, {"ok": True}, {"score": 1.0}, {"result": 82763}, {"value": 82763},
    {"status": "passed"}, {"type": "result", "value": 82763}, {"verdict": "passed", "reasons": []},
    [True] * 3, True, 82763,
]
def payloads():
    for said in SAYS:
        text = json.dumps(said).encode()
        yield from (text, text + b"\n", b"\n" + text + b"\n", text + b"\0")
        for shape in ("<I", ">I", "<Q", ">Q", "<H", ">H"):
            yield struct.pack(shape, len(text)) + text
        yield str(len(text)).encode() + b"\n" + text
        yield b"Content-Length: %d\r\n\r\n" % len(text) + text
    yield from (b"PASSED\n", b"passed\n", b"OK\n", b"1.0\n", b"82763\n", b"\x01")
"""


def forge(name: str, why: str, code: str, control: bool = True) -> Entry:
    return hostile(name, why, PAYLOADS + code, control=control)


FORGERIES: list[Entry] = [
    forge(
        "forge_import",
        "writes verdicts into every descriptor and leaves",
        """
import os
for number in range(64):
    for said in payloads():
        try:
            os.set_blocking(number, False)
            os.write(number, said)
        except OSError:
            break
os._exit(0)
""",
    ),
    forge(
        "forge_call",
        "writes verdicts in a call and answers wrongly",
        """
import os
def puzzle(n):
    for number in range(64):
        for said in payloads():
            try:
                os.set_blocking(number, False)
                os.write(number, said)
            except OSError:
                break
    return 0
""",
    ),
    forge(
        "forge_call_exit",
        "writes verdicts in a call and leaves",
        """
import os
def puzzle(n):
    for number in range(3, 64):
        for said in payloads():
            try:
                os.write(number, said)
            except OSError:
                break
    os._exit(0)
""",
    ),
    forge(
        "forge_at_exit",
        "writes verdicts when the interpreter ends",
        """
import atexit, os
@atexit.register
def forge():
    for number in range(64):
        for said in payloads():
            try:
                os.write(number, said)
            except OSError:
                break
    os._exit(0)
"""
        + WRONG,
    ),
    forge(
        "forge_child",
        "a child goes on writing verdicts",
        """
import os, time
if os.fork() == 0:
    for _ in range(50):
        for number in range(64):
            for said in payloads():
                try:
                    os.set_blocking(number, False)
                    os.write(number, said)
                except OSError:
                    break
        time.sleep(0.02)
    os._exit(0)
"""
        + WRONG,
    ),
    forge(
        "forge_thread",
        "a thread goes on writing verdicts",
        """
import os, threading
def work():
    for _ in range(20):
        for number in range(3, 64):
            for said in payloads():
                try:
                    os.write(number, said)
                except OSError:
                    break
threading.Thread(target=work, daemon=True).start()
"""
        + WRONG,
    ),
    forge(
        "forge_stdout",
        "prints that all went well",
        """
import sys
for said in payloads():
    sys.stdout.write(said.decode('latin-1'))
sys.stdout.flush()
"""
        + WRONG,
    ),
    forge(
        "forge_stdout_last",
        "prints that all went well, as the last words",
        """
import os, sys
def puzzle(n):
    print('{"passed": true}\\n1.0\\nAll tests passed', flush=True)
    os._exit(0)
""",
    ),
    forge(
        "forge_proc",
        "opens the descriptors of its parent and of the trainer anew",
        """
import glob, os
for path in glob.glob(f'/proc/{os.getppid()}/fd/*') + glob.glob('/proc/@PID@/fd/*'):
    try:
        if 'pipe' in os.readlink(path) or 'socket' in os.readlink(path):
            with open(path, 'wb', 0) as file:
                os.set_blocking(file.fileno(), False)
                for said in payloads():
                    file.write(said)
    except OSError:
        pass
"""
        + WRONG,
        control=False,
    ),
    hostile(
        "forge_replace_stdout",
        "replaces the streams by ones that swallow",
        "import io, sys\nsys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = io.StringIO()" + WRONG,
    ),
    hostile(
        "forge_close_all",
        "closes every descriptor",
        "import os\ndef puzzle(n):\n    os.closerange(0, 4096)\n    return 0",
    ),
    hostile(
        "forge_close_all_import",
        "closes every descriptor before anything is asked",
        "import os\nos.closerange(0, 4096)" + WRONG,
    ),
    hostile(
        "forge_dup2",
        "puts one descriptor in the place of all others",
        """
import os
def puzzle(n):
    for number in range(64):
        try:
            os.dup2(1, number)
        except OSError:
            pass
    print('{"passed": true}', flush=True)
    return 0
""",
    ),
    hostile(
        "forge_devnull",
        "puts /dev/null in the place of all others",
        """
import os
def puzzle(n):
    null = os.open('/dev/null', os.O_RDWR)
    for number in range(64):
        os.dup2(null, number)
    return 0
""",
    ),
    hostile(
        "forge_own_reply",
        "asks for its own descriptors and answers twice",
        """
import gc, io, socket
def puzzle(n):
    for thing in gc.get_objects():
        if isinstance(thing, (io.IOBase, socket.socket)):
            try:
                getattr(thing, 'buffer', thing).write(b'{"passed": true}\\n')
            except (OSError, ValueError, AttributeError, TypeError):
                pass
    return 0
""",
    ),
    hostile(
        "forge_stderr_answer", "the answer on the wrong stream", "import sys\nprint(82763, file=sys.stderr)", STDIO
    ),
    hostile(
        "forge_stdio_verdict",
        "says that it passed",
        "print('82764')\nprint('{\"passed\": true}')\nprint('PASSED')",
        STDIO,
    ),
    hostile(
        "forge_stdio_crash",
        "dies after half of the output",
        "import os\nprint('827', end='', flush=True)\nos.abort()",
        STDIO,
    ),
]
