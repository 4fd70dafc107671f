"""A run's checkpoints: saved whole or not at all, the newest and the best kept, the newest intact one found again.

Published directories are `step_000500`. `.step_000500-<token>.grpo-tmp` is one being written or replaced, and
`.gone_000500-<token>.grpo-tmp` one being deleted; both are left behind only by a process that died.
"""

import logging
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.config import CheckpointingConfig
from pipelines.errors import CheckpointError, NoCheckpointError
from pipelines.files import TEMPORARY_SUFFIX, sync_directory
from pipelines.training import checkpoint_files as files
from pipelines.training.checkpoint_files import Checkpoint, Manifest

STEP_PATTERN = re.compile(r"step_(\d{6,})")
LEFTOVER_PATTERN = re.compile(r"\.(step|gone)_(\d{6,})-[0-9a-f]{8}" + re.escape(TEMPORARY_SUFFIX))
LOCK_FILE = ".lock"
"""Held while something is written; freed by the kernel when a process dies, so all other leftovers are dead."""

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one directory. Reading never changes anything."""

    def __init__(self, directory: Path, config: CheckpointingConfig) -> None:
        self.directory = directory
        self.config = config
        self._spared: set[Path] = set()

    def save(
        self, step: int, write: Callable[[Path], object], state: dict[str, Any], metric: float | None = None
    ) -> Path:
        """Publish `step_<step>` with the files that `write(directory)` makes, then delete what need not be kept.

        metric: the value of `best_metric` at this step; None if it is not known. CheckpointError if the disk refuses.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self.directory.parent)
            with FileLock(self.directory / LOCK_FILE):
                self._clear_leftovers()
                path = self._publish(step, write, state, metric)
                self._clear_leftovers()
                self._rotate(path)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be saved: {error}",
                hint=f"free space or check the permissions of {self.directory}; earlier checkpoints are untouched",
            ) from error
        return path

    def problems(self, path: Path) -> list[str]:
        """Why a directory cannot be used, a line each; empty if it can. Digests are compared if `verify` is on."""
        named = _step_of(path) if STEP_PATTERN.fullmatch(path.name) else None
        return files.problems(path, verify=self.config.verify, step=named)

    def latest(self) -> Checkpoint | None:
        """The newest intact checkpoint; every damaged one passed over on the way is warned of."""
        damaged = False
        for path in [*self._newest_first(), *self._complete_leftovers()]:
            found = self.problems(path)
            if not found:
                if damaged:
                    log.warning("%s is used instead", path)
                return files.read(path)
            damaged = True
            log.warning("the checkpoint %s is damaged and not used: %s", path, "; ".join(found))
        if damaged:
            log.warning("no checkpoint in %s is intact", self.directory)
        return None

    def at(self, which: int | str | Path) -> Checkpoint:
        """The checkpoint of a step, or in a directory as given or below this one; CheckpointError if it is unusable."""
        name = str(which)
        if name.isdecimal():
            path = self.directory / step_name(int(name))
        else:
            path = next((path for path in (Path(name), self.directory / name) if path.is_dir()), Path(name))
        found = self.problems(path)
        if found:
            steps = ", ".join(str(step) for step in self.steps()) or "none"
            error = CheckpointError if path.is_dir() else NoCheckpointError
            raise error(
                f"{path} is no usable checkpoint: {'; '.join(found)}", hint=f"steps in {self.directory}: {steps}"
            )
        return files.read(path)

    def best(self) -> Checkpoint | None:
        """The intact checkpoint with the best `best_metric`, the earliest of equals; None if none recorded it."""
        scored = self._ours()
        while (path := self._best_of(scored)) is not None:
            found = self.problems(path)
            if not found:
                return files.read(path)
            log.warning("the best checkpoint %s is damaged and not used: %s", path, "; ".join(found))
            del scored[path]
        return None

    def steps(self) -> list[int]:
        """Steps that have a directory, ascending, intact or not."""
        return sorted(_step_of(path) for path in self._newest_first())

    def forget_after(self, step: int) -> list[int]:
        """Delete our checkpoints later than a step, for a run that goes back to it on purpose; returns their steps."""
        later = [path for path in self._ours() if _step_of(path) > step]
        if later:
            with FileLock(self.directory / LOCK_FILE):
                return [_step_of(path) for path in later if self._delete(path)]
        return []

    def _publish(self, step: int, write: Callable[[Path], object], state: dict[str, Any], metric: float | None) -> Path:
        final = self.directory / step_name(step)
        temporary = self._leftover_name("step", step)
        try:
            temporary.mkdir()
            write(temporary)
            files.seal(temporary, step, state, self.config.best_metric, metric)
            self._make_room(final)
            temporary.rename(final)
            sync_directory(self.directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # it is there only if something went wrong
        return final

    def _make_room(self, final: Path) -> None:
        """Move what has a step's name out of the way: ours becomes a leftover, anything else is kept for its owner."""
        manifest = _our_manifest(final)
        if manifest is not None and not files.foreign_files(final, manifest):
            final.rename(self._leftover_name("step", manifest.step))
        elif final.exists() or final.is_symlink():
            number = 1
            while (aside := final.with_name(f"{final.name}.old-{number}")).exists():
                number += 1
            final.rename(aside)
            log.warning("%s was damaged or held files of somebody else; it is kept as %s", final, aside.name)

    def _clear_leftovers(self) -> None:
        """Finish what a dead process began: publish what was complete and is missing, delete the rest."""
        for path in self._complete_leftovers():
            final = self.directory / step_name(_step_of(path))
            if not final.exists():
                path.rename(final)
                sync_directory(self.directory)
        for path in self.directory.iterdir():
            if LEFTOVER_PATTERN.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)

    def _rotate(self, just_saved: Path) -> None:
        """Keep the newest intact checkpoints, the best one, and the one just saved; damaged ones don't count."""
        ours = self._ours()
        intact = {path: manifest for path, manifest in ours.items() if not files.problems(path, verify=False)}
        newest = sorted(intact, key=_step_of)[-self.config.keep_last_n :]
        kept = {*newest, just_saved, self._best_of(intact)}
        oldest_step = min(map(_step_of, newest), default=0)
        for path in ours:
            if path not in kept and _step_of(path) < oldest_step:
                self._delete(path)

    def _best_of(self, manifests: dict[Path, Manifest]) -> Path | None:
        sign = 1 if self.config.best_mode == "max" else -1
        scores = {
            path: sign * manifest.metric
            for path, manifest in manifests.items()
            if manifest.metric is not None and manifest.metric_name == self.config.best_metric
        }
        return max(sorted(scores, key=_step_of), key=lambda path: scores[path], default=None)

    def _delete(self, path: Path) -> bool:
        """Delete a checkpoint of ours, unless somebody put files into it."""
        manifest = _our_manifest(path)
        foreign = [] if manifest is None else files.foreign_files(path, manifest)
        if manifest is None or foreign:
            if path not in self._spared:
                self._spared.add(path)
                log.warning("%s is not deleted: it holds files of somebody else (%s)", path, ", ".join(foreign[:3]))
            return False
        doomed = self._leftover_name("gone", manifest.step)
        path.rename(doomed)
        shutil.rmtree(doomed)
        return True

    def _leftover_name(self, kind: str, step: int) -> Path:
        return self.directory / f".{kind}_{step:06d}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"

    def _complete_leftovers(self) -> list[Path]:
        """Checkpoints that were finished but not published, or about to be replaced; the latest first."""
        found = self.directory.iterdir() if self.directory.is_dir() else iter(())
        named = [path for path in found if LEFTOVER_PATTERN.fullmatch(path.name) and path.name.startswith(".step_")]
        complete = [path for path in named if not files.problems(path, verify=False)]
        return sorted(complete, key=lambda path: (_step_of(path), path.stat().st_mtime_ns), reverse=True)

    def _newest_first(self) -> list[Path]:
        found = self.directory.iterdir() if self.directory.is_dir() else iter(())
        return sorted((p for p in found if STEP_PATTERN.fullmatch(p.name) and p.is_dir()), key=_step_of, reverse=True)

    def _ours(self) -> dict[Path, Manifest]:
        """What may be deleted: a name of our pattern and a manifest that says so."""
        pairs: Iterator[tuple[Path, Manifest | None]] = ((path, _our_manifest(path)) for path in self._newest_first())
        return {path: manifest for path, manifest in pairs if manifest is not None}


def step_name(step: int) -> str:
    """The directory of a step: six digits, more where they are needed."""
    return f"step_{step:06d}"


def _step_of(path: Path) -> int:
    match = STEP_PATTERN.fullmatch(path.name)
    if match is None:
        match = LEFTOVER_PATTERN.fullmatch(path.name)
    return int(match[match.lastindex or 1]) if match else -1


def _our_manifest(path: Path) -> Manifest | None:
    """The manifest of a directory that we made for the step in its name; None if it is somebody else's."""
    if path.is_symlink():
        return None
    try:
        manifest = files.read_manifest(path)
    except CheckpointError:
        return None
    return manifest if manifest is not None and manifest.step == _step_of(path) else None
