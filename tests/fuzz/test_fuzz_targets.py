"""Each fuzz target takes its seeds and what fuzzing has found; the driver finds a crash, saves it and says so."""

import importlib
import json
import random
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
try:
    drive, targets = importlib.import_module("drive"), importlib.import_module("targets")
finally:
    sys.path.remove(str(FOLDER))

TARGETS = targets.TARGETS
RECORD = json.loads(TARGETS["manifest"].seeds[1])
DEEP = b"[" * 900 + b"]" * 900
FILE = RECORD["files"][0]

FOUND = {
    "code": [
        b"\0def f" + b" " * 990,
        b"\0```" + b" " * 60_000 + b"`",
        b"\0" + b"~" * 60_000 + b"`",
        b"\0```python\n" + (b"from " + b"." * 990 + b"\n") * 400,
        b"\0" + (b")" * 990 + b"!\n") * 60,
    ],
    "manifest": [
        json.dumps(RECORD | {"files": [FILE | {"size_bytes": float("inf")}]}).encode(),
        json.dumps(RECORD["identity"] | RECORD | {"files": [FILE | {"path": "x" * 5000}]}).encode(),
        json.dumps(RECORD["identity"] | {"config": {"x": "deep"}}).encode().replace(b'"deep"', DEEP),
    ],
    "yaml": [
        b"# " + "\u00e9".encode() * 50 + b"\n\x07",
        b"trainer: {seed: 0x" + b"f" * 5000 + b"}",
        b"rewards:\n" + b"- exact_match\n" * 4000,
        b"\n".join([b"a0: &a0 [x]", *(b"a%d: &a%d [*a%d]" % (i, i, i - 1) for i in range(1, 130))]),
    ],
    "jsonl": [
        b'{"prompt": "a", "completion": "b", "meta": {"x": ' + DEEP + b"}}",
        b'{"prompt": "\\u200b", "completion": "b"}',
    ],
}
"""What once made a target raise something else than an error of ours, or take too long."""


@pytest.fixture(autouse=True)
def room():
    yield
    targets.close()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found(name):
    outcomes = set()
    for data in (*TARGETS[name].seeds, *FOUND.get(name, ())):
        started = time.perf_counter()
        outcomes.add(drive.attempt(TARGETS[name], data))
        assert time.perf_counter() - started < drive.MOST_SECONDS, data[:80]
    assert "accepted" in outcomes


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_mutations(name):
    draw = random.Random(0)
    corpus = list(TARGETS[name].seeds)
    assert {drive.attempt(TARGETS[name], drive.mutated(draw, corpus, TARGETS[name].words)) for _ in range(30)}


def broken(data: bytes) -> None:
    if b"!" in data:
        raise IndexError("!")


def test_a_crash_is_saved_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drive, "CRASHES", tmp_path)
    target = targets.Target(broken, (b"a",), (b"!",))
    assert drive.with_mutator("broken", target, 20, seed=1) == 1
    (saved,) = tmp_path.glob("crash-broken-*")
    assert b"!" in saved.read_bytes()
    said = capsys.readouterr().err
    assert "IndexError" in said
    assert str(saved) in said


def test_no_crash_and_no_such_target(capsys):
    target = targets.Target(lambda data: None, (b"a",), (b"b",))
    assert drive.with_mutator("sound", target, 0.05, seed=1) == 0
    assert "own mutator, seed 1" in capsys.readouterr().err
    assert drive.main(["nothing"]) == 2
    assert "there are code, regions, jsonl, yaml, manifest" in capsys.readouterr().err
