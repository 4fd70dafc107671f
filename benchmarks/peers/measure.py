"""What every side of `benchmarks/step.py` shares: its task, its clock, the reward, and the line it hands back.

Nothing here but the standard library, and MLX or PyTorch where they are loaded already: a peer may live in an
environment of its own.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

QUESTIONS = (
    "A shelf holds 12 books. Ann puts 7 more on it and Ben takes 4 away. How many books are on the shelf now?",
    "Tickets cost 6 dollars each. Cleo buys 5 of them and pays with 50 dollars. How much money does she get back?",
    "A baker makes 24 rolls an hour and sells 19 of them. How many rolls are left after three hours?",
    "Dan runs 3 miles on each day of the week but Sunday. How many miles does he run in two weeks?",
)
LEARNING_RATE = 1e-4
LORA_SCALE = 2.0
"""What the product of the adapters is multiplied by: alpha / rank."""

WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")


@dataclass(frozen=True)
class Task:
    """What one side is asked to do."""

    model: str
    prompts: int
    group: int
    tokens: int
    rank: int
    steps: int
    """All steps, those that only warm up included."""
    seed: int
    dtype: str
    full: bool
    """Whether all weights are trained; else adapters on every linear layer."""
    folder: str
    """An empty one, for whatever a side writes."""
    openblas: str | None = None
    """The folder whose OpenBLAS is to be loaded before MLX; None: whatever the environment brings."""
    trl_rows: int | None = None
    """Completions in each of TRL's backward passes; None: all of a step in one."""

    @property
    def questions(self) -> list[str]:
        """One for each prompt; beyond those there are, numbered ones."""
        return [
            QUESTIONS[n] if n < len(QUESTIONS) else f"({n}) {QUESTIONS[n % len(QUESTIONS)]}"
            for n in range(self.prompts)
        ]


@dataclass
class Meter:
    """Wall and CPU seconds of each step's two parts, all threads of the process together."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    _last: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """A step starts."""
        self._last = _now()
        self.steps.append({})

    def rolled(self, tokens: int) -> None:
        """Completions are there, and scored; they have so many tokens."""
        self._note("rollout")
        self.steps[-1]["tokens"] = tokens

    def end(self) -> None:
        """The optimizer has stepped."""
        self._note("update")

    def _note(self, part: str) -> None:
        now = _now()
        self.steps[-1][part] = [late - early for late, early in zip(now, self._last, strict=True)]
        self._last = now


def _now() -> tuple[float, float]:
    """Once a GPU has done what it was told to."""
    if "mlx.core" in sys.modules:
        sys.modules["mlx.core"].synchronize()
    if _cuda():
        sys.modules["torch"].cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _cuda() -> bool:
    """Whether PyTorch computes on a GPU here."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()


def reward(text: str) -> float:
    """Minus the share of words that occurred before: `repetition_penalty` of single words, written out.

    Any two completions of some length differ in it, so that a group has something to learn.
    """
    words = WORD.findall(text.lower())
    return len(set(words)) / len(words) - 1 if words else 0.0


def take() -> Task:
    """The task on the command line, its BLAS loaded. MLX must not have been imported."""
    task = Task(**json.loads(sys.argv[1]))
    if task.openblas is not None:
        from pipelines import blas

        sys.path.append(task.openblas)
        found = blas.preload()
        sys.path.remove(task.openblas)
        if found is None:
            raise SystemExit("OpenBLAS cannot be loaded here")
    return task


def hand_back(package: str, meter: Meter, prompt_tokens: Sequence[int]) -> None:
    """Write what was measured where `step.py` reads it, with what MLX or CUDA says it had allocated at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {
        "version": _version(package),
        "steps": meter.steps,
        "resident": most,
        "device": _device_peak(),
        "prompt_tokens": sorted(prompt_tokens),
    }
    Path(sys.argv[2]).write_text(json.dumps(found))


def _device_peak() -> int | None:
    """In bytes, without what is kept for reuse; None for PyTorch on a CPU, which does not count.

    Transformers may load the library that it does not compute with: that one has allocated nothing.
    """
    mlx = sys.modules["mlx.core"].get_peak_memory() if "mlx.core" in sys.modules else 0
    return mlx + (sys.modules["torch"].cuda.max_memory_allocated() if _cuda() else 0) or None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from source"
