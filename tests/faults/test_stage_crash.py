"""Killed at every single file operation, a stage is either complete or known not to be, and the next run mends it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.stages import manifest, requests
from pipelines.stages.identity import Identity
from pipelines.stages.store import directory_for, run_stage, state

IDENTITY, OTHER = (Identity("preprocess", 1, {"limit": limit}, {}) for limit in (3, 4))
WRITER = """
import json, os, signal, sys
from pathlib import Path
from pipelines.stages import gc, manifest, requests
from pipelines.stages.identity import Identity
from pipelines.stages.store import run_stage

action, directories = sys.argv[1], sys.argv[2:]
seen = deadly = 0

def die_in_time(event, arguments):
    # Die by SIGKILL just before the n-th operation that could change the directory or its parents.
    global seen
    flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
    writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if deadly and (writing or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")):
        seen += 1
        if seen == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

def work(directory):
    for name in ("a", "b", "c"):
        (directory / name).write_text(name * 9)
    (directory / "deep").mkdir(exist_ok=True)
    (directory / "deep" / "d").write_text("d")

def act(directory):
    if action == "free":
        [item] = gc.reclaimable(directory.parent.parent, lambda _: ["nobody needs it"])
        gc.free(item)
    elif action == "note":
        requests.note(directory, "base")
    else:
        run_stage(Identity("preprocess", 1, {"limit": 3}, {}), directory, work, **json.loads(action))

os.fsync = lambda _: None  # it takes time, and a process that dies loses no pages
manifest.code_digest(), manifest.versions()  # once, not in every child
sys.dont_write_bytecode = True
sys.addaudithook(die_in_time)
for number, directory in enumerate(directories, start=1):
    if not (child := os.fork()):
        deadly = number
        act(Path(directory))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status == 0:
        break
"""
OUTPUTS = {"a": "a" * 9, "b": "b" * 9, "c": "c" * 9, "deep/d": "d"}


@pytest.fixture(autouse=True)
def _unhurried_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def work(directory):
    for name, text in OUTPUTS.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


def outputs(directory):
    return {name: (directory / name).read_text() for name in manifest.output_files(directory)}


def check_and_mend(directory, **options):
    """Whatever the crash left: `cached` means whole, and a second call ends in the same place as an undisturbed one."""
    found = state(IDENTITY, directory, verify=True)
    assert found.status in {"missing", "partial", "cached", "damaged"}
    if found.status == "cached":
        assert outputs(directory) == OUTPUTS
    assert run_stage(IDENTITY, directory, work, **options).status == ("cached" if found.status == "cached" else "ran")
    assert outputs(directory) == OUTPUTS
    assert state(IDENTITY, directory, verify=True).status == "cached"
    assert not list(directory.glob("*.grpo-tmp"))
    return found.status


def killed(action, directories):
    """Crash an action before its first, second, ... file operation, each in a directory of its own, until it succeeds.

    Returns the directories of those that did not.
    """
    words = action if isinstance(action, str) else json.dumps(action)
    command = [sys.executable, "-c", WRITER, words, *map(str, directories)]
    written = subprocess.run(command, check=True, capture_output=True, text=True)
    statuses = [int(line) for line in written.stdout.split()]
    assert statuses[-1] == 0, written.stderr
    assert set(statuses[:-1]) == {-signal.SIGKILL}, written.stderr
    return directories[: len(statuses) - 1]


def deaths(directories, **options):
    """The states that crashes of a run left."""
    return [check_and_mend(directory, **options) for directory in killed(options, directories)]


def in_the_store(place, count=50):
    return [directory_for(place / str(n), IDENTITY) for n in range(count)]


def test_killed_before_every_file_operation_in_the_store(tmp_path):
    seen = deaths(in_the_store(tmp_path))
    assert len(seen) >= 8
    assert {"missing", "partial"} <= set(seen)


def test_killed_before_every_file_operation_of_a_redo(tmp_path):
    directories = in_the_store(tmp_path)
    for directory in directories:
        run_stage(IDENTITY, directory, work)
        (directory / "b").write_text("short")
    assert {"damaged", "partial"} <= set(deaths(directories))


def test_killed_before_every_file_operation_of_a_run(tmp_path):
    """A run's directory is never refused to its own identity after a crash."""
    seen = deaths([tmp_path / str(n) / "outputs" for n in range(50)], resumable=True)
    assert {"missing", "partial"} <= set(seen)


@pytest.mark.parametrize("broken", ["identity.json", "manifest.json"])
def test_killed_while_a_run_is_mended(tmp_path, broken):
    """Nor when one of the two files that say whose it is cannot be read."""
    directories = [tmp_path / str(n) / "outputs" for n in range(40)]
    for directory in directories:
        run_stage(IDENTITY, directory, work, resumable=True)
        (directory / broken).write_text("{")
    assert {"damaged", "partial"} <= set(deaths(directories, resumable=True))


def earlier_work(directory):
    (directory / "weights").write_text("weeks of work")


@pytest.mark.parametrize(("owner", "option"), [(OTHER, "fresh"), (IDENTITY, "fresh"), (IDENTITY, "force")])
def test_killed_while_an_earlier_run_is_set_aside(tmp_path, owner, option):
    """It is in one of two places, whole, whenever that happens; and the new run is made by the next call."""
    runs = [tmp_path / str(n) / "outputs" for n in range(50)]
    for run in runs:
        run_stage(owner, run, earlier_work, resumable=True)
    crashed = killed({"resumable": True, option: True}, runs)
    seen = set()
    for run in crashed:
        [kept] = [path.parent for path in run.parent.glob("*/weights")]
        assert state(owner, kept, verify=True).status == "cached"
        seen.add(kept.name)
        run_stage(IDENTITY, run, work, resumable=True, **({option: True} if kept == run else {}))
        assert outputs(run) == OUTPUTS
        assert (run.with_name("outputs.old-1") / "weights").read_text() == "weeks of work"
    assert seen == {"outputs", "outputs.old-1"}


def test_killed_while_gc_frees(tmp_path):
    """What is left is whole, or known not to be, or gone."""
    directories = in_the_store(tmp_path, 20)
    for directory in directories:
        run_stage(IDENTITY, directory, work)
    assert {check_and_mend(directory) for directory in killed("free", directories)} >= {"cached", "partial"}


def test_killed_while_a_request_is_noted(tmp_path):
    directories = in_the_store(tmp_path, 10)
    for directory in directories:
        run_stage(IDENTITY, directory, work)
        requests.note(directory, "last")
    for directory in killed("note", directories):
        assert state(IDENTITY, directory, verify=True).status == "cached"
        assert {"last"} <= {request.target for request in requests.noted(directory)} <= {"last", "base"}


SLEEPER = """
import sys, time
from pathlib import Path
from pipelines.stages.identity import Identity
from pipelines.stages.store import run_stage

def work(directory):
    (directory / "a").write_text("half")
    Path(sys.argv[2]).touch()
    time.sleep(600)

run_stage(Identity("preprocess", 1, {"limit": 3}, {}), Path(sys.argv[1]), work)
"""


def test_the_lock_dies_with_its_owner(tmp_path):
    directory, working = directory_for(tmp_path, IDENTITY), tmp_path / "working"
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER, str(directory), str(working)])
    try:
        wait_for(working)
        found = state(IDENTITY, directory)
        assert found.status == "running"
        assert f"process {sleeper.pid} since" in found.reasons[0]
    finally:
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()
    assert state(IDENTITY, directory).status == "partial"
    started = time.monotonic()
    assert run_stage(IDENTITY, directory, work).status == "ran"
    assert time.monotonic() - started < 5
    assert outputs(directory) == OUTPUTS


def wait_for(path: Path, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
