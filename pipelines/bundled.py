"""Where the data that ships with the product lies: inside the wheel, or in a checkout's `data/`."""

from pathlib import Path

from pipelines.errors import DataError

BUILTIN = "builtin:"


def bundled(name: str) -> Path:
    """The directory of one bundled item, such as `arithmetic` or `tiny-model`."""
    package = Path(__file__).parent
    for candidate in (package / "_bundled" / name, package.parent / "data" / name):
        if candidate.is_dir():
            return candidate
    raise DataError(f"nothing called {name!r} ships with grpo", hint="built in are builtin:tiny and builtin:arithmetic")
