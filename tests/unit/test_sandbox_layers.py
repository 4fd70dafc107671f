"""Isolation on this machine: each level held to what it promises, as this user and as an ordinary one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.errors import SandboxError
from pipelines.sandbox import client, isolation, kernel, seccomp
from pipelines.sandbox.base import AssertTest, Limits, StdioTest
from pipelines.sandbox.supervisor import run_tests

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
LEVELS = ("strong", "medium", "basic")
QUICK = Limits(test_seconds=1.0, total_seconds=4.0)

FLOOD = """
import os
for fd in range(3, 64):
    try:
        while True: os.write(fd, b'x' * 65536)
    except OSError: pass
"""
HONEST = """
import colorsys, threading
def f():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    open('note', 'w').write('x')
    return int(open('note').read() == 'x') + 4
if __name__ == '__main__': print(f())
"""
STUBBORN = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
def f():
    while True: pass
"""
TRAINER = """
import sys
sys.path.insert(0, sys.argv[1])
from pipelines.sandbox import client, supervisor, base
supervisor.run_tests('', [base.AssertTest('1')])
print(client._idle[0].process.pid, flush=True)
supervisor.run_tests(sys.argv[2], [base.AssertTest('f()')])
"""
EVERYWHERE = {
    "exits": "import os\ndef f(): os._exit(0)",
    "quits": "import sys\ndef f(): sys.exit(0)",
    "loops": "def f():\n    while True: pass",
    "swallows": "def f():\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass",
    "crashes": "import ctypes\ndef f(): ctypes.string_at(0)",
    "memory": "def f():\n    kept = []\n    while True: kept.append(bytearray(1 << 24))",
    "equal": "class Always:\n    def __eq__(self, other): return True\ndef f(): return Always()",
    "floods": FLOOD,
    "hangs up": "import os\nos.closerange(0, 256)\ndef f(): return 5",
    "lies": "import builtins\nbuiltins.isinstance = builtins.all = lambda *a: True\ndef f(): return 4",
}
FILTERED = {
    "forks": "import os\ndef f():\n    os.fork()\n    return 5",
    "kills": "import os\ndef f():\n    os.kill(os.getppid(), 9)\n    return 5",
    "connects": "import socket\ndef f():\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    return 5",
    "executes": "import os\ndef f():\n    os.execv('/bin/true', ['true'])",
    "traces": "import ctypes, os\ndef f():\n    ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)\n    return 5",
    "reads": "def f():\n    open('/etc/passwd').read()\n    return 5",
    "writes": f"def f():\n    open({str(ROOT / 'written')!r}, 'w').write('x')\n    return 5",
}


@pytest.fixture(scope="module", params=LEVELS)
def layers(request):
    found = isolation.reduced(request.param)
    if found.level != request.param:
        pytest.skip(f"this machine offers {found.level}")
    return found


@pytest.mark.parametrize("name", EVERYWHERE)
def test_no_level_lets_an_answer_pass_that_does_not_solve(layers, name):
    verdicts = run_tests(EVERYWHERE[name], [AssertTest("assert f() == 5")], QUICK, isolation=layers)
    assert verdicts.passed == (False,)
    assert verdicts.reasons[0]
    assert verdicts.level == layers.level
    assert left_behind() == []


@pytest.mark.parametrize("level", ["strong", "medium"])
@pytest.mark.parametrize("name", FILTERED)
def test_with_layers_an_answer_cannot_reach_out(level, name):
    layers = isolation.reduced(level)
    if layers.level != level:
        pytest.skip(f"this machine offers {layers.level}")
    verdicts = run_tests(FILTERED[name], [AssertTest("assert f() == 5")], QUICK, isolation=layers)
    assert verdicts.passed == (False,)
    assert left_behind() == []
    assert not (ROOT / "written").exists()


def test_honest_work_passes_at_every_level(layers):
    tests = [AssertTest("assert f() == 5"), StdioTest("", "5")]
    verdicts = run_tests(HONEST, tests, isolation=layers)
    assert verdicts.reasons == ("", "")
    assert left_behind() == []


def test_a_daemon_is_found_where_it_may_fork():
    code = "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
    code += "            time.sleep(60)\n        os._exit(0)\n    return 5"
    run_tests(code, [AssertTest("assert f() == 5")], QUICK, isolation=isolation.reduced("basic"))
    assert left_behind() == []


def test_the_test_after_a_death_has_a_fresh_candidate():
    code = (
        "import os\ncount = 0\ndef f(n):\n    global count\n    count += 1\n    if n < 0: os._exit(0)\n    return count"
    )
    tests = [AssertTest(text) for text in ("assert f(1) == 1", "assert f(1) == 2", "f(-1)", "assert f(1) == 1")]
    assert run_tests(code, tests).passed == (True, True, False, True)


def test_the_clock_of_an_answer_bounds_all_its_tests():
    start = time.monotonic()
    limits = Limits(test_seconds=0.5, total_seconds=1.2)
    verdicts = run_tests("def f():\n    while True: pass", [AssertTest("f()")] * 30, limits)
    assert not any(verdicts.passed)
    assert verdicts.reasons[0] == "timed out after 0.5 s"
    assert verdicts.reasons[-1] == "no time left for this test"
    assert time.monotonic() - start < 4


