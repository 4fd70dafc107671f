"""Do a stage's work once: find it finished, or do it alone, completely, and say why.

An entry of the store is `<root>/<stage>/<key>` and may be emptied at will. Any other directory (a run's `output_dir`)
belongs to people: it is claimed by `identity.json`, never emptied, never given to another identity; at most it is
renamed to `<name>.old-<n>`, whole.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import GrpoError, StageError
from pipelines.files import is_temporary, sync_directory
from pipelines.stages import locks, manifest
from pipelines.stages.explain import VERSION, differences
from pipelines.stages.identity import IDENTITY_FILE, KEY_PATTERN, Identity, read_identity, write_identity
from pipelines.stages.manifest import MANIFEST_FILE, Manifest

Status = Literal["cached", "stale", "partial", "missing", "damaged", "running"]

NOBODYS = frozenset({".DS_Store", ".gitkeep", ".gitignore"})
"""Files that do not make a directory somebody's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageState:
    """What there is of a stage, and why it is not `cached`, as lines for people.

    `asked` is what somebody asked of the stage, where that can differ; `note` is what is worth knowing about a result
    that is cached: other versions or other code made it.
    """

    stage: str
    directory: Path
    status: Status
    reasons: list[str] = field(default_factory=list[str])
    asked: str = ""
    note: str = ""

    @property
    def lines(self) -> list[str]:
        """Everything there is to say: the reasons, then the note."""
        return [*self.reasons, *([f"note: {self.note}"] if self.note else [])]


@dataclass(frozen=True)
class Unfinished:
    """Returned by work that stopped on purpose (time is up): nothing failed, but the directory is not complete."""

    summary: dict[str, Any]


Work = Callable[[Path], dict[str, Any] | Unfinished | None]

GoesOn = Callable[[Identity, Identity], bool]
"""(the identity of a run, another one): whether the run, as far as it has come, is a part of the other's."""


def never(_old: Identity, _new: Identity) -> bool:
    """Another identity is another result."""
    return False


@dataclass(frozen=True)
class StageResult:
    """What running a stage came to; `reasons` say why it had to run, `summary` is what the work returned.

    `partial` means that work returned `Unfinished`: the next call continues or starts again.
    """

    stage: str
    directory: Path
    status: Literal["cached", "ran", "partial"]
    reasons: list[str]
    seconds: float
    summary: dict[str, Any]


def directory_for(root: Path | str, identity: Identity) -> Path:
    """The content-addressed directory of an identity: `<root>/<stage>/<12 hex>`."""
    return Path(root) / identity.stage / identity.key


def state(identity: Identity, directory: Path, *, verify: bool = False, goes_on: GoesOn = never) -> StageState:
    """Look, touch nothing. Sizes are checked always, contents with `verify`. `goes_on` as `run_stage` has it."""
    found = _look(identity, directory, goes_on, verify=verify)
    if found.status == "cached":
        record = manifest.read(directory)
        return replace(found, note="" if record is None else manifest.drift(record))
    worker = locks.running(directory)
    if worker is not None:
        also = found.reasons if found.status == "stale" else []
        return StageState(identity.stage, directory, "running", [worker, *also])
    return found


def outputs_digest(directory: Path) -> str | None:
    """The digest of what a complete stage wrote, for the key of the stage after it; None if it is not complete."""
    record = manifest.read(directory)
    return None if record is None else record.outputs_digest


def entries(root: Path | str, stage: str) -> Iterator[Path]:
    """The store's directories of one stage, complete or not, the newest first."""
    found: dict[Path, int] = {}
    for path in (Path(root) / stage).glob("*"):
        if KEY_PATTERN.fullmatch(path.name) and path.is_dir():
            with suppress(FileNotFoundError):  # freed by another process just now
                found[path] = path.stat().st_mtime_ns
    yield from sorted(found, key=found.__getitem__, reverse=True)


def finished(root: Path | str, stage: str) -> Iterator[tuple[Path, Identity]]:
    """The store's complete entries of one stage with their identities, the newest first."""
    for entry in entries(root, stage):
        try:
            record = manifest.read(entry)
        except StageError:
            continue  # a damaged entry explains nothing
        if record is not None:
            yield entry, record.identity


