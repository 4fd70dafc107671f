"""`grpo inspect-rewards` as a program: widths, hostile texts, warnings and exit codes, JSON, the page, many rows."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from time import perf_counter

import pytest

from pipelines.monitoring.visible import columns

ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \u202egnol\u202c \x7f\r"
MARKUP = '<script>alert(1)</script><img src="http://example.org/x.png" onerror="x()"> & "quotes" \'too\''
PLUGIN = """
import re

from pipelines.rewards import BaseReward, RewardRegistry


@RewardRegistry.register_function("sound")
def sound(context):
    return {"reward": float(context.answer == context.reference_answer), "answer": context.answer[:40]}


@RewardRegistry.register_function("same")
def same(context):
    return 0.5


@RewardRegistry.register_function("grudging")
def grudging(context):
    return 0.9 * (context.answer == context.reference_answer)


@RewardRegistry.register_function("anywhere")
def anywhere(context):
    return float(context.reference_answer in re.findall(r"\\d+", context.generated_text))


@RewardRegistry.register_function("wordy")
def wordy(context):
    return min(1.0, len(context.generated_text) / 100)


@RewardRegistry.register_function("silent")
def silent(context):
    return None


@RewardRegistry.register("hangs")
class Hangs(BaseReward):
    time_limit_seconds = 0.5

    def compute(self, context):
        while context.generated_text == "HANG":
            pass
        return 1.0


@RewardRegistry.register_function("breaks")
def breaks(context):
    raise ValueError("cannot read " + context.generated_text)
"""
BLOCKS = {"script", "link", "iframe", "object", "embed", "img", "base", "form", "a"}
VOID = {"meta"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plugin with a sound reward and one for each trouble; 40 rows, some of them with hostile texts."""
    place = tmp_path_factory.mktemp("views")
    (place / "mine.py").write_text(PLUGIN)
    write(place / "rows.jsonl", [sum_row(n) for n in range(40)])
    hostile = [ESCAPES, MARKUP, "\u4e94" * 90, "x" * 3000, "a\nb\tc", ""]
    write(place / "hostile.jsonl", [sum_row(n) | {"generated": text} for n, text in enumerate(hostile)])
    return place


def sum_row(n):
    text = "so " * (n % 7) + f"{n}+{n}"
    gold = f"<think>{text}</think>{2 * n}"
    return {"prompt": f"{n}+{n}=?", "completion": gold, "generated": gold}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arguments(*more, rewards="sound"):
    entries = ", ".join(f"{{name: {name}}}" for name in rewards.split())
    return ["inspect-rewards", "-s", "plugins=[mine.py]", "-s", f"rewards=[{entries}]", *map(str, more)]


