"""Users' own Python files: imported once, by path, so that what they register can be named in a configuration."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import ConfigError, GrpoError

IMPORT_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a file of somebody's may raise while it is imported."""


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Import each file that is not imported yet. A file that is missing or fails is a ConfigError with its line."""
    for index, given in enumerate(paths):
        path = Path(given).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(
                f"plugins[{index}]: there is no file {str(given)!r}",
                hint=f"paths are relative to the working directory, {Path.cwd()}",
            )
        name = f"grpo_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name not in sys.modules:
            _import(name, path, f"plugins[{index}]")


def _import(name: str, path: Path, where: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path} is not a Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except (GrpoError, *IMPORT_ERRORS) as error:
        del sys.modules[name]
        if isinstance(error, GrpoError):
            raise
        reason = error.msg if isinstance(error, SyntaxError) else error
        message = f"{where}: {path}:{_line(error, path)}: {type(error).__name__}: {reason}"
        raise ConfigError(message, hint=f"the file must import without errors; try `python {path.name}`") from error


def _line(error: BaseException, path: Path) -> int:
    """The line of the file at which its import failed; 1 if the error has none of its own."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or 1 if lines else 1
