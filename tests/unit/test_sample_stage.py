"""`grpo sample` on a blank model: rows of the data set, a text, a file; each request once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import preprocess, sample
from pipelines.config import load
from pipelines.errors import DataError
from pipelines.evaluation.questions import rendered, rows_of_file
from pipelines.models.load import load_tokenizer
from pipelines.models.tiny import write_blank
from pipelines.rows.records import Row
from pipelines.tokens.dataset import TokenDataset

GRPO = Path(sys.executable).with_name("grpo")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "blank"
    write_blank(directory)
    return directory


@pytest.fixture
def config(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i}+1=?", "completion": f"<think>{i}</think>{i + 1}"} for i in range(8)]
    for name, part in {"val": rows[:4], "train": rows[4:]}.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    settings = {
        "model": {"model_path": str(model)},
        "data": {"train_path": "train.jsonl", "val_path": "val.jsonl", "max_gen_len": 6, "system_prompt": "add"},
        "rewards": [{"name": "exact_match"}, {"name": "format_structure", "weight": 0.5}],
    }
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    return load().config


def grpo(*arguments):
    return subprocess.run([GRPO, *arguments], capture_output=True, text=True, check=False, env=os.environ)


def test_rows_of_the_data_set_with_their_rewards(config):
    preprocess.run(config)
    result = sample.run(config, sample.Request(rows=3, samples=2))
    records = list(sample.records(result))
    assert [(record["prompt"], record["sample"]) for record in records] == [
        (f"{i}+1=?", s) for i in range(3) for s in range(2)
    ]
    for record in records:
        assert record["rewards"].keys() == {"exact_match", "format_structure"}
        expected = (record["rewards"]["exact_match"] + 0.5 * record["rewards"]["format_structure"]) / 1.5
        assert record["reward"] == pytest.approx(expected, abs=1e-6)
        assert record["finish_reason"] in {"stop", "length"}
    assert result.summary["completions"] == 6
    assert result.summary["tokens"] == sum(record["tokens"] for record in records)
    assert result.summary["tokens_per_second"] > 0


def test_a_request_is_answered_once(config):
    request = sample.Request(prompts=(Row("1+1=?"),), samples=2)
    first = sample.run(config, request)
    again = sample.run(config, request)
    assert (first.status, again.status) == ("ran", "cached")
    assert list(sample.records(again)) == list(sample.records(first))
    forced = sample.run(config, request, force=True)
    assert list(sample.records(forced)) == list(sample.records(first))
    others = [
        sample.Request(prompts=(Row("1+2=?"),), samples=2),
        sample.Request(prompts=(Row("1+1=?"),), samples=2, temperature=0.5),
        sample.Request(prompts=(Row("1+1=?", completion="2"),), samples=2),
    ]
    assert [sample.run(config, other).status for other in others] == ["ran"] * 3


def test_without_a_reference_a_reward_that_needs_one_abstains(config):
    (record,) = sample.records(sample.run(config, sample.Request(prompts=(Row("1+1=?"),))))
    assert record["rewards"]["exact_match"] is None
    assert record["rewards"]["format_structure"] == pytest.approx(record["reward"])


def test_own_prompts_are_rendered_as_training_renders_rows(config):
    result = preprocess.run(config)
    dataset = TokenDataset(result.directory, "val")
    tokenizer = load_tokenizer(config.model.model_path)
    for prompt in rendered(tokenizer, [dataset.row(i) for i in range(len(dataset))], config):
        assert prompt.tokens.tolist() == dataset.prompt_tokens(prompt.index).tolist()
        assert prompt.preopened == dataset.preopened(prompt.index)


def test_prompts_of_files(config):
    Path("lines.txt").write_text("1+1=?\n\n 2+2=? \n")
    assert [row.prompt for row in rows_of_file(Path("lines.txt"), config)] == ["1+1=?", "2+2=?"]
    Path("mixed.jsonl").write_text('{"prompt": "1+1=?"}\n{"prompt": "2+2=?", "completion": "4"}\n')
    assert [row.completion for row in rows_of_file(Path("mixed.jsonl"), config)] == [None, "4"]
    Path("bad.jsonl").write_text('{"prompt": "1+1=?"}\n{"question": "2+2=?"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: no field 'prompt'"):
        rows_of_file(Path("bad.jsonl"), config)
    Path("empty.txt").write_text("\n")
    with pytest.raises(DataError, match="no prompts"):
        rows_of_file(Path("empty.txt"), config)


def test_the_command_on_a_text(config):
    told = grpo("sample", "--prompt", "1+1=?", "-n", "2", "--max-tokens", "4")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("prompt  1+1=?") == 2
    assert "\x1b[" not in told.stdout
    assert "tokens/s" in told.stderr
    records = [json.loads(line) for line in grpo("sample", "-p", "1+1=?", "-n", "2", "--json").stdout.splitlines()]
    assert [record["sample"] for record in records] == [0, 1]
    assert all(record["tokens"] <= 6 for record in records)


def test_a_terminal_sees_regions_in_colour(config):
    reader, terminal = os.openpty()
    command = [GRPO, "sample", "-p", "1+1=?", "--max-tokens", "4", "-q"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, check=True, env=environment)
    os.close(terminal)
    shown = os.read(reader, 10_000).decode()
    os.close(reader)
    assert "\x1b[1m" in shown  # the answer in bold
    assert "prompt  1+1=?" in shown


def test_dry_run_says_what_there_is(config):
    waiting = json.loads(grpo("sample", "--dry-run", "--json").stdout)
    assert (waiting["stage"], waiting["status"]) == ("preprocess", "missing")
    ready = json.loads(grpo("sample", "-p", "1", "--explain", "--json").stdout)
    assert (ready["stage"], ready["status"]) == ("sample", "missing")


def test_training_rows_stand_in_where_there_are_no_others(config):
    alone = config.model_copy(update={"data": config.data.model_copy(update={"val_path": None})})
    preprocess.run(alone)
    (record,) = sample.records(sample.run(alone, sample.Request(rows=1)))
    assert record["prompt"] == "4+1=?"


def test_the_command_refuses_contradictions(config):
    told = grpo("sample", "--prompt", "1", "--rows", "2")
    assert (told.returncode, told.stdout) == (2, "")
    assert "exclude each other" in told.stderr
    assert grpo("sample", "--prompt", "  ").returncode == 2
    assert grpo("sample", "--prompts", "missing.txt").returncode == 2
