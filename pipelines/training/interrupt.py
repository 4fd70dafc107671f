"""Ctrl-C during training: the first asks the loop to save and end, the second ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2
HEARD = b"\nstopping after this update, with a checkpoint; Ctrl-C again ends at once, without one\n"


class StopRequest:
    """Whether somebody asked the loop to end after the update in hand."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler: remember the first request, raise KeyboardInterrupt at the second."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(OSError):  # `tee` at the other end has ended by the same Ctrl-C
            os.write(STDERR, HEARD)  # no stream: the signal may have come while one was being written


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Inside the block SIGINT and SIGTERM set `asked`; afterwards the earlier handlers are back."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return
    earlier = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
