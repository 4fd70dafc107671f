"""The command line: which commands there are, loaded only when called, and the one place that catches errors."""

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from grpo_cli.output import error, relayed

PIPELINE, LOOK, SHIP, HOUSE = "Pipeline", "Look inside", "Take it elsewhere", "Housekeeping"

COMMANDS = {
    "init-config": (PIPELINE, "Write a commented configuration file to start from."),
    "init-reward": (PIPELINE, "Write a commented reward of your own, with a test."),
    "preprocess": (PIPELINE, "Tokenise the data set into NPY arrays, once."),
    "train": (PIPELINE, "Train the model, or resume where the last run stopped."),
    "eval": (PIPELINE, "Score the model or a checkpoint on benchmarks."),
    "sample": (LOOK, "Show completions with their regions and rewards."),
    "inspect-rewards": (LOOK, "Score completions and look for trouble in the rewards."),
    "config": (LOOK, "Show, check or compare configurations; print their schema."),
    "status": (LOOK, "Show every stage: cached, stale, partial, missing, and why."),
    "report": (LOOK, "Write one self-contained HTML file about one or more runs."),
    "export": (SHIP, "Write a model directory that others load, with a card."),
    "serve": (SHIP, "Serve a checkpoint through an OpenAI-compatible API."),
    "doctor": (HOUSE, "Check the installation; prints text to paste into an issue."),
    "gc": (HOUSE, "List what the cache could free; free it with --yes."),
}
"""Command: (help panel, help line), in the order of the help. The line is the first of the function's docstring."""


def command_function(name: str) -> Callable[..., Any]:
    """The function behind a command: `grpo_cli.commands.<name>.<name>`, with underscores. Imports its module.

    Behind a group of commands it is the group's `typer.Typer`.
    """
    identifier = name.replace("-", "_")
    return getattr(import_module(f"grpo_cli.commands.{identifier}"), identifier)


class LazyGroup(TyperGroup):
    """Lists commands from `COMMANDS`; imports a command's module only when that command is called or completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does, suggestions included, with the name exchanged for the command behind it."""
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:
            return name, None, rest
        found = command_function(name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(found)
            found = single
        command = typer.main.get_command(found)
        for each in (command, *getattr(command, "commands", {}).values()):
            each.help = unwrapped(each.help or "")
        return name, command, rest


def unwrapped(text: str) -> str:
    """Each paragraph in one line: the help wraps it to the terminal, and our source to another width."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


HELP = {"help_option_names": ["--help", "-h"]}
"""Of every command: each takes it from the one above."""

app = typer.Typer(cls=LazyGroup, context_settings=HELP, add_completion=True, pretty_exceptions_enable=False)


def _register(name: str, panel: str, help_line: str) -> None:
    def listed() -> None:
        raise AssertionError(f"{name} was called without being loaded")

    app.command(name, help=help_line, rich_help_panel=panel)(listed)


for _name, (_panel, _help_line) in COMMANDS.items():
    _register(_name, _panel, _help_line)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Reinforcement learning with verifiable rewards for small language models, on your own machine.

    A first run, offline: grpo init-config, then grpo train.
    """
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"grpo {version_of('grpo')}")
        raise typer.Exit
    help_if_alone(context)


def help_if_alone(context: typer.Context) -> None:
    """Print the help of a group that was called without one of its commands."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage or configuration, 3 --check found something, 130 ^C."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The error boundary: the exit code of one call; errors become two lines on stderr, a traceback with -vv."""
    from pipelines.errors import GrpoError

    traceback_wanted = verbosity(arguments) >= 2
    try:
        command = typer.main.get_command(app)
        with relayed(quiet=is_quiet(arguments)):
            result = command.main(list(arguments), prog_name="grpo", standalone_mode=False)
    except typer.TyperException as usage:
        error(usage.format_message().replace(": Value error, ", ": "), _usage_hint(usage, arguments))
        return usage.exit_code
    except GrpoError as failure:
        _traceback_if(traceback_wanted)
        error(failure.message, failure.hint)
        return failure.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = 130
    except OSError as failure:
        _traceback_if(traceback_wanted)
        error(f"{failure.strerror or failure}: {failure.filename}" if failure.filename else str(failure), OS_HINT)
        return 1
    except Exception as bug:  # noqa: BLE001 - the boundary: whatever is not ours to raise is a bug, told as one
        _traceback_if(traceback_wanted)
        return _told(bug)
    if result == 130:
        error("interrupted")
    return result if isinstance(result, int) else 0


def _told(bug: Exception) -> int:
    """Who has to mend it: whoever wrote the file that was being imported, or we. The exit code."""
    from pipelines.plugins import importing

    place = importing(bug)
    if place is not None:
        error(f"plugins: {place}: {type(bug).__name__}: {bug}", "the file must import without errors")
        return 2
    error(f"internal: {type(bug).__name__}: {bug}", BUG_HINT)
    return 1


OS_HINT = "check the path, its permissions and the free space; -vv shows where it happened"
BUG_HINT = "this is a bug: run again with -vv and report the traceback together with what `grpo doctor` prints"


def _usage_hint(usage: typer.TyperException, arguments: Sequence[str]) -> str:
    context = getattr(usage, "ctx", None)  # an option without its value knows none
    called = " ".join(["grpo", *(word for word in arguments[:1] if word in COMMANDS)])
    return f"see `{context.command_path if context else called} --help`"


def verbosity(arguments: Sequence[str]) -> int:
    """How often -v was given; read from the raw words, since an error may come before they are parsed."""
    short = (word.count("v") for word in arguments if re.fullmatch("-[qv]+", word))
    return sum(short) + list(arguments).count("--verbose")


def is_quiet(arguments: Sequence[str]) -> bool:
    """Whether -q was given."""
    return "--quiet" in arguments or any("q" in word for word in arguments if re.fullmatch("-[qv]+", word))


def _traceback_if(wanted: bool) -> None:
    if wanted:
        import traceback

        typer.echo(traceback.format_exc(), err=True, nl=False)
