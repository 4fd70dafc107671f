"""Killed at any moment, or damaged afterwards: the newest intact checkpoint is found, and damage is said aloud."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.config import CheckpointingConfig
from pipelines.errors import CheckpointError
from pipelines.training.checkpoints import Checkpoints

SAVER = """
import random, sys
from pathlib import Path
from pipelines.config import CheckpointingConfig
from pipelines.training.checkpoints import Checkpoints

store = Checkpoints(Path(sys.argv[1]), CheckpointingConfig(keep_last_n=2))
found = store.latest()

def content(step):
    return random.Random(step).randbytes(200_000)

def save(step):
    store.save(step, lambda path: (path / "model.safetensors").write_bytes(content(step)), {"step": step}, step % 7)
"""

LOOP = (
    SAVER
    + """
step = found.step if found else 0
print("ready", flush=True)
while True:
    step += 1
    save(step)
    print(step, flush=True)
"""
)

EVERY_OPERATION = (
    SAVER
    + """
# Forks a child that saves step 3 (or replaces step 2) and is killed before its n-th file operation, for every n.
import os, shutil, signal

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

def child(step, left):
    def count(event, arguments):
        nonlocal left
        if event in OPERATIONS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    save(step)
    os._exit(0)

def survived(step, left):
    pid = os.fork()
    if pid == 0:
        child(step, left)
    return os.waitpid(pid, 0)[1] == 0

pristine = store.directory
save(1); save(2)
for step in (2, 3):
    left, done = 0, False
    while not done:
        directory = pristine.with_name(f"killed-{step}-{left}")
        shutil.copytree(pristine, directory)
        store = Checkpoints(directory, CheckpointingConfig(keep_last_n=2))
        done = survived(step, left)
        found = store.latest()
        assert found is not None, left
        assert found.step >= 2 or (step == 2 and found.step == 1), (left, found)
        assert (found.path / "model.safetensors").read_bytes() == content(found.step)
        save(4)  # the next process carries on, and clears up
        assert store.latest().step == 4
        assert not list(directory.glob(".*grpo-tmp")), left
        assert len(store.steps()) <= 3
        shutil.rmtree(directory)
        left += 1
    print(step, left)
