"""Odd data files through `grpo preprocess`: accepted, or refused in two lines that name file, line and reason.

Never a traceback, never a hang, and nothing written for what is refused.
"""

import gzip
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from grpo_cli.app import run

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
try:
    rows = importlib.import_module("odd_rows")
    files = importlib.import_module("odd_files")
finally:
    sys.path.remove(str(FOLDER))

GOOD: bytes = rows.GOOD
NAME = "rows.jsonl"
NOBODY = 65534
MOST_SECONDS = 60
MOST_CHARACTERS = 500
"""Of a line of an error, the path aside: whatever the file holds, it does not fill the screen."""


def interrupt(*_: object) -> None:
    raise TimeoutError(f"longer than {MOST_SECONDS} s")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Each file is alone in the working directory. What hangs is interrupted."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(MOST_SECONDS)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def written() -> list[Path]:
    """What a stage keeps: all files but locks, which are hidden, and the cache of digests."""
    store = Path(".grpo")
    kept = (path.relative_to(store) for path in store.rglob("*") if path.is_file())
    return [path for path in kept if not any(part.startswith((".", "digests")) for part in path.parts)]


def settings(assignments) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def train_path(path: str) -> str:
    return f"data.train_path={json.dumps(path, ensure_ascii=False)}"


def accepted(capsys, rows_read: int, *assignments: str, path: str = NAME) -> dict:
    """The summary of the command, which has to have read so many training rows."""
    code = run(["preprocess", "--json", "--quiet", *settings([train_path(path), *assignments])])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    summary = json.loads(captured.out)["summary"]
    assert summary["train"]["read"] == rows_read
    return summary


def refused(capsys, says: str, *assignments: str, path: str = NAME) -> tuple[str, str]:
    """The error, which has to say this and give a hint, on two lines and with nothing written; and that hint."""
    before = written()
    code = run(["preprocess", "--quiet", *settings([train_path(path), *assignments])])
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert (code, captured.out, len(lines)) == (2, "", 2 + path.count("\n")), captured.err
    assert says in captured.err
    assert lines[0].startswith("error: ")
    assert lines[-1].startswith("hint: ")
    assert len(lines[-1]) > len("hint: ")
    assert max(map(len, lines)) < len(path) + MOST_CHARACTERS
    assert written() == before
    return lines[0], lines[-1]


def put(content, name: str = NAME) -> None:
    Path(name).write_bytes(content() if callable(content) else content)


@pytest.mark.parametrize("name", rows.ACCEPTED)
def test_a_row_that_is_accepted(capsys, name):
    put(GOOD + rows.ACCEPTED[name] + b"\n" + GOOD)
    accepted(capsys, 3)


@pytest.mark.parametrize("name", rows.REFUSED)
def test_a_row_that_is_refused(capsys, name):
    line, reason = rows.REFUSED[name]
    put(GOOD + line + b"\n" + GOOD)
    refused(capsys, f"{NAME}:2: {reason}")


@pytest.mark.parametrize("name", files.ACCEPTED)
def test_a_file_that_is_accepted(capsys, name):
    content, expected = files.ACCEPTED[name]
    put(content)
    accepted(capsys, expected)


@pytest.mark.parametrize("name", files.REFUSED)
def test_a_file_that_is_refused(capsys, name):
    content, says = files.REFUSED[name]
    put(content)
    error, _ = refused(capsys, says)
    assert NAME in error


NO_FILES = {
    ".": "a directory",
    "/": "a directory",
    "pipe": "not a regular file but a pipe",
    "to-pipe": "not a regular file but a pipe",
    "pipe/rows.jsonl": "Not a directory",
    "socket": "not a regular file but a socket",
    "/dev/zero": "not a regular file but a device",
    "/dev/null": "not a regular file but a device",
    "loop": "Too many levels of symbolic links",
    "one": "Too many levels of symbolic links",
    "dangling": "No such file or directory",
    "absent.jsonl": "No such file or directory",
    "rows.jsonl ": "No such file or directory",
    "\u202erows": "No such file or directory",
    "x" * 300: "File name too long",
    "x/" * 3000: "File name too long",
    "~/absent.jsonl": "absent.jsonl: No such file or directory",
    "~nobody-here/rows.jsonl": "data.train_path (--set): nobody knows the home directory ~nobody-here",
    "http://localhost/rows.jsonl": "No such file or directory",
    "builtin:arithmetics": "there is no builtin:arithmetics",
    "": "data.train_path should be text that is not empty",
    "a\0b": "data.train_path",
    "rows.parquet": "data.train_path",
    "$HOME/rows.jsonl": "No such file or directory",
    "data/*.jsonl": "No such file or directory",
}


@pytest.mark.parametrize("path", NO_FILES, ids=[ascii(path)[:40] for path in NO_FILES])
def test_a_path_without_a_file(capsys, path):
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    for link, target in {"loop": "loop", "dangling": "nowhere", "one": "two", "two": "one", "to-pipe": "pipe"}.items():
        Path(link).symlink_to(target)
    error, _ = refused(capsys, NO_FILES[path], path=path)
    assert "data.train_path" in error
    assert "--set" in error


