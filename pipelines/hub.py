"""Looking without a download: what is on the Hugging Face hub and not on this machine is told instead of fetched."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from pipelines.errors import GrpoError

_looking: ContextVar[bool] = ContextVar("looking", default=False)


class NotHereError(GrpoError):
    """Something that would be downloaded, where somebody is only looking."""

    exit_code = 2


@contextmanager
def looking(*, only: bool = True) -> Generator[None]:
    """Inside the block (or function) `before_fetching` raises NotHereError; `only=False` changes nothing."""
    token = _looking.set(only or _looking.get())
    try:
        yield
    finally:
        _looking.reset(token)


def before_fetching(name: str, revision: str | None = None) -> None:
    """To be called before anything is fetched from the hub."""
    if _looking.get():
        raise NotHereError(would_download(name, revision), hint="the first command that needs it downloads it")


def would_download(name: str, revision: str | None = None) -> str:
    """What is said instead; the hub's own default is the revision `main`."""
    return f"would be downloaded from the hub: {name} (revision {revision or 'main'})"
