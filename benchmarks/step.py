"""A whole GRPO step, rollout, rewards and update, beside the same step of other trainers: same weights, prompts, seed.

Each side is a process of its own, for a BLAS is chosen when it starts and its memory is looked at when it ends. Peers
on MLX run twice: as they install, on the reference BLAS of MLX's Linux wheel, and with our OpenBLAS loaded before it;
ours loads it by itself. PyTorch brings its own. One thread each unless `--threads` says otherwise. Rollout includes the
rewards, which cost nothing here. Lengths are drawn, so the last column compares seconds for a completion token: of the
CPU, or on the wall where MLX has a GPU.

    python benchmarks/step.py [--model .models/smollm2] [--prompts 2] [--group 4] [--tokens 64] [--steps 2] [--full]
                              [--python trl=ENV/bin/python] [--side NAME] [--blas as-installed] [--trl-rows 128]

Peers are looked for in this environment, or in the one that `--python` names; one that is not there is listed so. All
sides: LoRA on every linear layer, temperature 1 and no other filter, no KL, one optimizer step on all completions of
the step, no gradient checkpointing. `--full` trains all weights instead, for ours and TRL. What could not be made equal
stands in `benchmarks/peers/`, with each peer.

TRL's backward passes are over all completions of a step, whose logits a GPU has no room for if they are many. With
`--trl-rows`, it generates them at once as before and accumulates passes over so many each; several times: a line each.
We and the MLX peers choose by ourselves. `random_model.py` makes a model to run this on where weights cannot be had.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import blas

ROOT = Path(__file__).parents[1]
OURS = "grpo"
INSTALLED, OPENBLAS = "as-installed", "openblas"
CLOCKS = ("wall", "CPU")


@dataclass(frozen=True)
class Side:
    """A trainer: its script, the package that must be there, and what `step.py` may ask of it."""

    script: str
    package: str
    takes_blas: bool = False
    """It computes with MLX on whatever BLAS."""
    takes_rows: bool = False
    """It is to be told the rows of its backward passes."""
    full: bool = True
    """It can be asked to train all weights."""


SIDES = {
    OURS: Side("run_ours.py", "pipelines"),
    "mlx-lm-lora": Side("run_mlx_lm_lora.py", "mlx_lm_lora", takes_blas=True, full=False),
    "textpolicy": Side("run_textpolicy.py", "textpolicy", takes_blas=True, full=False),
    "trl": Side("run_trl.py", "trl", takes_rows=True),
}


@dataclass(frozen=True)
class Found:
    """What one side measured, a median for each number of a step."""

    version: str
    seconds: dict[str, tuple[float, float]]
    """Wall and CPU, of `rollout`, `update` and `step`."""
    tokens: float
    resident: float
    device: float | None
    prompt_tokens: list[int]

    def rate(self, clock: str) -> float:
        """Completion tokens per second of a clock."""
        return self.tokens / self.seconds["step"][CLOCKS.index(clock)]


def measure(side: Side, python: str, asked: argparse.Namespace, way: dict[str, Any]) -> Found | None:
    """Run one side in one of its `ways`; None if it failed, its last words on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        task = {name: getattr(asked, name) for name in ("prompts", "group", "tokens", "rank", "seed", "dtype", "full")}
        task |= {"model": str(Path(asked.model).resolve()), "steps": asked.warm_up + asked.steps}
        task |= {"folder": folder, **way}
        command = [python, str(ROOT / "benchmarks" / "peers" / side.script), json.dumps(task), str(out)]
        ran = subprocess.run(command, env=environment(asked.threads), capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.stderr.write("\n".join(ran.stderr.splitlines()[-12:]) + "\n")
            return None
        return summary(json.loads(out.read_text()), asked.warm_up)


def environment(threads: int) -> dict[str, str]:
    """The environment here, with the threads of every BLAS there may be, and our packages to be found."""
    counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | counts | {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}


def summary(found: dict[str, Any], warm_up: int) -> Found:
    """Medians over the steps after the first ones."""
    steps = found["steps"][warm_up:]
    for step in steps:
        step["step"] = [sum(pair) for pair in zip(step["rollout"], step["update"], strict=True)]
    seconds = {
        part: (statistics.median(s[part][0] for s in steps), statistics.median(s[part][1] for s in steps))
        for part in ("rollout", "update", "step")
    }
    return Found(
        found["version"],
        seconds,
        statistics.median(step["tokens"] for step in steps),
        found["resident"] / 1e9,
        None if found["device"] is None else found["device"] / 1e9,
        found["prompt_tokens"],
    )


def clock() -> str:
    """The one whose seconds are compared: where MLX has a GPU, the CPU waits for most of them."""
    import mlx.core as mx

    return "wall" if mx.is_available(mx.gpu) else "CPU"


def installed(python: str, package: str) -> bool:
    """Whether an interpreter finds a package."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], env=environment(1), check=False).returncode == 0


def table(asked: argparse.Namespace, openblas: str | None) -> Iterator[str]:
    """The lines, each as soon as it is known; ours comes first, for the others are compared with it."""
    pythons = dict(pair.split("=", 1) for pair in asked.python)
    yield from headings(asked.clock)
    first: Found | None = None
    for name, side in SIDES.items():
        if name != OURS and asked.side and name not in asked.side:
            continue
        python = pythons.get(name, sys.executable)
        if missing := why_not(side, python, full=asked.full):
            yield f"{name:36}    {missing}"
            continue
        for way, task in ways(side, asked, openblas).items():
            found = measure(side, python, asked, task)
            label = f"{name} {found.version if found else ''}{way}"
            if found is None:
                yield f"{label:36}    failed"
                if name == OURS:
                    return  # nothing to compare the others with
                continue
            first = first or found
            yield line(label, found, first, asked.clock)
            if found.prompt_tokens != first.prompt_tokens:
                yield f"  its prompts have {found.prompt_tokens} tokens, those of {OURS} {first.prompt_tokens}"


def headings(clock: str) -> Iterator[str]:
    """Over seconds, tokens, memory (of the process, and what MLX or CUDA allocated), and a peer's seconds over ours."""
    parts = "".join(f"{part:>16}" for part in ("rollout", "update", "step"))
    yield f"{'':36}{parts}{'tokens':>8}{'tokens /':>9}{'peak GB':>16}{f'{clock} a':>9}"
    seconds = f"{'wall':>9}{'CPU':>7}" * 3
    yield f"{'seconds, wall and CPU':36}{seconds}{'':8}{f'{clock} s':>9}{'process':>9}{'device':>7}{'token':>9}"


def why_not(side: Side, python: str, *, full: bool) -> str | None:
    """Why a side is not run, if it is not."""
    if full and not side.full:
        return "not asked for all weights"
    return None if installed(python, side.package) else "not installed"


def ways(side: Side, asked: argparse.Namespace, openblas: str | None) -> dict[str, dict[str, Any]]:
    """How a side is run: the end of each line's label, and what its task says besides what all are told."""
    if side.takes_rows and asked.trl_rows:
        return {f", {rows} rows": {"trl_rows": rows} for rows in asked.trl_rows}
    if not side.takes_blas:
        return {"": {}}
    chosen = [way for way in (INSTALLED, OPENBLAS) if way in asked.blas and (way == INSTALLED or openblas is not None)]
    return {f", {way}": {"openblas": openblas if way == OPENBLAS else None} for way in chosen}


def line(label: str, found: Found, ours: Found, clock: str) -> str:
    """One row of the table."""
    parts = "".join(f"{wall:9.2f}{cpu:7.1f}" for wall, cpu in found.seconds.values())
    device = "-" if found.device is None else f"{found.device:.2f}"
    return (
        f"{label:36}{parts}{found.tokens:8.0f}{found.rate(clock):9.1f}"
        f"{found.resident:9.2f}{device:>7}{ours.rate(clock) / found.rate(clock):9.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".models/smollm2", help="a directory with weights and tokenizer")
    numbers = {"prompts": 2, "group": 4, "tokens": 64, "rank": 8, "seed": 0, "threads": 1, "steps": 2, "warm-up": 1}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--full", action="store_true", help="train all weights instead of adapters")
    parser.add_argument("--trl-rows", action="append", type=int, metavar="ROWS", help="in a backward pass of TRL")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a peer's interpreter")
    parser.add_argument("--side", action="append", default=[], choices=sorted(SIDES), help="only these, beside ours")
    parser.add_argument("--blas", action="append", choices=(INSTALLED, OPENBLAS), help="only so, peers on MLX")
    asked = parser.parse_args()
    if any(asked.prompts * asked.group % rows for rows in asked.trl_rows or []):
        parser.error("--trl-rows must divide the completions of a step")
    asked.blas = asked.blas or [INSTALLED, OPENBLAS]
    library = blas.preload()
    asked.clock = clock()
    openblas = None if library is None else str(Path(library).parents[2])
    trained = "all weights" if asked.full else f"LoRA rank {asked.rank}"
    what = f"{asked.prompts} prompts x {asked.group} completions x <= {asked.tokens} tokens, {trained}"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{what}, {asked.dtype}, threads {asked.threads}, median of {asked.steps} after {asked.warm_up}, {load}")
    for text in table(asked, openblas):
        print(text, flush=True)


if __name__ == "__main__":
    main()
