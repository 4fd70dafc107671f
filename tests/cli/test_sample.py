"""`grpo sample` as a person uses it: texts that would move a cursor, two models beside each other, a conversation."""

import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from grpo_cli.app import run
from grpo_cli.samples_view import completion_text

RECORD = {
    "prompt": "What is \x1b[31mred\x1b[0m?",
    "sample": 0,
    "completion": "<think>\x07</think>\x1b]0;title\x0742",
    "thinking": "\x07",
    "answer": "\x1b]0;title\x0742",
    "reward": 0.5,
    "rewards": {"exact_match": 1.0, "brevity": 0.0, "abstained": None},
    "finish_reason": "stop",
    "tokens": 9,
    "thinking_tokens": 1,
}
PATIENCE_SECONDS = 60


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_whatever_a_model_writes_is_shown_and_not_obeyed():
    text = completion_text(RECORD)
    assert not set(text) & {"\x1b", "\x07"}
    assert text.splitlines() == [
        "prompt  What is \u241b[31mred\u241b[0m?",
        "<think>\u2407</think>\u241b]0;title\u240742",
        "  reward 0.5 (exact_match 1, brevity 0); ended after 9 tokens, 1 of them thinking",
    ]


def test_two_models_answer_the_same_prompt(folder, capsys):
    assert run(["sample", "--compare", "--prompt", "12+34=?", "-n", "2", "--json", "-q"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["model"], record["sample"]) for record in records] == [("base", 0), ("base", 1)]

    train = ["-s", "trainer.num_training_steps=1", "-s", "trainer.ppo_batch_size=2", "-s", "trainer.learning_rate=1e-3"]
    assert run(["train", "-q", *train]) == 0
    capsys.readouterr()
    assert run(["sample", "--compare", "--prompt", "12+34=?", *train, "--json", "-q"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["model"] for record in records] == ["base", "step_000001"]
    assert run(["sample", "--compare", "--prompt", "12+34=?", *train, "-q"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("prompt  12+34=?") == 1
    assert shown.index("base:") < shown.index("step_000001:")


def test_a_conversation_on_a_terminal(folder):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from grpo_cli.app import main; main(['sample', '-q'])"]
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as process:
        os.close(theirs)
        said = _until(ours, "prompt> ")
        for question in ("47+38=?", "47+38=?"):
            os.write(ours, f"{question}\n".encode())
            said += _until(ours, "prompt> ")
        os.write(ours, b"\n")
        assert process.wait(PATIENCE_SECONDS) == 0
    os.close(ours)
    assert said.count("<think>") == 2
    assert said.count("of them thinking") == 2
    assert not list(folder.glob(".grpo/stages/sample/*"))


def _until(terminal, end):
    """What the terminal shows up to and with `end`."""
    said, give_up = "", time.monotonic() + PATIENCE_SECONDS
    while not said.endswith(end) and time.monotonic() < give_up:
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 4096).decode(errors="replace")
    assert said.endswith(end), said
    return said
