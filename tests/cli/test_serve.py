"""`grpo serve` as a process: one model whatever it is called, greedy as our engine is, gone after Ctrl-C."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from grpo_cli import app
from pipelines.config import ExperimentConfig
from pipelines.errors import ModelError
from pipelines.evaluation.completions import complete
from pipelines.evaluation.questions import rendered
from pipelines.models.load import load
from pipelines.rows.records import Row

QUESTION = "12+34=?"
CHAT = {"model": "whatever", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The process that serves the built-in model, and its URL; ended as a person ends it."""
    folder = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "grpo_cli", "serve", "--port", "0", "--json", "-q"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield process, json.loads(line)
        finally:
            process.kill()


def asked(url, body=None):
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response), response.headers


@pytest.fixture(scope="module")
def greedy():
    """What our engine says."""
    config, loaded = ExperimentConfig(), load("builtin:tiny")
    prompts = rendered(loaded.tokenizer, [Row(QUESTION)], config)
    sampling = config.generation.model_copy(update={"temperature": 0.0})
    batch = next(complete(loaded, prompts, sampling, group_size=1, max_tokens=64, seed=0, purpose="eval"))
    return batch.contexts[0].generated_text


def whole(message):
    """mlx-lm's server gives thinking apart."""
    return f"<think>{message['reasoning']}</think>{message['content']}"


def test_it_lists_the_one_model(served):
    models, headers = asked(f"{served[1]['url']}/models")
    assert [model["id"] for model in models["data"]] == ["base"] == [served[1]["model"]]
    assert "Access-Control-Allow-Origin" not in headers


def test_a_chat_is_answered_as_our_engine_does(served, greedy):
    answer, _ = asked(f"{served[1]['url']}/chat/completions", CHAT)
    assert whole(answer["choices"][0]["message"]) == greedy
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_an_openai_client_is_answered(served, greedy):
    openai = pytest.importorskip("openai", reason="it comes with the development tools")
    with openai.OpenAI(base_url=served[1]["url"], api_key="none") as client:
        answer = client.chat.completions.create(**CHAT)
    assert whole(answer.choices[0].message.model_dump()) == greedy


def test_a_port_that_is_taken(served, capsys):
    port = served[1]["url"].split(":")[-1].removesuffix("/v1")
    assert app.run(["serve", "--checkpoint", "base", "--port", port]) == 2
    said = capsys.readouterr().err
    assert f"127.0.0.1 port {port} cannot be had: Address already in use" in said
    assert "--port 0 finds a free one" in said


def test_ctrl_c_ends_it(served):
    """The last of this file."""
    process, where = served
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
    host, port = where["url"].removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


def test_a_model_that_cannot_be_loaded(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert app.run(["serve", "--checkpoint", str(tmp_path), "--port", "0"]) == ModelError.exit_code
    assert "the model cannot be loaded" in capsys.readouterr().err


def test_others_can_reach_it(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    app.run(["serve", "--checkpoint", str(tmp_path), "--port", "0", "--host", "0.0.0.0"])
    assert "warning: whoever can reach 0.0.0.0 can use this model" in capsys.readouterr().err


def test_a_host_that_is_not_here(capsys):
    assert app.run(["serve", "--checkpoint", "base", "--port", "0", "--host", "192.0.2.1"]) == 2
    assert "cannot be had" in capsys.readouterr().err
