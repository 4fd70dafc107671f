"""Users' own Python files: imported once, by path, so that what they register can be named in a configuration."""

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

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
    SystemExit,
    TypeError,
    ValueError,
)
"""What somebody's code raises when it is they who have to mend it."""


SOURCES: dict[str, bytes] = {}
"""What each file held when it was imported, by its resolved path: the file itself may be edited while a run goes on."""


class _Remembering(SourceFileLoader):
    """Imports a file, or what it held before, and notes that in `SOURCES`."""

    def __init__(self, name: str, path: str, source: bytes | None) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - importlib's signature
        source = self.get_data(self.path) if self.source is None else self.source
        SOURCES[self.path] = source
        return self.source_to_code(source, self.path)


def load_plugins(paths: Iterable[str | Path], sources: Mapping[str, bytes] | None = None) -> None:
    """Import each file that is not imported yet. A file that is missing or fails is a ConfigError with its line.

    sources: the `SOURCES` of another process, whose plugins these are; they count instead of the files.
    """
    for index, given in enumerate(paths):
        path = Path(os.path.expanduser(given)).resolve()  # noqa: PTH111 - as files.at_home
        source = (sources or {}).get(str(path))
        if source is None and not path.is_file():
            raise ConfigError(
                f"plugins[{index}]: there is no file {str(given)!r}",
                hint=f"paths are relative to the working directory, {Path.cwd()}",
            )
        name = f"grpo_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name not in sys.modules:
            _import(name, path, f"plugins[{index}]", source)


def _import(name: str, path: Path, where: str, source: bytes | None) -> None:
    spec = importlib.util.spec_from_file_location(name, path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path} is not a Python file", hint="its name must end in .py")
    if type(spec.loader) is SourceFileLoader:
        spec.loader = _Remembering(name, str(path), source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up
    imported = False
    try:
        spec.loader.exec_module(module)
        imported = True
    except GrpoError as error:
        error.message = f"{where}: {path}:{_line(error, path)}: {error.message}"
        raise
    except IMPORT_ERRORS as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        message = f"{where}: {path}:{_line(error, path)}: {type(error).__name__}: {reason}"
        raise ConfigError(message, hint=f"the file must import without errors; try `python {path.name}`") from error
    finally:
        if not imported:
            del sys.modules[name]


def importing(error: BaseException) -> str | None:
    """`file:line` if it was raised while somebody's file was imported: an exception of a class of their own, mostly."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f"{f.filename}:{f.lineno}" for f in frames if f.name == "<module>" and f.filename in SOURCES), None)


def _line(error: BaseException, path: Path) -> int:
    """The line of the file at which its import failed; 1 if the error has none of its own."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or 1 if lines else 1


def refuse_taken(name: str, holder: type | None, new: type, kind: str) -> None:
    """ConfigError if a name is another class's; the same class may come again, when its file is imported again."""
    if holder and (holder.__module__, holder.__qualname__) != (new.__module__, new.__qualname__):
        raise ConfigError(
            f"two {kind} want the name {name!r}: {holder.__module__}.{holder.__qualname__} "
            f"and {new.__module__}.{new.__qualname__}",
            hint="register yours under another name",
        )
