"""The page on synthetic tasks: its rows are what the generator makes, its tables are complete, its commands run."""

import json
import re
from pathlib import Path

import pytest

from grpo_cli.app import run as grpo
from pipelines.config import SyntheticConfig
from pipelines.config.loader import resolve
from pipelines.rewards.expressions import DEEPEST, LONGEST
from pipelines.rows.synthetic.arithmetic import OPERATIONS, SHARES, pool_size
from pipelines.rows.synthetic.base import NumberedTask
from pipelines.rows.synthetic.registry import TASKS, generate

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "synthetic-tasks.md").read_text(encoding="utf-8")
EXAMPLE, GYM = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def table(heading):
    """The cells of the first table after a text, without their code marks."""
    lines = PAGE.partition(heading)[2].partition("\n\n|")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_row(task, difficulty):
    section = SyntheticConfig(task=task, difficulty=difficulty, train_rows=1, val_rows=0)
    return next(generate(section)["train"])


@pytest.mark.parametrize("task", TASKS)
def test_the_rows_of_the_page(task):
    block = re.search(rf"### {task}\n.*?```json\n(.*?)```", PAGE, re.DOTALL)[1]
    rows = [first_row(task, difficulty) for difficulty in range(1, TASKS[task].hardest + 1)]
    expected = [{"prompt": row.prompt, "completion": row.completion, "meta": row.meta} for row in rows]
    assert [json.loads(line) for line in block.splitlines()] == expected


def size(task, difficulty):
    made = TASKS[task](difficulty, {})
    if isinstance(made, NumberedTask):
        return made.size
    return sum(pool_size(operation, difficulty) for operation in OPERATIONS)


def test_the_table_of_tasks():
    expected = [
        [
            name,
            task.checked_by,
            ", ".join(first_row(name, 1).meta),
            f"1 to {task.hardest}",
            "; ".join(f"{size(name, difficulty):,}" for difficulty in (1, 2, 3)),
        ]
        for name, task in TASKS.items()
    ]
    assert table("## The tasks") == expected


def test_the_table_of_options():
    named = {(task, option): default for task, option, default, _ in table("holds what one task alone has:")}
    expected = {
        (name, option): str(field.default).lower()
        for name, task in TASKS.items()
        for option, field in task.Options.model_fields.items()
    }
    assert named == expected


def test_the_figures_of_the_page():
    for operation, words in zip(OPERATIONS, ("Sums", "differences", "products"), strict=True):
        assert f"{words} ({SHARES[operation] * 100:.0f} %" in PAGE
    assert f"{LONGEST:,} characters and be nested {DEEPEST} deep" in PAGE
    assert f"its default, {SyntheticConfig().difficulty}." in PAGE


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    command, printed = re.search(r"```console\n\$ grpo (.*?) \| tail -1\n(.*?)\n```", PAGE).groups()
    assert grpo(command.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == printed


@pytest.mark.parametrize(("text", "reward"), [(EXAMPLE, "countdown"), (GYM, "exact_match")], ids=["ours", "theirs"])
def test_the_configurations_are_valid(tmp_path, text, reward):
    (tmp_path / "config.yaml").write_text(text)
    config = resolve([tmp_path / "config.yaml"], [], {}).config
    assert config.data.loader_type == "synthetic"
    assert [entry.name for entry in config.rewards] == [reward]
