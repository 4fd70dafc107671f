"""Several processes at once: one does the work, the others wait, say so, and find it done; shared files stay whole."""

import hashlib
import json
import subprocess
import sys
import time

from pipelines.stages.digest import CACHE_FILE, DigestCache
from pipelines.stages.identity import Identity
from pipelines.stages.store import directory_for, state

IDENTITY = Identity("preprocess", 1, {"limit": 3}, {})
RACER = """
import logging, sys, time
from pathlib import Path
from pipelines.stages.identity import Identity
from pipelines.stages.store import run_stage

logging.basicConfig()
directory, start, journal = map(Path, sys.argv[1:4])

def work(directory):
    with journal.open("a") as stream:
        stream.write("worked\\n")
    time.sleep(0.5)
    (directory / "a").write_text("a")
    return {"rows": 3}

print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
result = run_stage(Identity("preprocess", 1, {"limit": 3}, {}), directory, work)
print(result.status, result.summary)
"""


def race(processes, start):
    """Let them go when all are ready; their outputs and errors."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    start.touch()
    ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ended
    return ended


def spawn(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_exactly_one_process_does_the_work(tmp_path):
    directory, start, journal = directory_for(tmp_path, IDENTITY), tmp_path / "start", tmp_path / "journal"
    racers = [spawn(RACER, directory, start, journal) for _ in range(3)]
    ended = race(racers, start)
    assert journal.read_text() == "worked\n"
    assert sorted(output for output, _ in ended) == ["cached {'rows': 3}\n"] * 2 + ["ran {'rows': 3}\n"]
    winner = next(racer.pid for racer, (output, _) in zip(racers, ended, strict=True) if output.startswith("ran"))
    for output, errors in ended:
        if output.startswith("cached"):
            assert f"waiting for process {winner} since" in errors
        else:
            assert "waiting" not in errors
    assert state(IDENTITY, directory, verify=True).status == "cached"


CACHE_WRITER = """
import sys, time
from pathlib import Path
from pipelines.stages import digest

digest.SETTLED_SECONDS = -3600.0
root, start, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
files = [root / f"{name}-{n}" for n in range(20)]
for path in files:
    path.write_text(path.name)
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
for path in files:
    cache = digest.DigestCache(root)
    cache.of_file(path)
    cache.save()
"""


def test_digest_cache_survives_concurrent_writers(tmp_path):
    start = tmp_path / "start"
    race([spawn(CACHE_WRITER, tmp_path, start, name) for name in ("x", "y", "z")], start)
    files = json.loads((tmp_path / CACHE_FILE).read_text())["files"]
    names = [f"{name}-{n}" for name in "xyz" for n in range(20)]
    expected = {str(tmp_path / name): hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert {path: entry["sha256"] for path, entry in files.items()} == expected


def test_looking_does_not_disturb(tmp_path):
    """While one works, others may ask as often as they like and always hear `running`."""
    directory, start, journal = directory_for(tmp_path, IDENTITY), tmp_path / "start", tmp_path / "journal"
    racer = spawn(RACER, directory, start, journal)
    assert racer.stdout.readline() == "ready\n"
    start.touch()
    deadline = time.monotonic() + 30
    while not journal.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert state(IDENTITY, directory).status == "running"
    assert racer.communicate(timeout=60)[0] == "ran {'rows': 3}\n"
    assert state(IDENTITY, directory).status == "cached"


def test_a_corrupt_cache_in_the_middle_costs_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    (tmp_path / CACHE_FILE).write_text('{"format": 1, "files": {"' + str(path))
    assert DigestCache(tmp_path).of_file(path) == hashlib.sha256(b"content").hexdigest()
