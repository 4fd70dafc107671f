"""One thread that appends text to files, so that the loop waits for no disk; what goes wrong there is raised here."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from pipelines.errors import TrainingError


class Writer:
    """Appends in the order of the calls. Every method raises what an earlier call failed with."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run-log")
        self._pending: deque[Future[None]] = deque()
        self._streams: dict[Path, FileIO] = {}
        self._broken = False

    def append(self, path: Path, text: str) -> None:
        """Put text at the end of a file, soon."""
        self._raise_failures(wait=False)
        self._pending.append(self._thread.submit(self._append, path, text.encode("utf-8", "backslashreplace")))

    def flush(self) -> None:
        """Return when all that was appended is on the disk, safe from a power cut."""
        self._pending.append(self._thread.submit(self._sync))
        self._raise_failures(wait=True)

    def close(self) -> None:
        """Write what is left and close the files; the thread ends even if that fails."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()
            for stream in self._streams.values():
                stream.close()

    def _raise_failures(self, *, wait: bool) -> None:
        while self._pending and (wait or self._pending[0].done()):
            _finish(self._pending.popleft())

    def _append(self, path: Path, data: bytes) -> None:
        if self._broken:
            return  # after a line that was cut off, another would only make it worse
        self._broken = True
        stream = self._streams.get(path)
        if stream is None:
            stream = self._streams[path] = FileIO(path, "ab")
        rest = memoryview(data)
        while rest:
            rest = rest[stream.write(rest) :]
        self._broken = False

    def _sync(self) -> None:
        for stream in self._streams.values():
            os.fsync(stream.fileno())


def _finish(write: Future[None]) -> None:
    try:
        write.result()
    except OSError as error:
        raise TrainingError(
            f"the log of the run cannot be written: {error}",
            hint="free space or check the permissions of trainer.output_dir, then resume from the last checkpoint",
        ) from error
