"""Ctrl-C during training: the first asks the loop to save and end, the second ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked the loop to end after the update in hand."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler: remember the first request, raise KeyboardInterrupt at the second."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


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
