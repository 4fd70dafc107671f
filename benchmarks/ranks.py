"""Several processes against one: seconds of a step with the same prompts, over the ring on this machine.

One process takes as many BLAS threads as it finds to be fastest; of several each takes one. They are started here and
not by `mlx.launch`, which keeps about a core busy with its own waiting.

    python benchmarks/ranks.py --model DIR [--ranks 2] [--steps 4] [--prompts 8] [--completions 8] [--tokens 40]
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

GRPO = [sys.executable, "-c", "from grpo_cli.app import main; main()", "train", "--quiet"]
PARTS = ("time/rollout_seconds", "time/update_seconds", "time/step_seconds")


def settings(options: argparse.Namespace) -> list[str]:
    """A run with LoRA and a reward that no group is equal in."""
    chosen = {
        "model.model_path": Path(options.model).resolve(),
        "model.use_lora": "true",
        "trainer.num_training_steps": options.steps + 1,
        "trainer.ppo_batch_size": options.prompts,
        "trainer.num_rollout_samples": options.completions,
        "trainer.lr_schedule_config": "null",
        "data.max_gen_len": options.tokens,
        "rewards": "[{name: length_penalty, config: {target_length: 4, max_length: 400}}]",
    }
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def timed(place: Path, ranks: int, words: Sequence[str]) -> dict[str, float]:
    """The median of each part over the steps after the first."""
    environments = [dict(os.environ)]
    if ranks > 1:
        (place / "ring.json").write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(ranks)]))
        ring = os.environ | {"MLX_HOSTFILE": str(place / "ring.json"), "OPENBLAS_NUM_THREADS": "1"}
        environments = [ring | {"MLX_RANK": str(rank)} for rank in range(ranks)]
    call = [*GRPO, "--set", f"trainer.output_dir=ranks-{ranks}", *words]
    started = [subprocess.Popen(call, cwd=place, env=each, stdout=subprocess.DEVNULL) for each in environments]
    if any(process.wait() for process in started):
        sys.exit("error: a run failed; its message stands above")
    lines = (place / f"ranks-{ranks}" / "metrics.jsonl").read_text().splitlines()[1:]
    return {part: statistics.median(json.loads(line)[part] for line in lines) for part in PARTS}


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description="Several processes against one.")
    parser.add_argument("--model", required=True, help="a model directory")
    for name, value in {"ranks": 2, "steps": 4, "prompts": 8, "completions": 8, "tokens": 40}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = {ranks: timed(Path(place), ranks, settings(options)) for ranks in (1, options.ranks)}
    rows = f"{options.prompts} prompts x {options.completions} completions of up to {options.tokens} tokens"
    sys.stdout.write(f"{rows}, load {os.getloadavg()[0]:.1f}\nseconds    1 process  {options.ranks} ranks  ratio\n")
    for part in PARTS:
        one, several = (found[ranks][part] for ranks in (1, options.ranks))
        name = part.removeprefix("time/").removesuffix("_seconds")
        sys.stdout.write(f"{name:<9}{one:>11.2f}{several:>9.2f}{one / several:>7.2f}\n")


if __name__ == "__main__":
    main()
