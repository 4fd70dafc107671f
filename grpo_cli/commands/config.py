"""`grpo config`: what a configuration holds, what is wrong with it, how two differ, and its schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpo_cli.app import help_if_alone
from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output, error

if TYPE_CHECKING:
    from pipelines.config.examination import Examination
    from pipelines.config.schema import Named
    from pipelines.config.values import Setting

FAULTY = 2
DIFFERENT = 3
DEFAULTS = "default"

config = typer.Typer(add_completion=False)


@config.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """Show, check or compare configurations; print their schema.

    A misspelled key or a value out of range ends every command; here it is all told at once, before any work.
    """
    help_if_alone(context)


@config.command()
def show(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Only these keys or sections, dotted.", show_default=False),
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print a file that loads to the same values.")] = False,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show every value with its origin: file and line, variable, --set or default."""
    from pipelines.config.loader import load
    from pipelines.config.values import chosen, settings
    from pipelines.errors import ConfigError

    if yaml and json:
        raise ConfigError("--yaml and --json are two forms of the same", hint="give one of them")
    out = Output(json, quiet, verbose)
    loaded = load(config, overrides)
    for warning in loaded.warnings:
        out.warn(warning)
    rows = settings(loaded.config, loaded.origins)
    found = [row for row in chosen(rows, keys or []) if row.changed or not changed]
    if yaml:
        out.data(_file(loaded.config.model_dump(mode="json"), rows, found))
    elif json:
        out.data([{"key": row.key, "value": row.value, "origin": row.origin, "changed": row.changed} for row in found])
    else:
        for row in found:
            out.data(str(row))


@config.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Files to check, each by itself on top of --config.", show_default=False
        ),
    ] = None,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """List everything that is wrong, as far as can be told without running.

    Types, ranges, settings that contradict, rewards and their settings, plugins (which are imported), paths, layers.
    Exits with 2 if a file cannot be used.
    """
    import os

    from pipelines.config.loader import DEFAULT_FILE

    out = Output(json, quiet, verbose)
    below = config or ([DEFAULT_FILE] if os.path.lexists(DEFAULT_FILE) and not files else [])
    results = [_examined([*below, *file], overrides or []) for file in ([[file] for file in files or []] or [[]])]
    for name, found in results:
        out.data(_as_record(name, found), human=lambda name=name, found=found: _tell(out, name, found))
    if any(found.problems for _, found in results):
        raise typer.Exit(FAULTY)


@config.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A file, the directory of a run, or `default`.")],
    after: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="Another; without it, the configuration here.", show_default=False),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 if something differs.")] = False,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show the keys that differ, with both values.

    The configuration here is what --config, environment and --set make. Of a run, what decided its result is recorded.
    """
    from pipelines.config.loader import load
    from pipelines.config.values import compare
    from pipelines.errors import ConfigError

    if after is not None and (config or overrides):
        raise ConfigError("--config and --set make the configuration that B would replace", hint="leave B out")
    out = Output(json, quiet, verbose)
    new = load(config, overrides).config.model_dump(mode="json") if after is None else _side(after)
    found = compare(_side(before), new)
    if json:
        out.data([row.as_dict() for row in found.differences])
    else:
        for row in found.differences:
            out.data(str(row))
    if not found.differences:
        out.note("nothing differs")
    if found.unrecorded:
        out.note(f"{len(found.unrecorded)} keys are not compared, since one side does not record them; -v lists them")
        out.detail(", ".join(found.unrecorded))
    if check and found.differences:
        raise typer.Exit(DIFFERENT)


@config.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a file.", show_default=False)
    ] = None,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Print the JSON Schema of configuration files, for editors.

    With --config or --set it also knows the rewards and benchmarks that the configuration's plugins register.
    """
    from pipelines.config.loader import load
    from pipelines.config.schema import DIALECT, json_schema
    from pipelines.errors import ConfigError
    from pipelines.files import write_json
    from pipelines.plugins import load_plugins

    if output is not None and output.exists() and DIALECT not in output.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{output} exists and is no schema", hint="--output names another file")
    out = Output(json, quiet, verbose)
    if config or overrides:
        load_plugins(load(config, overrides).config.plugin_files)
    rewards, benchmarks = _registered()
    found = json_schema(rewards=rewards, benchmarks=benchmarks)
    if output is None:
        out.data(found)
    else:
        write_json(output, found)
        out.data({"file": output} if json else str(output))


