"""Weights & Biases and TensorBoard, for those who ask: the numbers of each update, never a prompt or a completion.

Neither package is imported unless it is switched on. Their files lie in the run's directory, under `wandb` and
`tensorboard`.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pipelines.config import MonitoringConfig
from pipelines.errors import ConfigError, GrpoError, TrainingError
from pipelines.files import read_json, write_json

log = logging.getLogger(__name__)

WANDB_ID_FILE = "run.json"
"""In `<run>/wandb`: the id under which a resumed run goes on."""

UPLOAD_SECONDS = 300
"""How long the end of a run waits for a network that does not answer; the files on disk remain for `wandb sync`."""

PACKAGES = {
    "use_wandb": ("wandb", "wandb.errors"),
    "use_tensorboard": ("tensorboard", "tensorboard.summary.writer.event_file_writer"),
}
"""Setting -> (package and extra, a module of it that a stray folder of the same name does not have)."""


class Tracker(Protocol):
    """Somewhere else to send metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One update; steps only grow."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Send what is left; `failed` if an error ended the run."""
        ...


def require_packages(config: MonitoringConfig) -> None:
    """ConfigError for a tracker that is switched on and not installed."""
    for setting, (package, module) in PACKAGES.items():
        if not getattr(config, setting):
            continue
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"monitoring.{setting}: the package {package} cannot be imported ({error})",
                hint=f"pip install 'grpo[{package}]', or set monitoring.{setting}=false",
            ) from error


def open_trackers(
    directory: Path,
    config: MonitoringConfig,
    *,
    settings: Mapping[str, Any],
    resume_step: int | None,
    logged_step: int,
    quiet: bool = False,
) -> list[Tracker]:
    """The trackers that are switched on.

    `settings` is the run's resolved configuration. `resume_step` is the last update that counts (None = a new run),
    `logged_step` the last one that was logged at all: the run may go back and make some of them again.
    """
    require_packages(config)
    trackers: list[Tracker] = []
    try:
        if config.use_wandb:
            visible = settings if config.log_prompts else without_prompts(settings)
            resumed_after = None if resume_step is None else logged_step
            trackers.append(Wandb(directory, config.wandb_project, visible, resumed_after, quiet=quiet))
        if config.use_tensorboard:
            trackers.append(TensorBoard(directory / "tensorboard", resume_step or 0))
    except GrpoError:
        for tracker in trackers:
            tracker.close(failed=True)
        raise
    return trackers


def without_prompts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the one prompt that it may hold, `data.system_prompt`."""
    data = {name: value for name, value in settings.get("data", {}).items() if name != "system_prompt"}
    return {**settings, "data": data}


class Wandb:
    """One Weights & Biases run per directory: a resume goes on under the same id.

    There, steps cannot go back: an update that is made again after a resume is not sent again. WANDB_MODE, the API key
    and all else that wandb reads from the environment counts. It is given numbers and the configuration, no code,
    console text, command line or list of packages.
    """

    def __init__(
        self, directory: Path, project: str, settings: Mapping[str, Any], resumed_after: int | None, *, quiet: bool
    ) -> None:
        id_file = directory / "wandb" / WANDB_ID_FILE
        known = None if resumed_after is None else read_json(id_file, TrainingError)
        self._last_step = (resumed_after or 0) if known else 0
        run_id = known["id"] if known else secrets.token_hex(4)
        write_json(id_file, {"id": run_id})
        self._run = _wandb_run(
            directory,
            quiet=quiet,
            project=project,
            id=run_id,
            name=None if known else directory.resolve().name,
            resume="allow",
            config=dict(settings),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Returns at once: wandb's own process sends, keeps and retries."""
        if step > self._last_step:
            self._run.log(dict(metrics), step=step, commit=True)

    def close(self, *, failed: bool = False) -> None:
        """Wait for the upload, but not for ever."""
        self._run.finish(exit_code=int(failed))


def _wandb_run(directory: Path, *, quiet: bool, **arguments: Any) -> Any:
    """`wandb.init` in the run's directory: ConfigError if it refuses, offline and a warning if nobody answers."""
    import wandb
    from wandb.errors import AuthenticationError, CommError, Error

    settings = wandb.Settings(
        console="off",  # the live view shows samples
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,  # the command line may hold a prompt
        x_save_requirements=False,
        finish_timeout=UPLOAD_SECONDS,
        silent=quiet,
    )
    arguments |= {"dir": str(directory), "reinit": "create_new", "settings": settings}
    try:
        return wandb.init(**arguments)
    except Error as error:
        if not isinstance(error, CommError) or isinstance(error, AuthenticationError):
            raise ConfigError(
                f"monitoring.use_wandb: Weights & Biases cannot start: {error}",
                hint="run `wandb login`, or set WANDB_MODE=offline to keep the metrics on disk",
            ) from error
        log.warning("Weights & Biases cannot be reached, its files stay on disk for `wandb sync`: %s", error)
    wandb.teardown()  # else the attempt that failed still holds the id
    return wandb.init(**arguments, mode="offline")


class TensorBoard:
    """Event files for `tensorboard --logdir`, written by TensorBoard's own writer.

    Each start says from which step on it replaces what was written before.
    """

    def __init__(self, directory: Path, resume_step: int) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        try:
            self._writer = EventFileWriter(str(directory))
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._writer.add_event(self._event(resume_step + 1, session_log=start))
        except OSError as error:
            raise _not_written(error) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Written by a thread; TrainingError if an earlier update could not be."""
        values = [self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        try:
            self._writer.add_event(self._event(step, summary=self._summaries.Summary(value=values)))
            self._writer.flush()
        except OSError as error:
            raise _not_written(error) from error

    def close(self, *, failed: bool = False) -> None:  # noqa: ARG002 - events do not say how a run ended
        """Write what is left."""
        try:
            self._writer.close()
        except OSError as error:
            raise _not_written(error) from error

    def _event(self, step: int, **content: Any) -> Any:
        return self._events.Event(wall_time=time.time(), step=step, **content)


def _not_written(error: OSError) -> TrainingError:
    return TrainingError(
        f"the TensorBoard events of the run cannot be written: {error}",
        hint="free space, or set monitoring.use_tensorboard=false, then resume from the last checkpoint",
    )
