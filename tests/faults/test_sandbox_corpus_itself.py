"""The corpus is well formed, its honest answers are honest, and a naive executor fails most of the hostile ones."""

import ast
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
corpus, world = importlib.import_module("sandbox_corpus"), importlib.import_module("sandbox_world")
FAMILIES = importlib.import_module("sandbox_corpus_hostile").FAMILIES
HOSTILE = importlib.import_module("sandbox_corpus_hostile").HOSTILE
HONEST = importlib.import_module("sandbox_corpus_honest").HONEST
sys.path.remove(str(FOLDER))

NOT_NAIVE = {
    "form_stdio_buffer": "its standard input has no bytes",
    "form_stdio_open": "its standard input has no descriptor",
    "layout_fence_tilde": "knows backticks alone",
    "layout_fence_indented": "keeps the list's indentation",
    "layout_bom": "takes the mark for a letter",
    "layout_fence_python3": "knows this language by two names",
    "layout_fence_unclosed": "wants a fence to close",
    "layout_prose_without_fence": "wants a fence around code",
    "layout_shell_fence": "runs every fence",
}
"""Honest answers that the naive executor itself cannot serve."""

SECONDS = 4
"""After which the naive trainer itself counts as hanging: its alarm rings after one second a test."""

HARMLESS = ("wrong", "syntax", "text")
UNCAGED = ("equality", "gadgets", "patches", "peeks", "forgeries", "exits", "loops")
"""Families that the naive executor may run: tricks within their own process. Files, network, daemons, bombs and other
processes are for the sandbox alone."""

LEAST_FAILED = 0.5
"""Measured: 74 of 126 on Linux."""


def run_naive(entry, around, limit=SECONDS):
    """The naive trainer's score, or None where it died or hung."""
    entry = entry.at(around.places(entry, trainer=2**30))
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "naive_executor.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=around.folder / "cwd",
        env=around.environment(),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        written, _ = process.communicate(json.dumps({"completion": entry.completion, "tests": entry.tests}), limit)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        return None
    finally:
        end(process)
    last = written.strip().rpartition("\n")[2]
    return float(last) if process.returncode == 0 and re.fullmatch(r"[01]\.\d+", last) else None


def end(process):
    """The whole session, with what was forked off it within."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        stream.close()


@pytest.fixture
def around(tmp_path):
    made = world.World(tmp_path)
    yield made
    made.close()


def test_names_are_unique_and_counts_hold():
    names = [entry.name for entry in [*HOSTILE, *HONEST]]
    assert len(set(names)) == len(names)
    assert len(HOSTILE) >= 280
    assert len(HONEST) >= 110
    assert all(len(family) >= 8 for family in FAMILIES.values())


@pytest.mark.parametrize("entry", [*HOSTILE, *HONEST], ids=lambda entry: entry.name)
def test_entries_are_well_formed(entry):
    assert entry.tests
    assert entry.why
    assert re.fullmatch(r"[a-z0-9_]+", entry.name)
    assert entry.score * len(entry.tests) == pytest.approx(round(entry.score * len(entry.tests)))
    for test in entry.tests:
        if isinstance(test, str):
            compile(test, entry.name, "exec")
        else:
            assert set(test) in ({"input", "expected"}, {"check", "entry_point"})
    places = set(re.findall(r"@([A-Z]+)@", entry.completion))
    assert places <= set(corpus.PLACES)


@pytest.mark.parametrize(
    "entry",
    [entry for name in FAMILIES if name not in HARMLESS[1:] for entry in FAMILIES[name]],
    ids=lambda entry: entry.name,
)
def test_hostile_code_is_code(entry):
    """A typing error would earn nothing too, and prove nothing."""
    filled = entry.at(dict.fromkeys(corpus.PLACES, 12345))
    ast.parse(re.fullmatch(r"```python\n(.*)\n```", filled.completion, re.DOTALL)[1])


@pytest.mark.parametrize("entry", HOSTILE, ids=lambda entry: entry.name)
def test_what_deletes_or_kills_names_its_target(entry):
    """A place computed where it runs, such as the working directory, may be the whole machine on a second call."""
    for target in re.findall(r"rmtree\((.*?)[,)]", entry.completion):
        assert re.fullmatch(r"'@(CWD|HOME)@'", target)
    if "kill(-1" in entry.completion:
        assert "!= '@PIDNS@'" in entry.completion
    if not entry.control:
        return
    assert not re.search(r"rmtree|unlink|rmdir|rename|kill\(-1|getppid\(\), ", entry.completion)


@pytest.mark.slow
def test_honest_answers_are_honest(around):
    """Run without any protection; those are left out that a naive extraction or namespace cannot serve."""
    wrong = {}
    for entry in HONEST:
        found = run_naive(entry, around, 10)
        if found != pytest.approx(entry.score) and entry.name not in NOT_NAIVE:
            wrong[entry.name] = found
    assert wrong == {}


def naively(folder, entries):
    """How the naive executor failed, by entry: died or hung, a wrong score, or its world harmed."""
    around, failed = world.World(folder), {}
    for entry in entries:
        found = run_naive(entry, around)
        time.sleep(1.5 if entry.late else 0)
        harm = around.harm()
        if found is None or found != pytest.approx(entry.score) or harm:
            failed[entry.name] = "died" if found is None else harm or found
    around.close()
    return failed


@pytest.mark.slow
def test_a_naive_executor_fails_most(tmp_path):
    """Of the answers that can be run without a cage; the merely wrong anybody gets right."""
    tried = [entry for name in UNCAGED for entry in FAMILIES[name] if entry.control]
    assert len(tried) > 120
    with ThreadPoolExecutor(4) as pool:  # most of the time is waiting
        parts = pool.map(naively, [tmp_path / str(part) for part in range(4)], [tried[part::4] for part in range(4)])
        failed = {name: how for part in parts for name, how in part.items()}
    held = sorted({entry.name for entry in tried} - set(failed))
    assert len(failed) / len(tried) > LEAST_FAILED, held
