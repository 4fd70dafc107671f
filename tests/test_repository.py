"""What is written down agrees with the code: examples load, every key is explained, nothing private is left."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import config as sections
from pipelines.config import Section
from pipelines.config.loader import resolve

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".ci", "benchmarks", "data", "docs", "grpo_cli", "pipelines", "tests")
TEXTS = {"", ".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".jinja"}

NEVER_WRITTEN = {
    "a path of somebody's machine": r"(?<![\w.])/(work|root|home|Users)/[\w.]",
    "a planning document": r"\b(SPEC|DESIGN|CONTRACT|FACTS)(\.md\b| ?§)",
    "a ticket": r"\b(issue|ticket) #?\d+\b",
    "a note to oneself": r"\b(TODO|FIXME|XXX|HACK)\b",
    "a private host": r"https?://[\w.-]*\.(internal|local|lan|corp)\b",
    "a conflict": r"^(<{7}|>{7}) ",
}


def texts() -> Iterator[Path]:
    candidates = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    for path in candidates:
        if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts and path.name != "config.yaml":
            yield path


def examples() -> list[tuple[str, str]]:
    """Every fenced YAML block of the README and the docs, with its place."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (f"{page.relative_to(ROOT)}:{page.read_text(encoding='utf-8')[: match.start()].count(chr(10)) + 1}", match[1])
        for page in pages
        for match in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]


def all_sections() -> list[type[Section]]:
    found = [value for value in vars(sections).values() if isinstance(value, type) and issubclass(value, Section)]
    return sorted(set(found) - {Section}, key=lambda section: section.__name__)


@pytest.mark.parametrize("what", NEVER_WRITTEN)
def test_nothing_private_is_left(what):
    pattern = re.compile(NEVER_WRITTEN[what], re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts()
        if path != Path(__file__)  # it has to name what it forbids
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_the_text_rules_can_fail():
    assert re.search(NEVER_WRITTEN["a path of somebody's machine"], "see /" + "home/me/model")
    assert re.search(NEVER_WRITTEN["a note to oneself"], "# TO" + "DO later")


@pytest.mark.parametrize("section", all_sections(), ids=lambda section: section.__name__)
def test_every_key_is_explained(section):
    assert section.__doc__
    unexplained = [name for name, field in section.model_fields.items() if not (field.description or "").strip()]
    assert not unexplained


def test_documented_examples_load(tmp_path):
    for place, text in examples():
        file = tmp_path / "example.yaml"
        file.write_text(text, encoding="utf-8")
        assert resolve([file], [], {}).files == (file,), place
