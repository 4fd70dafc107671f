"""The written record of a run: metrics.jsonl, samples.jsonl, train.log, and what of them goes to screen and trackers.

Files are written by a thread of their own. A resumed run first takes the files back to the step it goes on from, so
that every update has one line, whatever happened in between.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipelines.config import MonitoringConfig
from pipelines.errors import TrainingError
from pipelines.monitoring import jsonl
from pipelines.monitoring.health import Watch
from pipelines.monitoring.names import refuse_unknown
from pipelines.monitoring.progress import LiveView, Moment, Pace, plain_line, wants_live_view
from pipelines.monitoring.trackers import Tracker, open_trackers
from pipelines.monitoring.writer import Writer

if TYPE_CHECKING:
    from typing_extensions import Self

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
LOG_FILE = "train.log"

REDACTED = "[redacted]"
HARMLESS_TEXTS = frozenset({"finish_reason"})
"""Fields of a sample that stay when `log_prompts` is off, though they are texts."""


class RunLog:
    """Use as a context manager: only inside it may anything be logged.

    `resume_step` is the last update that counts: later lines are dropped. None starts the files anew; train.log is
    continued always. `quiet` leaves stderr to warnings. `settings` is what trackers are told of the configuration.
    """

    def __init__(
        self,
        directory: Path,
        config: MonitoringConfig,
        *,
        total_steps: int,
        quiet: bool = False,
        resume_step: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self.total_steps = total_steps
        self.quiet = quiet
        self.resume_step = resume_step
        self.settings = settings or {}
        self._writer = Writer()
        self._watch = Watch()
        self._pace = Pace(resume_step or 0)
        self._view: LiveView | None = None
        self._trackers: list[Tracker] = []

    def __enter__(self) -> "Self":
        self.directory.mkdir(parents=True, exist_ok=True)
        logged = jsonl.last_step(self.directory / METRICS_FILE)
        self._trackers = open_trackers(
            self.directory,
            self.config,
            settings=self.settings,
            resume_step=self.resume_step,
            logged_step=logged,
            quiet=self.quiet,
        )
        dropped = [self._take_back(self.directory / name) for name in (METRICS_FILE, SAMPLES_FILE)]
        if self.resume_step is not None:
            self._log(f"resumed after step {self.resume_step}; lines of later steps dropped: {sum(dropped)}")
        elif logged:
            self.warn(f"no checkpoint to go on from: the run begins again, though it had come to update {logged}")
        self._pace = Pace(self.resume_step or 0)
        if not self.quiet and wants_live_view():
            self._view = LiveView()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.close()
        closers = [partial(tracker.close, failed=error is not None) for tracker in self._trackers]
        failures = [failure for close in (*closers, self._writer.close) if (failure := _failure(close)) is not None]
        if error is None and failures:
            raise failures[0]
        for failure in failures:
            _to_stderr(f"warning: {failure.message}")  # the first error is the one to raise

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, and the progress after it; anything with `float` will do as a value.

        Raises TrainingError for a name outside the table in `names`, and for an earlier line that was not written.
        """
        refuse_unknown(values)
        numbers = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
        self._append(METRICS_FILE, {"step": step, "time": round(time.time(), 3)} | numbers)
        for tracker in self._trackers:
            tracker.log(step, numbers)
        self._show(step, numbers)
        for sentence in self._watch.after(numbers):
            self.warn(f"step {step}: {sentence}")

    def wants_samples(self, step: int) -> bool:
        """Whether `samples` would write anything at this step: if not, they need not be decoded."""
        every = self.config.log_samples_every
        return bool(every and self.config.max_logged_samples) and step % every == 0

    def samples(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """The first `max_logged_samples` records to samples.jsonl, one line each, every `log_samples_every` updates.

        Without `log_prompts` only numbers are kept: texts and token ids become "[redacted]".
        """
        if not self.wants_samples(step):
            return
        kept: Sequence[Mapping[str, Any]] = records[: self.config.max_logged_samples]
        if not self.config.log_prompts:
            kept = [redacted(record) for record in kept]
        for record in kept:
            self._append(SAMPLES_FILE, {"step": step} | dict(record))
        if kept and self.config.log_prompts and self._view is not None:
            self._view.sample(kept[0])

    def note(self, text: str) -> None:
        """To train.log, and to stderr unless quiet."""
        self._log(text)
        if not self.quiet:
            _to_stderr(text)

    def warn(self, text: str) -> None:
        """To train.log and stderr, never silenced."""
        self._log(f"warning: {text}")
        _to_stderr(f"warning: {text}")

    def stopping(self, text: str) -> bool:
        """Have the live view say that the run is about to end; False if there is none. A signal handler may call it."""
        if self._view is None:
            return False
        self._view.stopping = text
        return True

    def repeat(self, text: str) -> None:
        """A warning that stderr has already, to train.log."""
        self._log(f"warning: {text}")

    def flush(self) -> None:
        """Return when everything is on the disk.

        Call it before a checkpoint is saved: a run that resumes there then finds a line for every update before.
        """
        self._writer.flush()

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        pace = self._pace.after(step)
        seconds = values.get("time/step_seconds", pace)
        moment = Moment(step, self.total_steps, values, seconds, pace * max(self.total_steps - step, 0))
        if self._view is not None:
            self._view.show(moment)
        if step % self.config.log_every == 0 or step == self.total_steps:
            line = plain_line(moment)
            self._log(line)
            if self._view is None and not self.quiet:
                _to_stderr(line)

    def _take_back(self, path: Path) -> int:
        if self.resume_step is None:
            path.write_bytes(b"")
            return 0
        return jsonl.cut_after(path, self.resume_step)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self._writer.append(self.directory / name, jsonl.line(record))

    def _log(self, text: str) -> None:
        self._writer.append(self.directory / LOG_FILE, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


class Unwritten(RunLog):
    """The log of a process that trains beside the one that writes: files and screen are the other's."""

    def __enter__(self) -> "Self":
        return self

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def wants_samples(self, step: int) -> bool:  # noqa: ARG002 - nobody wants them here
        """No."""
        return False

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def stopping(self, text: str) -> bool:  # noqa: ARG002 - the other process has heard it, too
        """Nothing is to be said here."""
        return True

    def repeat(self, text: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def redacted(record: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's numbers without its texts: what is no number, and no mapping to numbers, is replaced."""
    return {name: value if name in HARMLESS_TEXTS else _numbers(value) for name, value in record.items()}


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: item if _is_number(item) else REDACTED for key, item in value.items()}
    return value if _is_number(value) else REDACTED


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or getattr(value, "shape", None) == ()


def _failure(close: Callable[[], None]) -> TrainingError | None:
    try:
        close()
    except TrainingError as failure:
        return failure
    return None


def _to_stderr(text: str) -> None:
    """One line; where nobody reads any more (`2>&1 | tee log` ends by the same Ctrl-C) all that follows is dropped."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
