"""The code sandbox against the whole corpus: hostile answers earn what they honestly solve and leave nothing behind."""

import importlib
import json
import selectors
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.sandbox.isolation import available

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
corpus, world = importlib.import_module("sandbox_corpus"), importlib.import_module("sandbox_world")
HOSTILE = importlib.import_module("sandbox_corpus_hostile").HOSTILE
HONEST = importlib.import_module("sandbox_corpus_honest").HONEST
living = importlib.import_module("sandbox_trainer").living
sys.path.remove(str(FOLDER))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what is left behind is read in /proc"),
]

CLOCK_SECONDS = 40.0
"""More than any answer may take: the limit of all its tests, and room for a busy machine."""

LATE_SECONDS = 1.5
"""By then a daemon of the corpus would have written its marker."""


class Trainer:
    """A process that scores, in a world that is watched; replaced when an answer has killed it."""

    def __init__(self, around):
        self.around = around
        self.process = self._start()

    def _start(self):
        ready = [sys.executable, str(FOLDER / "sandbox_trainer.py"), f"--token={corpus.SECRET}"]
        return subprocess.Popen(
            ready,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.around.folder / "cwd",
            env={**self.around.environment(), "PYTHONPATH": str(FOLDER.parents[1])},
            start_new_session=True,
        )

    def score(self, entry):
        """What the trainer says; a failure where it died or took too long."""
        filled = entry.at(self.around.places(entry, self.process.pid))
        self.ask(filled)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            waited = selector.select(CLOCK_SECONDS)
        said = self.process.stdout.readline() if waited else b""
        if said:
            return json.loads(said)
        state = self.process.poll()
        pytest.fail(f"the trainer {'hangs' if state is None else f'died: {state}'}; harm: {self.replace()}")

    def ask(self, entry):
        line = json.dumps({"completion": entry.completion, "tests": entry.tests})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def harm(self, found):
        """What is left behind, in words; after which nothing is: a harmed trainer is replaced as well."""
        harm = self.around.harm()
        harm += [f"process {process} still runs: {name}" for process, name in found["left"].items()]
        harm += [f"the trainer's {name} changed to {value}" for name, value in found["changed"].items()]
        return harm + self.replace() if harm else []

    def replace(self):
        self.close()
        harm = self.around.harm()
        self.process = self._start()
        return harm

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    around = world.World(tmp_path_factory.mktemp("world"))
    made = Trainer(around)
    yield made
    made.close()
    around.close()


@pytest.fixture(scope="module")
def confined(trainer):
    """No hostile answer runs where it could hurt: not below strong isolation, nor where a probe gets out."""
    if (level := available().level) != "strong":
        pytest.skip(f"hostile answers need strong isolation, and this machine gives {level}")
    probe = next(entry for entry in HOSTILE if entry.name == "file_write_marker")
    if harm := trainer.harm(trainer.score(probe)):
        pytest.fail(f"a harmless answer got out, so none that harms is tried: {harm}")


@pytest.mark.parametrize("entry", HOSTILE, ids=lambda entry: entry.name)
@pytest.mark.usefixtures("confined")
def test_a_hostile_answer_earns_nothing_it_has_not_solved(trainer, entry):
    found = trainer.score(entry)
    time.sleep(LATE_SECONDS if entry.late else 0)
    assert trainer.harm(found) == []
    assert found["score"] == pytest.approx(entry.score)


@pytest.mark.parametrize("entry", HONEST, ids=lambda entry: entry.name)
def test_an_honest_answer_earns_what_it_solves(trainer, entry):
    found = trainer.score(entry)
    assert found["score"] == pytest.approx(entry.score)
    assert trainer.harm(found) == []


@pytest.mark.usefixtures("confined")
def test_nothing_outlives_a_trainer_that_is_killed(trainer):
    """No chance to clean up: the kernel has to, or the sandbox's own watch."""
    entry = next(entry for entry in HOSTILE if entry.name == "loop_own_session")
    assert trainer.score(HONEST[0])["score"] == 1.0  # it has started by now
    trainer.ask(entry)
    end = time.monotonic() + 10
    while len(living(trainer.process.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    at_work = living(trainer.process.pid)
    assert at_work  # else there is nothing to outlive it
    trainer.replace()
    end = time.monotonic() + LATE_SECONDS * 2
    while (left := {process: at_work[process] for process in at_work if running(process)}) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == {}


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_is_left_behind_is_seen(tmp_path):
    """The world that watches is watched: each kind of harm is found, once, and put back."""
    around = world.World(tmp_path)
    assert around.harm() == []
    (tmp_path / "canary").write_text("changed")
    assert around.harm() == ["file 'canary' is changed"]
    (tmp_path / "tmp" / "left").touch()
    assert around.harm() == ["file 'tmp/left' is new"]
    around.marker(HOSTILE[0]).touch()
    assert around.harm() == [f"file 'marker-{HOSTILE[0].name}' is new"]
    with world.socket.create_connection(("127.0.0.1", around.tcp_port)):
        assert around.harm() == ["server tcp was reached"]
    assert around.harm() == []
    around.close()
