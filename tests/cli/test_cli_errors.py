"""The error boundary: two lines on stderr, the right exit code, a traceback only on request."""

import subprocess
import sys

import pytest
import typer

from grpo_cli import app
from grpo_cli.options import Verbose
from pipelines.errors import ConfigError, DataError, GrpoError, TrainingError


def grpo(*arguments: str, cwd) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "grpo_cli", *arguments]
    return subprocess.run(call, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def failing(monkeypatch):
    """`grpo train` that raises what it is told to."""

    def install(error: BaseException) -> None:
        def train(verbose: Verbose = 0) -> None:
            raise error

        monkeypatch.setattr(app, "command_function", lambda name: train)

    return install


def run(*arguments: str) -> int:
    return app.run(list(arguments))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GrpoError("it broke", hint="mend it"), 1),
        (TrainingError("it broke", hint="mend it"), 1),
        (ConfigError("it broke", hint="mend it"), 2),
        (DataError("it broke", hint="mend it"), 2),
    ],
)
def test_a_known_error_is_two_lines(failing, capsys, error, code):
    failing(error)
    assert run("train") == code
    captured = capsys.readouterr()
    assert captured.err == "error: it broke\nhint: mend it\n"
    assert captured.out == ""


def test_an_error_without_a_hint_is_one_line(failing, capsys):
    failing(GrpoError("it broke"))
    assert run("train") == 1
    assert capsys.readouterr().err == "error: it broke\n"


@pytest.mark.parametrize("how", [["-vv"], ["-v", "-v"], ["--verbose", "-v"]])
def test_a_traceback_on_request(failing, capsys, how):
    failing(ConfigError("it broke", hint="mend it"))
    assert run("train", *how) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("Traceback (most recent call last):")
    assert captured.endswith("error: it broke\nhint: mend it\n")


def test_a_bug_is_told_as_one(failing, capsys):
    failing(ZeroDivisionError("division by zero"))
    assert run("train", "-v") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: internal: ZeroDivisionError: division by zero"
    assert "-vv" in lines[1]
    assert "doctor" in lines[1]
    assert len(lines) == 2


def test_a_full_disk_is_no_bug(failing, capsys):
    failing(OSError(28, "No space left on device", "run/model.safetensors"))
    assert run("train") == 1
    assert capsys.readouterr().err.startswith("error: No space left on device: run/model.safetensors\nhint: ")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), typer.Abort()])
def test_an_interruption_is_130(failing, capsys, interruption):
    failing(interruption)
    assert run("train") == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_chooses_its_exit_code(failing, code):
    failing(typer.Exit(code))
    assert run("train") == code


def test_an_unknown_command_gets_a_suggestion(tmp_path):
    done = grpo("trian", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: No such command 'trian'. Did you mean 'train'?\nhint: see `grpo --help`\n"


def test_an_unknown_option_names_the_commands_help(tmp_path):
    done = grpo("doctor", "--jsn", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error: No such option: --jsn (Possible options: --json, --set)\nhint: see `grpo doctor --help`\n"
    )


def test_an_option_without_its_value_names_the_commands_help(tmp_path):
    done = grpo("train", "--set", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: Option '--set' requires an argument.\nhint: see `grpo train --help`\n"


def test_a_word_that_is_no_choice_is_told_with_the_choices(tmp_path):
    done = grpo("init-config", "--template", "big", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Invalid value for '--template': 'big' is not one of 'minimal', ")


def test_a_configuration_error_reaches_the_boundary(tmp_path):
    done = grpo("preprocess", "--set", "trainer.learning_rat=1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert "trainer.learning_rat" in first
    assert second.startswith("hint: ")
    assert "learning_rate" in second


def test_no_command_shows_the_help(capsys):
    assert run() == 0
    captured = capsys.readouterr()
    assert "inspect-rewards" in captured.out
    assert captured.err == ""
