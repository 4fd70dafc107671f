"""Disks that are full or may only be read, bookkeeping with a bit flipped, stores reached by two ways."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.stages import locks, manifest
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import IDENTITY_FILE, Identity, read_identity
from pipelines.stages.manifest import MANIFEST_FILE
from pipelines.stages.store import directory_for, outputs_digest, run_stage, state

IDENTITY = Identity("preprocess", 1, {"limit": 3}, {"data": "0" * 64})


def work(directory):
    (directory / "tokens.npy").write_bytes(b"t" * 500)


def is_whole(directory):
    return manifest.damages(directory, manifest.read(directory), verify=True) == []


PRELUDE = """
import json, os, sys
from pathlib import Path
from pipelines.stages import gc, manifest, requests, store
from pipelines.stages.digest import DigestCache
from pipelines.stages.identity import Identity

IDENTITY = Identity("preprocess", 1, {"limit": 3}, {"data": "0" * 64})
OTHER = Identity("preprocess", 1, {"limit": 4}, {"data": "0" * 64})

def work(directory):
    (directory / "tokens.npy").write_bytes(b"t" * 500)

def attempt(action, *arguments, **options):
    try:
        return str(getattr(action(*arguments, **options), "status", "done"))
    except OSError as error:
        return type(error).__name__
"""
FULL = (
    PRELUDE
    + """
import resource

manifest.code_digest()
for limit in map(int, sys.argv[2:]):
    directory = Path(sys.argv[1]) / str(limit) / "preprocess" / IDENTITY.key
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os._exit(attempt(store.run_stage, IDENTITY, directory, work) != "OSError")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, limit
"""
)


def python(script, *arguments, **options):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_leaves_nothing_that_passes_for_whole(tmp_path):
    """Full at the identity, at an output, and at the manifest; then there is room again."""
    limits = (0, 50, 300, 600)
    python(FULL, tmp_path, *limits)
    seen = []
    for limit in limits:
        directory = directory_for(tmp_path / str(limit), IDENTITY)
        found = state(IDENTITY, directory)
        seen.append((found.status, (directory / "tokens.npy").exists()))
        assert not list(directory.glob("*.grpo-tmp"))
        assert run_stage(IDENTITY, directory, work).status == "ran"
        assert is_whole(directory)
    assert seen == [("missing", False), ("missing", False), ("partial", True), ("partial", True)]


READ_ONLY = (
    PRELUDE
    + """
root, mine = Path(sys.argv[1]), Path(sys.argv[2])

def everything(root):
    directory = store.directory_for(root, IDENTITY)
    yield attempt(store.run_stage, IDENTITY, directory, work)
    cache = DigestCache(root)
    cache.of_file(directory / "tokens.npy")
    yield attempt(cache.save)
    yield attempt(store.state, IDENTITY, directory, verify=True)
    yield attempt(store.state, OTHER, store.directory_for(root, OTHER))
    yield attempt(requests.note, directory, "base")
    yield str(len(gc.reclaimable(root, lambda _: ["nobody needs it"])))
    yield attempt(store.run_stage, OTHER, store.directory_for(root, OTHER), work)

list(everything(mine))  # imports all there is to import while that may be read
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps(list(everything(root))))
"""
)


def test_a_store_that_may_only_be_read_gives_what_it_has(tmp_path):
    """Somebody else's store: found, verified, compared with; nothing is noted; what is not there cannot be made."""
    place = Path(tempfile.mkdtemp())  # not below pytest's own, which no other user may enter
    root = place / "stages"
    try:
        for identity in (IDENTITY, Identity("preprocess", 1, {"limit": 5}, {"data": "0" * 64})):
            run_stage(identity, directory_for(root, identity), work)
        for folder, _, names in os.walk(place):
            for name in names:
                (Path(folder) / name).chmod(0o444)
            Path(folder).chmod(0o555)
        found = json.loads(python(READ_ONLY, root, tmp_path / "mine", cwd="/"))
        assert found == ["cached", "done", "cached", "stale", "done", "2", "PermissionError"]
    finally:
        for folder, _, _ in os.walk(place):
            Path(folder).chmod(0o755)
        shutil.rmtree(place)


@pytest.mark.parametrize("name", [IDENTITY_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("addressed", [True, False], ids=["entry", "run"])
def test_bookkeeping_damaged_at_any_byte(tmp_path, monkeypatch, name, damage, addressed):
    """It is known for what it is; an entry is made again, and a run goes on as what its other file says it is."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    directory = directory_for(tmp_path, IDENTITY) if addressed else tmp_path / "run"
    run_stage(IDENTITY, directory, work, resumable=True)
    path = directory / name
    content, outputs = path.read_bytes(), outputs_digest(directory)
    for position in range(1, len(content) - 1, 3):
        flipped = content[:position] + bytes([content[position] ^ 0x04]) + content[position + 1 :]
        path.write_bytes(content[:position] if damage == "cut" else flipped)
        found = state(IDENTITY, directory).status
        if found == "cached":  # the name of its own digest, without which it is read as it stands
            assert (outputs_digest(directory), read_identity(directory)) == (outputs, IDENTITY)
        else:
            assert found == "damaged"
        if position % 50 == 0:
            assert run_stage(IDENTITY, directory, work, resumable=True).status == "ran"
            assert is_whole(directory)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"process 1"])
def test_the_content_of_lock_files_means_nothing(tmp_path, content):
    directory = directory_for(tmp_path, IDENTITY)
    lock = locks.lock_path(directory)
    lock.parent.mkdir(parents=True)
    for path in (lock, lock.with_suffix(".holder")):
        path.write_bytes(content)
    assert state(IDENTITY, directory).status == "missing"
    assert run_stage(IDENTITY, directory, work).status == "ran"
    with locks.hold(directory, "test"):
        lock.with_suffix(".holder").write_bytes(content)
        assert locks.running(directory)


def test_one_store_by_two_ways(tmp_path):
    """A link to the store, and a store below a link, are the same store: one result, one lock."""
    real = tmp_path / "disk" / "stages"
    first = run_stage(IDENTITY, directory_for(real, IDENTITY), work)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "parent").symlink_to(tmp_path / "disk")
    for root in (tmp_path / "link", tmp_path / "parent" / "stages"):
        directory = directory_for(root, IDENTITY)
        assert run_stage(IDENTITY, directory, work).status == "cached"
        with locks.hold(directory, "test"):
            assert locks.running(first.directory)
    forced = run_stage(IDENTITY, directory_for(tmp_path / "link", IDENTITY), work, force=True)
    assert forced.status == "ran"
    assert is_whole(first.directory)


def test_a_time_stamp_from_the_future_is_not_believed(tmp_path):
    """After the clock was set back: such a file may change again under the same stamp, so it is read each time."""
    path = tmp_path / "file"
    path.write_text("content")
    future = path.stat().st_mtime + 86400
    os.utime(path, (future, future))
    cache = DigestCache(tmp_path)
    before = cache.of_file(path)
    path.write_text("CONTENT")
    os.utime(path, (future, future))
    assert cache.of_file(path) != before
    cache.save()
    assert not cache.path.exists()
