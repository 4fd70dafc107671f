"""Does it learn what another trainer learns? The built-in task beside TRL: same weights, rows, rewards and settings.

Both train the built-in model on two-digit arithmetic and are then scored as `grpo eval` does, greedily, on the same
unseen rows; the difference comes with its interval over the rows. Each side draws its own samples, so curves and scores
agree as two seeds of one trainer do. A wrong sign, denominator or scale of the advantage would part them.

    python benchmarks/learning.py [--updates 60] [--seed 0] [--seed 1] [--python ENV/bin/python]

TRL is looked for in this environment, or in the one that `--python` names. One thread each unless `--threads` says
otherwise; seconds are the CPU's, of training alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from learn_trl import right

from pipelines import evaluate, preprocess, train
from pipelines.bundled import bundled
from pipelines.config import ExperimentConfig
from pipelines.evaluate import Score
from pipelines.evaluation.statistics import paired_bootstrap
from pipelines.evaluation.targets import BASE, target
from pipelines.training.options import Options

POINTS = 6
"""Parts of a curve whose means are printed."""


@dataclass(frozen=True)
class Side:
    """What one trainer made of the task."""

    name: str
    rewards: list[float]
    seconds: float
    score: Score


def task(folder: Path, seed: int, updates: int) -> dict[str, Any]:
    """What both sides are asked to do."""
    return {
        "folder": str(folder),
        "saved": str(folder / "saved"),
        "model": str(bundled("tiny-model")),
        "rows": str(bundled("arithmetic") / "train.jsonl"),
        "unseen": str(bundled("arithmetic") / "val.jsonl"),
        "prompts": 64,
        "group": 4,
        "tokens": 64,
        "updates": updates,
        "learning_rate": 2e-4,
        "beta2": 0.99,
        "loss": "dapo",
        "epsilon_high": 0.28,
        "seed": seed,
    }


def configuration(asked: dict[str, Any]) -> ExperimentConfig:
    """The same in our words; what is not said is alike by default."""
    trainer = {
        "output_dir": f"{asked['folder']}/run",
        "num_training_steps": asked["updates"],
        "learning_rate": asked["learning_rate"],
        "optimizer_beta2": asked["beta2"],
        "ppo_batch_size": asked["prompts"],
        "num_rollout_samples": asked["group"],
        "loss": {"type": asked["loss"], "epsilon_high": asked["epsilon_high"]},
        "advantage": {"drop_zero_variance_groups": False},  # TRL counts their tokens in the denominator
        "seed": asked["seed"],
    }
    return ExperimentConfig.model_validate(
        {
            "trainer": trainer,
            "model": {"model_path": asked["model"]},
            "data": {"train_path": asked["rows"], "val_path": asked["unseen"], "max_gen_len": asked["tokens"]},
            "rewards": [{"name": "exact_match"}],
            "monitoring": {"log_samples_every": 1, "max_logged_samples": asked["prompts"] * asked["group"]},
            "paths": {"stages": f"{asked['folder']}/stages"},
        }
    )


def ours(config: ExperimentConfig) -> Side:
    """Train with `grpo train`; says how often its reward and the one that TRL is given differ."""
    preprocess.run(config)
    started = time.process_time()
    place = train.run(config, options=Options(quiet=True)).directory
    seconds = time.process_time() - started
    samples = [json.loads(line) for line in (place / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    differ = sum(each["reward"] != right(each["completion"], each["reference"]) for each in samples)
    print(f"the two sides' rewards differ on {differ} of {len(samples)} completions")
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Side("grpo", [line["reward"] for line in lines], seconds, scored(config))


def trl(config: ExperimentConfig, asked: dict[str, Any], python: str, threads: int) -> Side:
    """Train with TRL, in a process and perhaps an environment of its own."""
    out = Path(asked["folder"]) / "found.json"
    script = Path(__file__).parent / "peers" / "learn_trl.py"
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [python, str(script), json.dumps(asked), str(out)]
    environment = os.environ | counts | {"TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr[-2000:])
    found = json.loads(out.read_text())
    return Side(f"TRL {found['version']}", found["rewards"], found["seconds"], scored(config, asked["saved"]))


def scored(config: ExperimentConfig, model: str | None = None) -> Score:
    """On the validation rows."""
    return evaluate.run(config, target=target(config, model), benchmarks=["exact_match"])[0].score


def show(sides: list[Side], before: Score, seed: int) -> None:
    """Curves, scores and seconds, each side in a line, and how they differ."""
    print(f"seed {seed}: reward in {POINTS} parts of training, then greedy accuracy on {before.metrics['n']} rows")
    for side in sides:
        curve = "".join(f"{part.mean():8.3f}" for part in np.array_split(np.array(side.rewards), POINTS))
        accuracy = f"{100 * before.metrics['accuracy']:.1f} -> {100 * side.score.metrics['accuracy']:.1f} %"
        print(f"  {side.name:12}{curve}   {accuracy}   {side.seconds:6.1f} CPU s")
    answers = [side.score.by_item() for side in sides]
    found = paired_bootstrap(*([item[key] for key in sorted(answers[0])] for item in reversed(answers)))
    interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    ratio = sides[1].seconds / sides[0].seconds
    print(
        f"  grpo - TRL: {100 * found.difference:+.1f} points (95 %: {interval}); TRL takes {ratio:.2f} x the CPU's time"
    )


def main() -> None:
    """Print both sides for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60, help=f"{POINTS} or more")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has TRL")
    given = parser.parse_args()
    gained: list[float] = []
    for seed in given.seed or [0]:
        with tempfile.TemporaryDirectory() as folder:
            asked = task(Path(folder), seed, given.updates)
            config = configuration(asked)
            sides = [ours(config), trl(config, asked, given.python, given.threads)]
            show(sides, scored(config, BASE), seed)
        gained.append(sides[0].score.metrics["accuracy"] - sides[1].score.metrics["accuracy"])
    print(f"over {len(gained)} seeds: grpo - TRL {100 * fmean(gained):+.1f} points")


if __name__ == "__main__":
    main()
