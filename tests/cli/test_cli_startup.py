"""The command line answers before anything heavy is imported, and lists what its functions say about themselves."""

import json
import subprocess
import sys

import pytest
import typer

from grpo_cli.app import COMMANDS, command_function

HEAVY = ["mlx", "mlx_lm", "numpy", "datasets", "sklearn", "transformers", "matplotlib", "joblib", "pandas"]

GROUPS = [name for name in COMMANDS if isinstance(command_function(name), typer.Typer)]
FUNCTIONS = {
    **{name: command_function(name) for name in COMMANDS if name not in GROUPS},
    **{
        f"{name} {command.callback.__name__}": command.callback
        for name in GROUPS
        for command in command_function(name).registered_commands
    },
}
"""Every command by the words that call it, those of groups too."""

LOADED_AFTER = """
import json, sys
from grpo_cli.app import run
sys.stdout = sys.stderr
loaded = {}
for call in json.loads(sys.argv[1]):
    code = run(call)
    loaded[" ".join(call)] = [code, [name for name in json.loads(sys.argv[2]) if name in sys.modules]]
sys.__stdout__.write(json.dumps(loaded))
"""


def heavy_modules_after(calls: list[list[str]], heavy: list[str], directory) -> dict[str, list]:
    """Exit code and heavy modules in memory after each call, all in one fresh interpreter."""
    arguments = [sys.executable, "-c", LOADED_AFTER, json.dumps(calls), json.dumps(heavy)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=directory)
    return json.loads(done.stdout)


def test_help_imports_not_even_pydantic(tmp_path):
    assert heavy_modules_after([["--help"]], [*HEAVY, "pydantic"], tmp_path) == {"--help": [0, []]}


def test_nothing_heavy_before_a_command_works(tmp_path):
    """Help of every command, and `status`. Typer itself reads option values with pydantic."""
    calls = [["--version"], [], *([*words.split(), "--help"] for words in FUNCTIONS), *([name] for name in GROUPS)]
    calls += [["status"], ["config", "show"]]
    loaded = heavy_modules_after(calls, HEAVY, tmp_path)
    assert loaded == {" ".join(call): [0, []] for call in calls}


def test_the_check_would_see_a_heavy_import(tmp_path):
    assert heavy_modules_after([["doctor", "--json"]], ["mlx"], tmp_path)["doctor --json"][1] == ["mlx"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_line_is_the_functions_own(name):
    found = command_function(name)
    function = found.registered_callback.callback if name in GROUPS else found
    documented = (function.__doc__ or "").strip().splitlines()[0]
    assert COMMANDS[name][1] == documented


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lines_fit_a_narrow_terminal(name):
    assert len(COMMANDS[name][1]) <= 80 - 4 - max(map(len, COMMANDS)) - 2


@pytest.mark.parametrize("words", FUNCTIONS)
def test_common_options_are_common(words):
    """Every command takes the same five, spelled the same."""
    assert {"config", "overrides", "json", "quiet", "verbose"} <= set(FUNCTIONS[words].__annotations__)


@pytest.mark.parametrize("name", ["preprocess", "train", "eval"])
def test_stage_commands_share_their_options(name):
    assert {"force", "dry_run", "explain"} <= set(command_function(name).__annotations__)
