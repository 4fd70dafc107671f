"""The Python sessions in the concept pages print what the pages say."""

import doctest
import re
from pathlib import Path

import pytest

from pipelines import preprocess
from pipelines.config.loader import resolve

CONCEPTS = Path(__file__).resolve().parents[1] / "docs" / "concepts"
SESSIONS = [
    pytest.param(session, id=f"{page.stem}-{number}")
    for page in sorted(CONCEPTS.glob("*.md"))
    for number, session in enumerate(
        re.findall(r"^```pycon\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL), start=1
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the command that the data page names has been run."""
    place = tmp_path_factory.mktemp("sessions")
    config = resolve([], [f"paths.stages={place}/stages"], {}).config
    preprocess.run(config, export_train=place / "arrays" / "sums")
    return place


def test_there_are_sessions():
    assert len(SESSIONS) >= 5


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_prints_what_the_page_says(session, folder, monkeypatch):
    monkeypatch.chdir(folder)
    test = doctest.DocTestParser().get_doctest(session, {}, "session", None, 0)
    assert test.examples
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=report.append).failed == 0, "".join(report)


def test_the_table_of_regions():
    """Each row of the page's table, as the code counts it."""
    from pipelines.algorithms.regions import tags_for, thinking_length
    from pipelines.config import GenerationConfig
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer("builtin:tiny")
    tags = tags_for(tokenizer, GenerationConfig())
    page = (CONCEPTS / "regions.md").read_text(encoding="utf-8").replace("\\|", "\0")
    rows = re.findall(r"^\| `(.+)` \| (yes|no) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 6
    for text, opened, *counts in rows:
        ids = tokenizer.encode(text.replace("\0", "|"), add_special_tokens=False)
        thinking = thinking_length(ids, tags, preopened=opened == "yes")
        assert [len(ids), thinking, len(ids) - thinking] == list(map(int, counts)), text