def run(folder, *more, rewards="sound", **environment):
    """The command in a process of its own, its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "grpo_cli", *arguments(*more, rewards=rewards)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def run_in_terminal(folder, *more, rewards="sound", **environment):
    """What a terminal of 80 columns receives."""
    ours, theirs = pty.openpty()
    got = bytearray()

    def listen():
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                return
            got.extend(block)

    listener = threading.Thread(target=listen)
    listener.start()
    code = subprocess.call(
        [sys.executable, "-m", "grpo_cli", *arguments(*more, rewards=rewards)],
        cwd=folder,
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    listener.join()
    os.close(ours)
    return code, got.decode()


@pytest.mark.parametrize(
    ("rewards", "warning"),
    [
        ("sound same", "same is constant: 0.5 for all"),
        ("grudging", "gold scores below 0.95 on 40 of 40 rows"),
        ("anywhere", "adversarial text scores high: answer spam gets 1 on average, gold 1"),
        ("wordy", "wordy follows the length: r = 1.00 over 40 rows"),
        ("sound silent", "silent has no value for any completion"),
        ("sound breaks", "breaks failed on 40 rows, first on row 0: ValueError: cannot read"),
    ],
)
def test_a_warning_for_each_trouble_and_exit_code_1_with_check(folder, rewards, warning):
    found = run(folder, "--completions", "rows.jsonl", "--check", "-q", rewards=rewards)
    assert (found.returncode, warning in found.stderr) == (1, True), found.stderr


def test_a_reward_that_hangs_is_stopped_and_told(folder):
    write(folder / "hang.jsonl", [sum_row(n) | ({"generated": "HANG"} if n == 2 else {}) for n in range(4)])
    found = run(folder, "--completions", "hang.jsonl", rewards="sound hangs")
    assert found.returncode == 0
    assert "hangs failed on 1 row, first on row 2: " in found.stderr
    assert "HANG" in found.stdout


def test_without_check_a_warning_is_no_failure(folder):
    found = run(folder, "--completions", "rows.jsonl", "-q", rewards="grudging")
    assert (found.returncode, "warning: gold scores below" in found.stderr) == (0, True)


def test_not_a_word_about_a_sound_reward(folder):
    write(folder / "tries.jsonl", [sum_row(n) | ({"generated": "no"} if n % 3 else {}) for n in range(40)])
    for source in (("--completions", "tries.jsonl"), ("-s", f"data.train_path={folder / 'rows.jsonl'}")):
        found = run(folder, *source, "--check", "-q")
        assert (found.returncode, found.stderr) == (0, "")
        assert "Texts that deserve nothing" in found.stdout


@pytest.mark.parametrize("rewards", ["sound", "sound breaks wordy same"])
def test_hostile_texts_never_reach_a_pipe_raw_and_lines_fit(folder, rewards):
    found = run(folder, "--completions", "hostile.jsonl", rewards=rewards)
    assert found.returncode == 0
    for stream in (found.stdout, found.stderr):
        assert not set(stream) & set("\x1b\x07\x9b\x7f\r\u202e\u202c")
    assert "\u241b[31mred" in found.stdout
    assert [line for line in found.stdout.splitlines() if columns(line) > 80] == []
    assert "x\u2026x" in found.stdout


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_hostile_texts_never_reach_a_terminal_raw_and_lines_fit(folder, no_color):
    code, printed = run_in_terminal(
        folder, "--completions", "hostile.jsonl", "-q", rewards="sound breaks format_structure", **no_color
    )
    assert code == 0
    assert not set(printed) & set("\x07\x9b\x7f\u202e\u202c")
    assert "\x1b[31mred" not in printed
    assert "\x1b]" not in printed
    assert "\u241b[31mred" in printed
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    tables = [line for line in lines if not line.startswith("warning: ")]  # the terminal wraps these
    assert [line for line in tables if columns(line) > 80] == []
    assert "format_structure" in printed


def test_json_is_what_programs_rely_on(folder):
    found = run(folder, "--completions", "hostile.jsonl", "--json", rewards="sound breaks silent")
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(rows) == 6
    for number, row in enumerate(rows):
        assert list(row) == ["row", "total", "rewards", "reasons"]
        assert row["row"] == number
        assert list(row["rewards"]) == ["sound", "breaks", "silent"]
        assert row["rewards"]["breaks"] is None
        assert row["rewards"]["silent"] is None
        assert row["total"] == row["rewards"]["sound"] == 0.0
        assert row["reasons"]["breaks"]["failed"].startswith("ValueError: cannot read")
    assert rows[0]["reasons"]["sound"]["answer"] == ESCAPES.strip()[:40]
    assert not set(found.stdout) & set("\x1b\x07\x9b\x7f\u202e\u202c")


def test_quiet_leaves_tables_and_warnings(folder):
    found = run(folder, "--completions", "rows.jsonl", "-q", rewards="same")
    assert found.stdout.startswith("The 10 strangest of 40 rows")
    assert all(line.startswith("warning: ") for line in found.stderr.splitlines())


class Structure(HTMLParser):
    """The elements of a page, whether they close in order, and what they refer to."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.references, self.wrong = [], set(), [], []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.references += [(tag, name, value) for name, value in attrs if name in ("href", "src", "style")]
        self.wrong += [(tag, name) for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize("source", [("--completions", "hostile.jsonl"), ("--completions", "rows.jsonl")])
def test_the_page_is_whole_and_refers_to_nothing(folder, source):
    page = folder / "pages" / "page.html"
    found = run(folder, *source, "--html", page, rewards="sound breaks wordy")
    assert found.returncode == 0
    text = page.read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(text)
    structure.close()
    run(folder, *source, "--html", page, rewards="sound breaks wordy")
    assert page.read_text(encoding="utf-8") == text, "a cached result makes the same page"
    assert (structure.open, structure.wrong, structure.references) == ([], [], [])
    assert not structure.seen & BLOCKS
    assert {"svg", "table", "pre", "details", "style"} <= structure.seen
    assert not set(text) & set("\x1b\x07\x9b\x7f\r\u202e\u202c")
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    for heading in ("Texts that deserve nothing", "Rows by value", "Do they agree?", "failures", "strangest rows"):
        assert heading in text
    if "hostile.jsonl" in source:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_two_thousand_rows_take_seconds(folder):
    write(folder / "many.jsonl", [sum_row(n) for n in range(2000)])
    start = perf_counter()
    rewards = "sound wordy format_structure answer_quality"
    found = run(folder, "--completions", "many.jsonl", "-v", "--html", "many.html", rewards=rewards)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("2000 rows\n")
    assert "the first 200 of 2000" in (folder / "many.html").read_text(encoding="utf-8").lower()
    assert perf_counter() - start < 60