"""
)


def environment():
    """One BLAS thread: the children compute nothing."""
    return os.environ | {"OPENBLAS_NUM_THREADS": "1"}


def run_until_killed(directory, seconds):
    """Steps whose `save` returned before SIGKILL came, `seconds` after the first one began."""
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(directory)], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        done = process.stdout.read().split("\n")[:-1]
    return [int(line) for line in done]


@pytest.mark.slow
def test_killed_at_random_moments_the_last_saved_step_is_there(tmp_path):
    directory = tmp_path / "checkpoints"
    moments = random.Random(7)
    store = Checkpoints(directory, CheckpointingConfig(keep_last_n=2))
    last = 0
    for _ in range(8):
        last = max([last, *run_until_killed(directory, moments.uniform(0.0, 0.15))])
        found = store.latest()
        if last == 0 and found is None:
            continue  # killed before the first one
        assert found.step in (last, last + 1)  # published, but killed before it could say so
        assert (found.path / "model.safetensors").read_bytes() == random.Random(found.step).randbytes(200_000)
        assert found.state == {"step": found.step}
        last = found.step
    assert last > 3, "too few saves for the test to mean anything"


@pytest.mark.slow
def test_killed_before_every_single_file_operation(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", EVERY_OPERATION, str(tmp_path / "checkpoints")],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert run.returncode == 0, run.stderr
    operations = dict(map(int, line.split()) for line in run.stdout.splitlines())
    assert set(operations) == {2, 3}
    assert min(operations.values()) > 20  # opening, making, renaming, removing


@pytest.fixture
def directory(tmp_path):
    store = Checkpoints(tmp_path, CheckpointingConfig())
    for step in (100, 200, 300):
        store.save(step, lambda path, step=step: (path / "model.safetensors").write_bytes(b"w" * step), {"step": step})
    return tmp_path


def truncate(path: Path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def garble(path: Path):
    path.write_bytes(b"\x00\xff")


def empty(path: Path):
    path.write_bytes(b"")


DAMAGES = [
    ("model.safetensors", truncate, "model.safetensors: 150 bytes instead of 300"),
    ("model.safetensors", flip_a_bit, "model.safetensors: content changed"),
    ("model.safetensors", Path.unlink, "model.safetensors: gone"),
    ("state.json", flip_a_bit, "state.json: content changed"),
    ("state.json", Path.unlink, "state.json: gone"),
    ("manifest.json", Path.unlink, "there is no manifest.json"),
    ("manifest.json", truncate, "manifest.json"),
    ("manifest.json", garble, "manifest.json"),
    ("manifest.json", empty, "manifest.json"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES)
def test_damage_is_named_and_the_previous_step_is_used(directory, caplog, name, damage, words):
    damage(directory / "step_000300" / name)
    store = Checkpoints(directory, CheckpointingConfig())
    assert store.latest().step == 200
    first, second = (record.getMessage() for record in caplog.records)
    assert "step_000300 is damaged and not used" in first
    assert words in first
    assert second == f"{directory / 'step_000200'} is used instead"
    with pytest.raises(CheckpointError, match="no usable checkpoint") as caught:
        store.at(300)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"kind": "grpo checkpoint", "format": 1}', '{"kind": "grpo checkpoint", "format": 99}', "1e999"],
)
def test_a_manifest_of_something_else_is_damage(directory, caplog, content):
    (directory / "step_000300" / "manifest.json").write_text(content)
    assert Checkpoints(directory, CheckpointingConfig()).latest().step == 200
    assert "manifest" in caplog.text


def test_without_verify_only_sizes_are_compared(directory):
    flip_a_bit(directory / "step_000300" / "model.safetensors")
    truncate(directory / "step_000200" / "model.safetensors")
    store = Checkpoints(directory, CheckpointingConfig(verify=False))
    assert store.at(300).step == 300
    assert store.problems(directory / "step_000200")


def test_when_nothing_is_intact_it_is_said(directory, caplog):
    for step in (100, 200, 300):
        truncate(directory / f"step_000{step}" / "model.safetensors")
    assert Checkpoints(directory, CheckpointingConfig()).latest() is None
    assert caplog.messages[-1] == f"no checkpoint in {directory} is intact"


def test_a_copied_directory_is_not_taken_for_its_name(directory, caplog):
    (directory / "step_000300").rename(directory / "step_000900")
    assert Checkpoints(directory, CheckpointingConfig()).latest().step == 200
    assert "it is a copy of step 300" in caplog.text


def test_a_damaged_best_gives_way_to_the_next(tmp_path, caplog):
    store = Checkpoints(tmp_path, CheckpointingConfig())
    for step, reward in ((1, 0.5), (2, 0.9), (3, 0.7)):
        store.save(step, lambda path: (path / "w").write_bytes(b"weights"), {}, reward)
    flip_a_bit(tmp_path / "step_000002" / "w")
    assert store.best().step == 3
    assert "the best checkpoint" in caplog.text


def test_damaged_ones_do_not_push_out_intact_ones(directory):
    truncate(directory / "step_000300" / "model.safetensors")
    store = Checkpoints(directory, CheckpointingConfig(keep_last_n=2))
    store.save(400, lambda path: (path / "w").write_bytes(b"weights"), {})
    assert store.steps() == [200, 300, 400]
    store.save(500, lambda path: (path / "w").write_bytes(b"weights"), {})
    assert store.steps() == [400, 500]


def test_a_damaged_step_can_be_saved_again(directory):
    (directory / "step_000300" / "manifest.json").unlink()
    store = Checkpoints(directory, CheckpointingConfig())
    store.save(300, lambda path: (path / "w").write_bytes(b"new"), {})
    assert store.latest().step == 300
    assert (directory / "step_000300.old-1" / "model.safetensors").exists()


def test_leftovers_of_dead_processes_are_cleared_by_the_next_save(directory):
    half = directory / ".step_000400-00000000.grpo-tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    gone = directory / ".gone_000100-00000000.grpo-tmp"
    (directory / "step_000100").rename(gone)
    Checkpoints(directory, CheckpointingConfig()).save(500, lambda path: None, {})
    assert not half.exists()
    assert not gone.exists()
    assert not (directory / "step_000100").exists()


def test_leftovers_free_their_space_before_the_next_one_is_written(directory):
    half = directory / ".step_000400-00000000.grpo-tmp"
    half.mkdir()
    seen = []
    Checkpoints(directory, CheckpointingConfig()).save(600, lambda path: seen.append(half.exists()), {})
    assert seen == [False]


def test_a_finished_leftover_is_used_when_there_is_nothing_else(directory):
    for step in (100, 200):
        (directory / f"step_000{step}" / "manifest.json").unlink()
    (directory / "step_000300").rename(directory / ".step_000300-00000000.grpo-tmp")
    store = Checkpoints(directory, CheckpointingConfig())
    assert store.latest().step == 300
    store.save(400, lambda path: None, {})
    assert json.loads((directory / "step_000300" / "state.json").read_text())["step"] == 300