def _file(values: dict[str, Any], rows: list[Setting], chosen: list[Setting]) -> str:
    """The YAML file of the chosen settings, each with its origin behind it; lists are whole."""
    from pipelines.config.experiment import ExperimentConfig
    from pipelines.config.fields import find
    from pipelines.config.values import part
    from pipelines.config.yaml_writer import document_lines

    def origin(path: tuple[str | int, ...]) -> str:
        key = find(ExperimentConfig, path)
        whole = key is not None and key.nested is None
        return next((row.origin for row in rows if whole and row.path[: len(path)] == path), "")

    shown = part(values, [row.path for row in chosen])
    return "\n".join(document_lines(shown, ExperimentConfig, origin)).lstrip("\n") or "{}"


def _examined(files: list[Path], overrides: list[str]) -> tuple[str, Examination]:
    import os

    from pipelines import train
    from pipelines.errors import GrpoError
    from pipelines.hub import looking
    from pipelines.preflight import preflight

    found = preflight(files, overrides, os.environ)
    try:
        if found.config is not None:
            with looking():
                train.check(found.config)
    except GrpoError as problem:
        found.add(problem)  # unless it was told already
    return " + ".join(map(str, files)) or DEFAULTS, found


def _as_record(name: str, found: Examination) -> dict[str, Any]:
    from pipelines.config.fields import dotted
    from pipelines.config.problems import place_of

    problems = [
        {
            "keys": {dotted(path): place_of(path, found.origins) for path in problem.paths},
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in found.in_order()
    ]
    return {"file": name, "problems": problems, "warnings": found.warnings}


def _tell(out: Output, name: str, found: Examination) -> None:
    for problem in found.in_order():
        error(problem.message, problem.hint)
    for warning in found.warnings:
        out.warn(warning)
    counts = [(len(found.problems), "problem"), (len(found.warnings), "warning")]
    told = ", ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)
    out.data(f"{name}: {told or 'nothing wrong'}")


def _side(word: str) -> Mapping[str, Any]:
    """What a word stands for: the defaults, the settings a run recorded, or a file by itself."""
    from pipelines.config.experiment import ExperimentConfig
    from pipelines.config.loader import resolve
    from pipelines.errors import ConfigError
    from pipelines.stages.identity import read_identity

    if word == DEFAULTS:
        return ExperimentConfig().model_dump(mode="json")
    path = Path(word)
    if not path.is_dir():
        return resolve([path], [], {}).config.model_dump(mode="json")
    owner = next((found for place in (path, *path.parents) if (found := read_identity(place))), None)
    if owner is None:
        raise ConfigError(f"{word} is no directory of a run: there is no identity.json", hint="name its output_dir")
    return {key: value for key, value in owner.config.items() if key in ExperimentConfig.model_fields}


def _registered() -> tuple[dict[str, Named], dict[str, Named]]:
    """Rewards and benchmarks by name, with the rewards that lie in `rewards/`."""
    from pipelines.config.schema import Named
    from pipelines.evaluation.registry import EvaluatorRegistry
    from pipelines.rewards import RewardRegistry

    def named(found: type[Any]) -> Named:
        return Named((found.__doc__ or "").strip().partition("\n")[0], found.Config)

    own = {path.stem: Named(f"Your own, in {path}.", None) for path in sorted(Path("rewards").glob("*.py"))}
    rewards = {name: named(RewardRegistry.get(name)) for name in RewardRegistry.names()}
    benchmarks = {name: named(EvaluatorRegistry.get(name)) for name in EvaluatorRegistry.names()}
    return {**own, **rewards}, benchmarks