def run_stage(
    identity: Identity,
    directory: Path,
    work: Work,
    *,
    force: bool = False,
    verify: bool = False,
    resumable: bool = False,
    fresh: bool = False,
    unrecorded: Sequence[str] = (),
    goes_on: GoesOn = never,
) -> StageResult:
    """`work(directory)` unless its outputs are there already; returns what it returned, now or then.

    `verify` compares contents, not only sizes, before reuse. `force` does the work again. `resumable` lets work go on
    in an incomplete or damaged directory of the same identity, which is otherwise emptied (store) or set aside.
    `fresh` sets a run's directory aside as `<name>.old-<n>` and starts anew. `unrecorded` are patterns of files that
    may change later (logs), left out of the manifest. A run that `goes_on` as one of this identity is claimed for it.
    `StageError` if the directory belongs to something else.
    """
    found = _look(identity, directory, goes_on, verify=verify)
    if found.status == "cached" and not (force or fresh):
        return _reused(identity, directory)
    _refuse_another(identity, directory, found, goes_on, fresh=fresh)  # before waiting for hours in vain
    with locks.hold(directory, identity.stage):
        found = _look(identity, directory, goes_on, verify=verify)  # again, now that nobody else works here
        if found.status == "cached" and not (force or fresh):
            return _reused(identity, directory)
        _refuse_another(identity, directory, found, goes_on, fresh=fresh)
        _prepare(identity, directory, found, keep=resumable and not (force or fresh))
        asked = ["forced"] if force else ["fresh start"] if fresh else []
        return _do(identity, directory, work, asked + found.reasons, unrecorded)


def _do(identity: Identity, directory: Path, work: Work, reasons: list[str], unrecorded: Sequence[str]) -> StageResult:
    write_identity(identity, directory)
    log.info("%s  runs in %s", identity.stage, directory)
    for reason in reasons:
        log.info("  %s", reason)
    started = time.monotonic()
    try:
        summary = work(directory) or {}
    except GrpoError:
        if not _addressed(identity, directory):
            _unclaim(directory)
        raise
    seconds = time.monotonic() - started
    if isinstance(summary, Unfinished):
        return StageResult(identity.stage, directory, "partial", reasons, seconds, summary.summary)
    record = manifest.complete(directory, identity, summary=summary, seconds=seconds, unrecorded=unrecorded)
    return StageResult(identity.stage, directory, "ran", reasons, record.seconds, record.summary)


def _unclaim(directory: Path) -> None:
    """After a refusal: a run's directory to which nothing was written is free for the settings as they will be."""
    if directory.is_dir() and [path.name for path in directory.iterdir()] == [IDENTITY_FILE]:
        (directory / IDENTITY_FILE).unlink()
        directory.rmdir()


def _reused(identity: Identity, directory: Path) -> StageResult:
    record = manifest.read(directory)
    if record is None:
        raise StageError(f"{directory} vanished while it was reused", hint="another process redid it; run again")
    return StageResult(identity.stage, directory, "cached", [], record.seconds, record.summary)


def _look(identity: Identity, directory: Path, goes_on: GoesOn, *, verify: bool) -> StageState:
    """The state without asking whether somebody works there now."""

    def says(status: Status, *reasons: str) -> StageState:
        return StageState(identity.stage, directory, status, list(reasons))

    if _is_empty(directory):
        return _absent(identity, directory)
    ours = _addressed(identity, directory)
    try:
        owner = read_identity(directory)
        if owner is not None and owner != identity:
            lines = differences(owner, identity)
            if goes_on(owner, identity):
                return says("partial", *(f"goes on with {line}" for line in lines))
            return says("damaged" if ours else "stale", *lines)
        record = manifest.read(directory)
    except StageError as error:
        return says("damaged", error.message)
    if record is not None:
        return _complete(identity, directory, record, verify=verify)
    if owner is None:
        return says("partial" if ours else "stale", f"it holds files but no {IDENTITY_FILE}")
    return says("partial", f"started, not finished: there is no {MANIFEST_FILE}")


def _complete(identity: Identity, directory: Path, record: Manifest, *, verify: bool) -> StageState:
    lines = differences(record.identity, identity)
    if lines:
        status: Status = "damaged" if _addressed(identity, directory) else "stale"
        return StageState(identity.stage, directory, status, lines)
    damage = manifest.damages(directory, record, verify=verify)
    return StageState(identity.stage, directory, "damaged" if damage else "cached", damage)


def _absent(identity: Identity, directory: Path) -> StageState:
    """Nothing there: `stale` with the difference to the nearest finished entry of the stage, else `missing`."""
    if _addressed(identity, directory):
        others = [differences(other, identity) for _, other in finished(directory.parent.parent, identity.stage)]
        if others:
            return StageState(identity.stage, directory, "stale", min(others, key=len))
    return StageState(identity.stage, directory, "missing", differences(None, identity))


