"""Runs the fuzz targets for a time: with atheris where it is installed, else with a seeded mutator of its own.

    python tests/fuzz/drive.py [--seconds 60] [TARGET]

Without TARGET each has its turn, so many seconds long; always in a process of its own. An input that makes a target
raise something undocumented, or think for longer than ten seconds, is saved, and the exit code is 1.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from pipelines.errors import GrpoError

FOLDER = Path(__file__).resolve().parent
CRASHES = FOLDER.parents[1] / "outputs" / "fuzz"
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
LONGEST = 1 << 16
MOST_SECONDS = 10.0
LARGEST_CORPUS = 4_000


class HangError(Exception):
    """A target took longer than any input may."""


def load_targets() -> dict:
    """The targets by name; a module of the folder, which is no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        with _instrumented():
            return importlib.import_module("targets").TARGETS
    finally:
        sys.path.remove(str(FOLDER))


def _instrumented() -> contextlib.AbstractContextManager:
    """Where atheris is installed, what is imported inside reports which branches it takes."""
    if not HAS_ATHERIS:
        return contextlib.nullcontext()
    import atheris

    return atheris.instrument_imports(include=["pipelines"])


def attempt(target, data: bytes) -> str:
    """How a target took an input, without what differs between inputs: equal for equal paths, more or less."""
    try:
        target.run(data)
    except GrpoError as error:
        if not error.message or not error.hint:
            raise AssertionError("an error has a message and a hint") from error
        return f"{type(error).__name__} {re.sub(r'[0-9]+|.[^ ]*/[^ ]*', '', error.message)[:60]}"
    return "accepted"


def mutated(draw: random.Random, corpus: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One of the corpus with up to eight changes."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 2, 3, 5, 8))):
        at, length = draw.randint(0, len(data)), draw.choice((1, 1, 2, 4, 16, 64))
        kind = draw.randrange(8)
        if kind == 0:
            data[at:at] = draw.choice(words)
        elif kind == 1:
            data[at : at + length] = draw.choice(words)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = draw.randbytes(min(length, 4))
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 5:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 10, 300))
        elif kind == 6:
            other = draw.choice(corpus)
            data[at:] = other[draw.randint(0, len(other)) :]
        else:
            data[at:at] = draw.choice(corpus)
    return bytes(data[:LONGEST])


def with_mutator(name: str, target, seconds: float, seed: int) -> int:
    """The driver that needs nothing: inputs that end in a new way join the corpus. Returns the exit code."""
    draw, ends = random.Random(seed), time.monotonic() + seconds
    corpus, seen, tried = list(target.seeds), set(), 0
    signal.signal(signal.SIGALRM, _hang)
    while time.monotonic() < ends:
        data = target.seeds[tried] if tried < len(target.seeds) else mutated(draw, corpus, target.words)
        tried += 1
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        try:
            outcome = attempt(target, data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - whatever a target raises is what is looked for
            signal.setitimer(signal.ITIMER_REAL, 0)
            return _crashed(name, data, traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if outcome not in seen and len(corpus) < LARGEST_CORPUS:
            seen.add(outcome)
            corpus.append(data)
    _say(f"{name}: {tried:,} inputs in {seconds:.0f} s, {len(seen)} ways to end, no crash (own mutator, seed {seed})")
    return 0


def _hang(*_: object) -> None:
    raise HangError(f"longer than {MOST_SECONDS:.0f} s")


def _crashed(name: str, data: bytes, trace: str) -> int:
    CRASHES.mkdir(parents=True, exist_ok=True)
    place = CRASHES / f"crash-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    place.write_bytes(data)
    _say(f"{trace}\n{name}: crashed on {data[:200]!r}; the input is in {place}")
    return 1


def with_atheris(name: str, target, seconds: float) -> None:
    """libFuzzer, guided by coverage of our code; it ends the process, with a code of its own if a target crashed."""
    import atheris

    room = Path(tempfile.mkdtemp())
    corpus = room / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    words = room / "words.dict"
    words.write_text(
        "".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word)}"\n' for word in target.words if word)
    )
    CRASHES.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds:.0f}", f"-timeout={MOST_SECONDS:.0f}", f"-max_len={LONGEST}"]
    options += [f"-dict={words}", f"-artifact_prefix={CRASHES}/crash-{name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: attempt(target, data) and None)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """The exit code: 1 if any target crashed."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers that read what others wrote.")
    parser.add_argument("target", nargs="?", default="", help="one target; all of them without it")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutator")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    targets = load_targets()
    if options.target and options.target not in targets:
        _say(f"error: there is no target {options.target!r}\nhint: there are {', '.join(targets)}")
        return 2
    if not options.here:
        names = [options.target] if options.target else list(targets)
        codes = [_apart(name, "--seconds", str(options.seconds), "--seed", str(options.seed)) for name in names]
        return int(any(codes))
    warnings.simplefilter("error")
    if HAS_ATHERIS:
        _say(f"{options.target}: atheris")
        with_atheris(options.target, targets[options.target], options.seconds)
    return with_mutator(options.target, targets[options.target], options.seconds, options.seed)


def _apart(name: str, *options: str) -> int:
    """One target in a process of its own; libFuzzer ends it at once, so what it wrote on the way is removed here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="grpo-fuzz-", dir=memory if memory.is_dir() else None) as room:
        call = [sys.executable, __file__, name, "--here", *options]
        return subprocess.run(call, check=False, env={**os.environ, "TMPDIR": room}).returncode


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