HINTS = {
    "carriage returns alone": (b'{"prompt": "a"}\r{"prompt": "b"}', "write newlines"),
    "one object with the rows in it": (b'{"data": [' + GOOD.strip() + b"]}", "jq -c '.\"data\"[]' FILE > rows.jsonl"),
    "NaN at the end": (GOOD + b'{"prompt": NaN}', "write null where a number is unknown"),
    "a field twice at the end": (GOOD + b'{"prompt": "a", "prompt": "b"}', "keep one of them"),
    "cut off": (GOOD + b'{"prompt": "a', "it looks cut off"),
    "cut off in a character": (GOOD + b'{"prompt": "\xc3', "it looks cut off"),
    "latin-1 at the end": (GOOD + b'{"prompt": "\xe9 "}', "save the file as UTF-8"),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_that_helps(capsys, name):
    content, help_ = HINTS[name]
    put(content)
    _, hint = refused(capsys, NAME)
    assert help_ in hint


@pytest.mark.parametrize("path", ["kmsg", "self/pagemap", "self/mem", "self/status"])
def test_a_file_that_the_system_makes_up(capsys, path):
    """Some of them wait for what will happen, and some have no end."""
    place = Path("/proc") / path
    if not place.exists():
        pytest.skip("no such file on this system")
    refused(capsys, f"data.train_path: {place}: ", path=str(place))


ODD_NAMES = [
    "a b.jsonl",
    "a\nb.jsonl",
    "\u65e5\u672c\U0001f600.jsonl",
    "-rows.jsonl",
    "# rows: [1].jsonl",
    "rows",
    "rows.JSONL",
    "rows.jsonl.gz",
    "rows.txt",
    "x" * 249 + ".jsonl",
    "%s{}.jsonl",
    "[bold]rows",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=[ascii(name)[:40] for name in ODD_NAMES])
def test_a_name_says_nothing(capsys, name):
    put(GOOD, name)
    accepted(capsys, 1, path=name)
    put(gzip.compress(GOOD * 2), name)
    accepted(capsys, 2, path=name)
    put(GOOD + b"{}\n", name)
    refused(capsys, ":2: no field 'prompt'", path=name)


def test_ways_to_the_same_file(capsys, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    put(GOOD)
    Path("link").symlink_to(NAME)
    Path("sub").mkdir()
    for path in (str(folder / NAME), f"./sub/../{NAME}", f"~/{NAME}", "link"):
        accepted(capsys, 1, path=path)


@pytest.fixture
def nobody(folder):
    """For root, who may read everything: be somebody else for a while."""
    folder.chmod(0o777)
    ours = os.geteuid()
    yield lambda: os.seteuid(NOBODY) if ours == 0 else None
    os.seteuid(ours)


def test_a_file_that_may_not_be_read(capsys, nobody):
    put(GOOD)
    accepted(capsys, 1)
    Path(NAME).chmod(0)
    nobody()
    refused(capsys, f"{NAME}: Permission denied")


def test_a_name_that_is_not_utf8(capsys):
    """What the locale cannot decode can be neither written into a configuration nor said."""
    put(GOOD, os.fsdecode(b"\xff.jsonl"))
    code = run(["preprocess", "--quiet", "--set", f"data.train_path={os.fsdecode(bytes([255]))}.jsonl"])
    assert (code, capsys.readouterr().err.count("\n")) == (2, 2)


def test_validation_rows(capsys):
    put(GOOD)
    says = f"1 of 1 validation rows ask what a training row asks, such as {NAME}:1 and {NAME}:1"
    refused(capsys, says, f"data.val_path={NAME}")
    refused(capsys, "data.val_fraction: all 1 rows became validation rows", "data.val_fraction=0.999999")
    refused(capsys, "absent.jsonl: No such file", "data.val_path=absent.jsonl")
    refused(capsys, ".: a directory", "data.val_path=.")
    put(b"", "empty.jsonl")
    refused(capsys, "empty.jsonl: no rows", "data.val_path=empty.jsonl")
    put(files.OTHER + b"{}\n", "val.jsonl")
    refused(capsys, "val.jsonl:2: no field 'prompt'", "data.val_path=val.jsonl")
    put(files.OTHER, "val.jsonl")
    assert accepted(capsys, 1, "data.val_path=val.jsonl")["val"]["read"] == 1


def test_limit_and_keys(capsys):
    put(GOOD * 3 + b"broken\n")
    accepted(capsys, 3, "data.limit=3")
    refused(capsys, f"{NAME}:4: not JSON", "data.limit=4")
    refused(capsys, f"{NAME}:1: no field 'question'", "data.prompt_key=question")
    refused(capsys, f"{NAME}:1: no field 'answer'", "data.completion_key=answer")
    accepted(capsys, 3, "data.completion_key=prompt", "data.limit=3")


def test_skipping_counts_and_gives_up(capsys):
    put(files.MANY * 9 + b"{}\n[]\n" * 45 + files.MANY)
    summary = accepted(capsys, 1000, "data.on_bad_row=skip", "data.val_fraction=0")
    assert sum(summary["bad_rows"]["train"].values()) == 90
    put(files.MANY * 9 + b"\xff\n" * 90)
    reasons = accepted(capsys, 900, "data.on_bad_row=skip")["bad_rows"]["train"]
    assert (len(reasons), reasons["other reasons"]) == (21, 70)
    put(files.MANY + b"{}\n" * 12)
    refused(capsys, f"12 of 112 rows are bad, too many to skip: {NAME}:101: no field", "data.on_bad_row=skip")
    put(b"{}\n" * 30)
    refused(capsys, "30 of 30 rows are bad", "data.on_bad_row=skip")
    put(gzip.compress(files.MANY, mtime=0)[:-40])
    refused(capsys, "the gzip data is damaged or cut off", "data.on_bad_row=skip")
    put(b"<html></html>\n" + files.MANY)
    refused(capsys, ":1: a web page", "data.on_bad_row=skip")
