"""What the README and the concept page show of `inspect-rewards` is what it prints, and the repair repairs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.rewards.battery import ATTACKED_ROWS, ATTACKS
from pipelines.rewards.inspection import GOLD_SHOULD_REACH
from pipelines.rewards.verdicts import HIGH_SHARE, LENGTH_CONTROL, LENGTH_CORRELATION, LENGTH_ROWS, LENGTH_SPREAD

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Look at your reward before you train on it\n")[2].partition("\n## ")[0]
PAGE = (ROOT / "docs" / "concepts" / "inspecting-rewards.md").read_text(encoding="utf-8")
REWARDS = (ROOT / "docs" / "concepts" / "rewards.md").read_text(encoding="utf-8")
SKIPPED = re.compile(r"\[\.\.\..*\]")


def sessions(text):
    """The commands of a text's console blocks, each with the lines that are shown of its output."""
    blocks = re.findall(r"^```console\n\$ (grpo inspect-rewards.*?)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(command, shown.splitlines()) for command, shown in blocks]


def written(text, language):
    """The code blocks that name their file in the first line."""
    return dict(re.findall(rf"^```{language}\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the README's section and of the page."""
    place = tmp_path_factory.mktemp("shown")
    for name, code in (written(SECTION, "python") | written(PAGE, "python")).items():
        (place / name).write_text(code)
    (place / "config.yaml").write_text(re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[1])
    return place


def run(command, folder):
    program, *arguments = shlex.split(command)
    assert program == "grpo"
    return subprocess.run(
        [sys.executable, "-m", "grpo_cli", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def assert_shown(shown, printed):
    """Every line that is shown was printed, in this order; between two without `[...]` nothing was left out."""
    lines, at, skipping = printed.splitlines(), 0, False
    for line in shown:
        if SKIPPED.fullmatch(line):
            skipping = True
            continue
        found = next((n for n in range(at, len(lines)) if lines[n].rstrip() == line.rstrip()), None)
        assert found is not None, f"not printed: {line}\n{printed}"
        assert skipping or found == at, f"left out: {lines[at:found]}"
        at, skipping = found + 1, False


def test_the_readme_shows_a_hack_and_its_repair(folder):
    (bad, shown), (good, repaired) = sessions(SECTION)
    found = run(bad, folder)
    assert found.returncode == 1
    assert_shown(shown, found.stdout)
    found = run(good, folder)
    assert found.returncode == 0
    assert "warning" not in found.stdout
    assert_shown(repaired, found.stdout)


@pytest.mark.parametrize(
    ("command", "shown"), [pytest.param(*session, id=f"session-{n}") for n, session in enumerate(sessions(PAGE))]
)
def test_sessions_of_the_page(command, shown, folder):
    assert_shown(shown, run(command, folder).stdout)


def test_the_session_of_the_rewards_page(tmp_path):
    ((command, shown),) = sessions(REWARDS)
    found = run(command, tmp_path)
    assert found.returncode == 0
    assert_shown(shown, found.stdout)


def test_the_session_is_there():
    assert len(sessions(PAGE)) == 1


def test_a_line_that_was_not_printed_is_noticed():
    with pytest.raises(AssertionError):
        assert_shown(["a", "c"], "a\nb\n")
    with pytest.raises(AssertionError):
        assert_shown(["a", "c"], "a\nb\nc\n")
    assert_shown(["a", "[... b]", "c"], "a\nb\nc\n")


def test_the_page_knows_every_adversarial_text():
    table = PAGE.partition("## Texts that deserve nothing")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([a-z ]+) \| ", table, re.MULTILINE) == ["text", *ATTACKS]
    assert f"first {ATTACKED_ROWS} rows" in PAGE


def test_the_page_knows_the_limits():
    warnings = PAGE.partition("## Warnings")[2]
    for limit in (GOLD_SHOULD_REACH, LENGTH_CORRELATION, LENGTH_SPREAD, LENGTH_ROWS, LENGTH_CONTROL):
        assert re.search(rf"(?<![\d.]){limit}(?![\d.])", warnings)
    assert "more than half of what gold gets" in warnings
    assert HIGH_SHARE == 0.5
