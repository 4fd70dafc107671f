"""Ctrl-C during training: the first asks the loop to save and end, the second ends at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2
HEARD = "stopping after this update, with a checkpoint; Ctrl-C again ends at once, without one"


class StopRequest:
    """Whether somebody asked the loop to end after the update in hand.

    `shows` gets the answer to the first request and returns whether it will appear; stderr has it otherwise. It must
    write nothing itself: the signal may have come while something was being written.
    """

    def __init__(self, shows: Callable[[str], bool]) -> None:
        self.asked = False
        self.shows = shows

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler: remember the first request, raise KeyboardInterrupt at the second."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if not self.shows(HEARD):
            with suppress(OSError):  # `tee` at the other end has ended by the same Ctrl-C
                os.write(STDERR, f"\n{HEARD}\n".encode())  # past the streams, which may be in use


@contextmanager
def stop_on_interrupt(shows: Callable[[str], bool]) -> Iterator[StopRequest]:
    """Inside the block SIGINT and SIGTERM set `asked`; afterwards the earlier handlers are back."""
    request = StopRequest(shows)
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may set handlers
        return
    earlier = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
