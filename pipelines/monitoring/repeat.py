"""Warnings of our own modules, repeated in a run's log: those from before the log was open wait for it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Repeater(logging.Handler):
    """Keeps warnings until `to` says where they go, and passes later ones on at once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._waiting: list[str] = []
        self._write: Callable[[str], None] = self._waiting.append

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())

    def to(self, write: Callable[[str], None]) -> None:
        """Give `write` what waits, and from now on everything."""
        for text in self._waiting:
            write(text)
        self._waiting.clear()
        self._write = write


@contextmanager
def repeated_warnings() -> Iterator[Repeater]:
    """Inside the block warnings of `pipelines.*` go to the repeater too; whoever showed them before still does."""
    repeater, logger = Repeater(), logging.getLogger("pipelines")
    shown = logger.hasHandlers()
    logger.addHandler(repeater)
    bystander = logging.lastResort  # it speaks only where there is no handler at all
    if not shown and bystander is not None:
        logger.addHandler(bystander)
    try:
        yield repeater
    finally:
        logger.removeHandler(repeater)
        if not shown and bystander is not None:
            logger.removeHandler(bystander)