def _addressed(identity: Identity, directory: Path) -> bool:
    """Whether a directory is an entry of the store, ours to empty."""
    return directory.name == identity.key and directory.parent.name == identity.stage


def _is_empty(directory: Path) -> bool:
    if not directory.exists():
        return True
    if not directory.is_dir():
        raise StageError(f"{directory} is a file", hint="give a directory")
    return all(path.name in NOBODYS or (is_temporary(path) and path.is_file()) for path in directory.iterdir())


def _prepare(identity: Identity, directory: Path, found: StageState, *, keep: bool) -> None:
    """Make a directory ready to be worked in; what is there is ours, and goes, stays (`keep`) or is set aside."""
    if found.status == "damaged":
        log.warning("%s: %s is damaged and is done again: %s", identity.stage, directory, "; ".join(found.reasons))
    if keep or _addressed(identity, directory) or _is_empty(directory):
        if keep and found.status == "damaged":
            write_identity(identity, directory)  # first, lest the run be nobody's if this is as far as we get
        _empty(directory, keep_outputs=keep)
    else:
        _set_aside(identity.stage, directory)
    Path(os.path.realpath(directory)).mkdir(parents=True, exist_ok=True)  # a link to a run stays one


def _refuse_another(identity: Identity, directory: Path, found: StageState, goes_on: GoesOn, *, fresh: bool) -> None:
    """`StageError` for a run's directory that holds something other than a run of this identity.

    `fresh` lets another identity's run be set aside, but never files that no run made.
    """
    if _addressed(identity, directory) or _is_empty(directory):
        return
    if not (directory / IDENTITY_FILE).exists() and not (directory / MANIFEST_FILE).exists():
        raise StageError(
            f"{identity.stage}: {directory} is not empty, and no run of grpo made what is in it",
            hint="give another directory (--set trainer.output_dir=DIR), or empty this one yourself",
        )
    if not fresh and not _same_owner(identity, directory, goes_on):
        raise _belongs_to_another(identity, directory, found)


def _same_owner(identity: Identity, directory: Path, goes_on: GoesOn) -> bool:
    """Whether a run's directory was claimed for this identity, or goes on as it, by the first file that can be read."""
    for owner_of in (read_identity, _recorded):
        try:
            owner = owner_of(directory)
        except StageError:
            continue
        if owner is not None:
            return owner == identity or goes_on(owner, identity)
    return False


def _recorded(directory: Path) -> Identity | None:
    record = manifest.read(directory)
    return None if record is None else record.identity


def _belongs_to_another(identity: Identity, directory: Path, found: StageState) -> StageError:
    shown = "\n".join(f"  {line}" for line in found.reasons)
    elsewhere = "give another directory (--set trainer.output_dir=DIR)"
    fresh = f"keep the old run as {directory.name}.old-<n> and start anew (--fresh)"
    if found.status == "damaged":
        message = f"{identity.stage}: {directory} holds a run, and nobody can tell of which settings:\n{shown}"
        return StageError(message, hint=f"{elsewhere}, or {fresh}")
    if any(line.startswith(VERSION) for line in found.reasons):
        message = f"{identity.stage}: {directory} belongs to a run of another version of grpo:\n{shown}"
        weights = "begin elsewhere with its weights (--set model.model_path=CHECKPOINT)"
        return StageError(message, hint=f"{elsewhere}, or {fresh}, or {weights}; status, eval and export still read it")
    message = f"{identity.stage}: {directory} belongs to a run with other settings or inputs:\n{shown}"
    return StageError(message, hint=f"{elsewhere}, or {fresh}, or put the settings back to continue it")


def _empty(directory: Path, *, keep_outputs: bool) -> None:
    """Make an entry incomplete first, durably; then remove the rest, if it may not be continued."""
    if not directory.exists():
        return
    (directory / MANIFEST_FILE).unlink(missing_ok=True)
    sync_directory(directory)
    for path in directory.iterdir():
        if is_temporary(path) and path.is_file():
            path.unlink()
        elif not keep_outputs:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _set_aside(stage: str, directory: Path) -> None:
    """Rename `<name>` to the first free `<name>.old-<n>`: nothing is lost."""
    real = Path(os.path.realpath(directory))
    number = 1
    while (aside := real.with_name(f"{real.name}.old-{number}")).exists():
        number += 1
    real.rename(aside)
    sync_directory(real.parent)
    log.warning("%s: the earlier run is kept in %s", stage, aside)
