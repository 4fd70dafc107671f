"""Preprocessing that is cut short or fed too much: a killed worker, an error far away, memory that must not grow."""

import subprocess
import sys
from pathlib import Path

import pytest

from grpo_cli.app import run as grpo
from pipelines.rows.loaders.registry import LoaderRegistry

LOADER = """
import os, signal
from pipelines.rows.loaders.base import BaseLoader, Chunk
from pipelines.rows.loaders.registry import LoaderRegistry

@LoaderRegistry.register("deadly")
class Deadly(BaseLoader):
    def cut(self, path):
        return (Chunk(path, 1, [(number, number)]) for number in range(1, 41))

    def row(self, record, place):
        if record == 30:
            ACTION
        return self.row_of({"prompt": f"{record}+1=?", "completion": "2"}, place)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
REFUSE = "return self.row_of({'prompt': 'x'}, place)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(LoaderRegistry, "_classes", dict(LoaderRegistry._classes))
    monkeypatch.setattr("pipelines.rows.encode._cores", lambda: 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("plugins: [deadly.py]\ndata: {loader_type: deadly, train_path: 'x://y'}\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "code", "told"),
    [
        (KILL, 1, "error: a process that was tokenising rows ended before its work was done"),
        (REFUSE, 2, "error: x://y:30: no field 'completion'"),
    ],
    ids=["killed", "refused"],
)
def test_what_ends_a_worker_ends_the_command_with_nothing_left(folder, capsys, action, code, told):
    (folder / "deadly.py").write_text(LOADER.replace("ACTION", action))
    assert grpo(["preprocess", "-q"]) == code
    error = capsys.readouterr().err
    assert told in error
    assert "hint: " in error
    assert not list(folder.glob(".grpo/stages/preprocess/[0-9a-f]*"))


MEASURED = """
import resource, sys
from grpo_cli.app import run
assert run(["preprocess", "-q", "-s", f"data.train_path={sys.argv[1]}", "-s", f"paths.stages={sys.argv[2]}"]) == 0
peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
sys.stderr.write(" ".join(str(peak // 1024) for peak in peaks))
"""


def peaks(folder: Path, rows: int) -> list[int]:
    """Megabytes of the process itself and of its largest worker, after so many rows of 1,000 characters."""
    path = folder / f"{rows}.jsonl"
    with path.open("w") as stream:
        for index in range(rows):
            stream.write(f'{{"prompt": "{index}+1=?", "completion": "2", "meta": {{"told": "{"x" * 1000}"}}}}\n')
    command = [sys.executable, "-c", MEASURED, str(path), str(folder / f"stages{rows}")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return [int(word) for word in result.stderr.split()[-2:]]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """100,000 rows more are 100 MB of text, and a few of what is remembered about each."""
    few, many = peaks(tmp_path, 20_000), peaks(tmp_path, 120_000)
    assert few[1] > 50, "no worker took part"
    assert many[0] - few[0] < 40
    assert many[1] - few[1] < 40
