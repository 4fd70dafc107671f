"""The guide to adding a loader: its file reads, its claims hold, its table is complete."""

import inspect
import re
from pathlib import Path

import pytest

from grpo_cli.app import run as grpo
from pipelines.rows.loaders.base import BaseLoader
from pipelines.rows.loaders.registry import LoaderRegistry

DOCUMENT = (Path(__file__).parents[2] / "docs" / "adding-a-loader.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(# flashcards\.py\n.*?)```", DOCUMENT, re.DOTALL)[1]
SETTINGS = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)[1]
CONSOLE = re.search(r"```console\n\$ grpo (.*?) \| tail -1\n(.*?)\n```", DOCUMENT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The guide's files in the working directory, with some cards."""
    monkeypatch.setattr(LoaderRegistry, "_classes", dict(LoaderRegistry._classes))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flashcards.py").write_text(CODE)
    (tmp_path / "config.yaml").write_text(SETTINGS)
    (tmp_path / "cards.txt").write_text("6*7=?\t42\n" + "".join(f"{i}*2=?\t{2 * i}\n" for i in range(40)))
    return tmp_path


def test_the_loader_of_the_guide_reads(folder, capsys):
    assert grpo(CONSOLE[1].split()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == CONSOLE[2]
    assert grpo(["preprocess", "-q", "--output-train-path", "cards"]) == 0
    assert "rows kept of" in capsys.readouterr().out
    assert '"prompt":"6*7=?","completion":"42"' in (folder / "cards_rows.jsonl").read_text().splitlines()[0]


def test_a_value_that_json_does_not_know_is_told_by_its_number(folder, capsys):
    dated = CODE.replace("{", '{"meta": {"asked": __import__("datetime").date(2024, 1, len(question))}, ')
    (folder / "flashcards.py").write_text(dated)
    assert grpo(["preprocess", "-q"]) == 2
    claim = re.search(r"`cards\.txt:\d+(: meta\.asked .*?)`", DOCUMENT)[1]
    assert f"cards.txt:1{claim}" in capsys.readouterr().err


def test_what_a_plugin_raises_is_told_as_its_own(folder, capsys):
    (folder / "flashcards.py").write_text(CODE.replace("Path(path)", "Path(pth)"))
    assert grpo(["preprocess", "-q"]) == 2
    assert "data.loader_type: flashcards failed: NameError: name 'pth' is not defined" in capsys.readouterr().err


def test_rows_are_made_again_when_the_plugin_or_the_cards_change(folder, capsys):
    def status():
        grpo(["preprocess", "-q", "--json"])
        return '"status": "cached"' in capsys.readouterr().out

    assert [status(), status()] == [False, True]
    (folder / "cards.txt").write_text((folder / "cards.txt").read_text() + "1+1=?\t2\n")
    assert [status(), status()] == [False, True]
    (folder / "flashcards.py").write_text(CODE + "# another\n")
    assert not status()


def test_the_table_names_every_method():
    table = DOCUMENT.partition("## What can be overridden")[2].partition("\n\n`files`")[0]
    public = {name for name, _ in inspect.getmembers(BaseLoader, inspect.isfunction) if not name.startswith("_")}
    assert set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)) == public - {"attempt", "renamed", "row_of"}
