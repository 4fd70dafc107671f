"""`grpo init-config`: a commented configuration file to start from."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from grpo_cli.options import ConfigFiles, Json, Overrides, Quiet, Verbose
from grpo_cli.output import Output

Template = Literal["minimal", "standard", "advanced"]


def init_config(
    *,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    template: Annotated[
        Template, typer.Option(help="How much to show: a dozen keys, the usual ones, or all.")
    ] = "standard",
    model_path: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A directory, hub id, or builtin:tiny (the default).", show_default=False),
    ] = None,
    data_path: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="A data file, or builtin:arithmetic (the default).", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "config.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a commented configuration file to start from.

    Without paths it names the built-in model and data. Values of --config and --set are written into the file.
    """
    from pipelines.config.loader import resolve
    from pipelines.config.templates import render_template
    from pipelines.models.locate import local_model, num_layers

    voice = Output(json=json, quiet=quiet, verbose=verbose)
    base = resolve(config or [], overrides or [], {}).config
    model = local_model(model_path or base.model.model_path)
    depth = None if model is None else num_layers(model)
    text = render_template(template, model_path=model_path, data_path=data_path, base=base, num_layers=depth)
    _write(output, text, force=force)
    written = resolve([output], [], {})
    for warning in written.warnings:
        voice.warn(warning)
    if data_path is not None and not data_path.startswith("builtin:") and not Path(data_path).exists():
        voice.warn(f"data.train_path: there is no {data_path} yet")
    summary = {
        "file": output,
        "template": template,
        "model_path": written.config.model.model_path,
        "train_path": written.config.data.train_path,
    }
    voice.data(summary if json else str(output))
    voice.note(f"next: grpo train{'' if output == Path('config.yaml') else f' --config {output}'}")


def _write(path: Path, text: str, *, force: bool) -> None:
    """Create the file, or replace it with `force`. Raises ConfigError."""
    from pipelines.errors import ConfigError

    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists", hint="--force overwrites it, --output names another file") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a file in a directory that can be written") from error