def test_asserts_hold_under_optimisation(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    client.close_all()
    assert run_tests("def f(): return 1", [AssertTest("assert f() == 2")]).passed == (False,)


def test_a_test_that_exits_has_failed():
    tests = [AssertTest("import os\nos._exit(0)"), AssertTest("raise SystemExit"), AssertTest("assert f() == 1")]
    assert run_tests("def f(): return 1", tests).passed == (False, False, True)


def test_nothing_of_the_trainer_goes_along(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    client.close_all()
    code = "import os\ndef f(): return [key for key in os.environ if 'SECRET' in key], sorted(os.environ)"
    tests = [
        AssertTest("assert f()[0] == []"),
        AssertTest("assert f()[1] == ['HOME', 'LANG', 'MALLOC_ARENA_MAX', 'PATH', 'PYTHONHASHSEED', 'TMPDIR']"),
    ]
    assert run_tests(code, tests).passed == (True, True)


@pytest.mark.parametrize("victim", ["server", "workers"])
def test_what_is_killed_from_outside_is_no_wrong_answer(victim):
    isolation.available()
    with client.borrowed() as found:
        server = found.process.pid
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(server), victim])
    sleeping = [AssertTest("f()")] * 3
    with pytest.raises(SandboxError):
        any(run_tests("import time\ndef f(): time.sleep(0.2)", sleeping) is None for _ in range(50))
    assert killer.wait() == 0
    assert left_behind() == []
    assert run_tests("def f(): return 1", [AssertTest("assert f() == 1")]).passed == (True,)


KILLER = """
import os, sys, time
from pathlib import Path
server, victim = int(sys.argv[1]), sys.argv[2]
def below(pid):
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            if int((entry / 'stat').read_text().rpartition(')')[2].split()[1]) == pid:
                found += [int(entry.name), *below(int(entry.name))]
        except OSError:
            pass
    return found
end = time.monotonic() + 10
while time.monotonic() < end:
    workers = below(server)
    if len(workers) >= 6:
        time.sleep(0.15)
        os.kill(server if victim == 'server' else workers[-1], 9)
        sys.exit(0)
    time.sleep(0.01)
sys.exit(1)
"""


def test_a_trainer_that_is_killed_leaves_no_process():
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(ROOT), STUBBORN], stdout=subprocess.PIPE)
    server = int(trainer.stdout.readline())
    wait_until(lambda: len(descendants(server)) >= 6)
    time.sleep(0.3)
    family = [server, *descendants(server)]
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    wait_until(lambda: not any(map(lives, family)))


ORDINARY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pipelines.sandbox import isolation, supervisor, base
code = "import colorsys\\ndef f(): return os.getuid()\\nimport os"
found = {}
for level in ("strong", "medium", "basic"):
    layers = isolation.reduced(level)
    tests = [base.AssertTest("assert f() > 0"), base.AssertTest("f.x.y"), base.StdioTest("", "")]
    found[layers.level] = supervisor.run_tests(code, tests, isolation=layers).passed
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_with_a_private_interpreter(tmp_path):
    """A copy of the interpreter in a directory that is closed to everybody else."""
    home = private_interpreter(tmp_path, 23456)
    said = subprocess.run(
        [home / "bin" / "python", "-S", "-c", ORDINARY, str(readable_copy(tmp_path))],
        user=23456, group=23456, extra_groups=[], capture_output=True, cwd="/", text=True,
        env={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(home / "lib")},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert list(json.loads(said.stdout)) == list(dict.fromkeys(json.loads(said.stdout)))
    assert all(passed == [True, False, True] for passed in json.loads(said.stdout).values())
    assert left_behind() == []


def private_interpreter(folder, user):
    home = folder / "private"
    library = Path(os.__file__).parent
    skipped = shutil.ignore_patterns(
        "test", "tests", "site-packages", "idlelib", "__pycache__", "lib2to3", "config-*", "ensurepip"
    )
    shutil.copytree(library, home / "lib" / library.name, ignore=skipped)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*"):
        shutil.copy(shared, home / "lib")
    (home / "bin").mkdir()
    shutil.copy(os.path.realpath(sys.executable), home / "bin" / "python")
    for path in (home, *home.rglob("*")):
        os.chown(path, user, user)
    home.chmod(0o700)
    for parent in home.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    return home


def readable_copy(folder):
    shutil.copytree(ROOT / "pipelines" / "sandbox", folder / "code" / "pipelines" / "sandbox")
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "pipelines" / name, folder / "code" / "pipelines")
    for path in (folder / "code").rglob("*"):
        path.chmod(0o755)
    return folder / "code"


def test_levels_are_refused_below_the_minimum(monkeypatch):
    weak = isolation.reduced("basic")
    monkeypatch.setattr(isolation, "available", lambda: weak)
    with pytest.raises(isolation.TooWeakError, match="'basic', 'strong' is asked for"):
        isolation.at_least("strong")
    assert isolation.at_least("basic") is weak


@pytest.mark.parametrize("architecture", [0, 1], ids=["x86-64", "aarch64"])
def test_the_filter_is_sound(architecture):
    """Every jump lands inside, the last word is a return, and no call is listed with two meanings."""
    lines = seccomp.program(architecture)
    for place, (code, taken, otherwise, _) in enumerate(lines):
        if code != seccomp.RETURN:
            assert place + 1 + max(taken, otherwise) < len(lines)
    assert lines[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)
    numbers = [pair[architecture] for table in (seccomp.KILLED, seccomp.REFUSED) for pair in table.values()]
    numbers = [number for number in numbers if number != seccomp.NONE]
    assert len(numbers) == len(set(numbers))
    assert max(numbers) < seccomp.NEWEST


def test_a_failed_call_says_which():
    with pytest.raises(OSError, match="mount nowhere on /nowhere"):
        kernel.mount("nowhere", "/nowhere", "tmpfs", 0)


def left_behind():
    """Living processes that servers of this process forked, and private directories of theirs."""
    with client._lock:
        servers = [entry.process.pid for entry in client._idle]
    return [child for server in servers for child in descendants(server)]


def descendants(ancestor):
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            parents[int(entry.name)] = int(parent)
    found = {ancestor}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})


def lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
