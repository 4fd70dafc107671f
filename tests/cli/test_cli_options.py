"""The shared options, as words on the command line and as what a command receives."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo_cli import app
from grpo_cli.options import Benchmarks, ConfigFiles, Json, MoreBenchmarks, Overrides, Quiet, Verbose, benchmark_names


@pytest.fixture
def received(monkeypatch):
    """`grpo eval` that only writes down what it was given."""
    seen = SimpleNamespace()

    def command(
        *,
        config: ConfigFiles = None,
        overrides: Overrides = None,
        benchmark: Benchmarks = None,
        more: MoreBenchmarks = None,
        json: Json = False,
        quiet: Quiet = False,
        verbose: Verbose = 0,
    ) -> None:
        vars(seen).update(config=config, overrides=overrides, benchmarks=benchmark_names(benchmark, more))
        vars(seen).update(json=json, quiet=quiet, verbose=verbose)

    monkeypatch.setattr(app, "command_function", lambda name: command)
    return seen


@pytest.mark.parametrize(
    "words",
    [
        "--benchmark gsm8k mcq --json",
        "--benchmark gsm8k --benchmark mcq --json",
        "--json --benchmark gsm8k mcq",
        "gsm8k mcq --json",
    ],
)
def test_benchmarks_are_repeatable_and_space_separated(received, words):
    assert app.run(["eval", *words.split()]) == 0
    assert received.benchmarks == ["gsm8k", "mcq"]
    assert received.json


def test_files_and_settings_keep_their_order(received):
    words = "-c base.yaml --config mine.yaml -s trainer.seed=1 --set data.limit=5"
    assert app.run(["eval", *words.split()]) == 0
    assert received.config == [Path("base.yaml"), Path("mine.yaml")]
    assert received.overrides == ["trainer.seed=1", "data.limit=5"]


@pytest.mark.parametrize("words", ["gc", "config", "config check"])
def test_help_is_wrapped_to_the_terminal_alone(capsys, monkeypatch, words):
    """A line may only end early where the next word would not have fitted, or where a paragraph ends."""
    monkeypatch.setenv("COLUMNS", "80")
    assert app.run([*words.split(), "--help"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.partition("\u256d")[0].splitlines()]
    for line, following in pairwise(lines):
        assert not line or not following or len(line) + len(following.split()[0]) >= 78


@pytest.mark.parametrize("words", ["", "train", "config", "config check"])
def test_h_is_short_for_help(capsys, words):
    assert app.run([*words.split(), "-h"]) == 0
    shown = capsys.readouterr().out
    assert app.run([*words.split(), "--help"]) == 0
    assert f"Usage: grpo {words}".rstrip() in shown == capsys.readouterr().out


def test_nothing_given_is_none(received):
    assert app.run(["eval"]) == 0
    assert (received.config, received.overrides, received.benchmarks) == (None, None, [])
    assert (received.json, received.quiet, received.verbose) == (False, False, 0)


@pytest.mark.parametrize(("words", "verbose"), [("-v", 1), ("-vv", 2), ("-v --verbose", 2), ("-qvv", 2)])
def test_verbosity_is_counted_alike_by_command_and_boundary(received, words, verbose):
    assert app.run(["eval", *words.split()]) == 0
    assert received.verbose == verbose
    assert app.verbosity(words.split()) == verbose
