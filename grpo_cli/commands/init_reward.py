"""`grpo init-reward`: a commented reward to start from, with a test beside it."""

import re
from pathlib import Path
from typing import Annotated

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output


def init_reward(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the configuration will call it.")],
    *,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write (default: rewards/NAME.py)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a commented reward of your own, with a test.

    Prints the lines that name it in the configuration. `rewards/NAME.py` is found by its name; a file elsewhere has to
    be listed, beside what `plugins` lists already.
    """
    from pipelines.config.loader import load
    from pipelines.rewards.starter import starter

    voice = Output(json=json, quiet=quiet, verbose=verbose)
    by_name = Path("rewards") / f"{name}.py"
    file = output or by_name
    files = starter(name, file)
    listed = list(load(config, overrides).config.plugins)
    _write(files)
    is_known = file == by_name or file.as_posix() in listed
    plugins = listed if is_known else [*listed, file.as_posix()]
    reward = {"name": name, "weight": 1.0}
    test = next(path for path in files if path != file)
    if json:
        voice.data({"file": file, "test": test, "plugins": plugins, "rewards": [reward]})
    else:
        lines = [] if is_known else [f"plugins: {_flow(plugins)}"]
        voice.data("\n".join([*lines, f"rewards: [{{name: {name}, weight: 1.0}}]"]))
    voice.note(f"wrote {file} and {test}")
    voice.note(f"next: pytest {test}; then add the lines above to the configuration, and grpo inspect-rewards")


def _flow(paths: list[str]) -> str:
    """A list as YAML in one line; whatever could mean something to YAML is quoted."""
    from json import dumps

    quoted = (path if re.fullmatch(r"[A-Za-z][\w/.-]*", path) else dumps(path) for path in paths)
    return f"[{', '.join(quoted)}]"


def _write(files: dict[Path, str]) -> None:
    """Create all files or none. Raises ConfigError if there is one of them."""
    from pipelines.errors import ConfigError

    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists", hint="it is left as it is; --output names another file")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        hint = "name a file in a directory that can be written"
        raise ConfigError(f"{error.filename}: {error.strerror}", hint=hint) from error
