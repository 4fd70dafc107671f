"""Runs that are killed, interrupted or raced: what is left goes on to the bit, and nobody works twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
GRPO = [sys.executable, "-c", "from grpo_cli.app import main; main()"]
STEPS = 5
PLUGIN = """
from pipelines.rewards import BaseReward, RewardRegistry

@RewardRegistry.register("letters")
class Letters(BaseReward):
    def compute(self, context):  # different texts differ
        return sum(i * ord(letter) for i, letter in enumerate(context.generated_text)) % 97 / 97
"""
KILLED = """
import os, signal, sys
from pipelines.monitoring.sinks import RunLog

write = RunLog.metrics

def metrics(self, step, values):
    write(self, step, values)
    if step == int(sys.argv[1]):
        self.flush()
        os.kill(os.getpid(), signal.SIGKILL)

RunLog.metrics = metrics
from grpo_cli.app import main
main(sys.argv[2:])
"""
"""`grpo`, killed right after an update's line is on the disk."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("faults")
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:40]))
    (place / "plugin.py").write_text(PLUGIN)
    settings = {
        "trainer": {"num_training_steps": STEPS, "ppo_batch_size": 4, "num_rollout_samples": 4, "grpo_beta": 0.05},
        "data": {"train_path": "rows.jsonl", "max_gen_len": 24},
        "rewards": [{"name": "letters"}],
        "plugins": ["plugin.py"],
        "checkpointing": {"save_every": 2, "keep_last_n": 9},
        "monitoring": {"log_samples_every": 1},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    return place


def words(name, *more):
    return ["train", "-s", f"trainer.output_dir={name}", *more]


def grpo(folder, *arguments, script=GRPO):
    return subprocess.run([*script, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)


def start(folder, *arguments):
    return subprocess.Popen([*GRPO, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.01)


def records(path):
    """Lines without what a clock or the memory says."""
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(("time", "memory")) and "per_second" not in k}
        for line in path.read_text().splitlines()
    ]


def assert_same_run(found, expected, weights):
    step = f"checkpoints/step_{STEPS:06d}"
    for name in (weights, "optimizer.safetensors", "state.json"):
        assert (found / step / name).read_bytes() == (expected / step / name).read_bytes(), name
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert records(found / name) == records(expected / name), name
    assert [record["step"] for record in records(found / "metrics.jsonl")] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("kind", "weights", "options"),
    [("full", "model.safetensors", ()), ("lora", "adapters.safetensors", ("-s", "model.use_lora=true"))],
)
def test_a_killed_run_goes_on_to_the_bit(folder, kind, weights, options):
    whole, killed = f"{kind}-whole", f"{kind}-killed"
    assert grpo(folder, *words(whole, *options)).returncode == 0
    death = grpo(folder, *words(killed, *options), script=[sys.executable, "-c", KILLED, "3"])
    assert death.returncode == -signal.SIGKILL, death.stderr
    assert len(records(folder / killed / "metrics.jsonl")) == 3  # one more than the checkpoint knows of
    assert not (folder / killed / "manifest.json").exists()
    rest = grpo(folder, *words(killed, *options))
    assert rest.returncode == 0, rest.stderr
    assert "resumed from step 2 (" in rest.stderr
    assert_same_run(folder / killed, folder / whole, weights)


def test_ctrl_c_saves_and_ends_and_the_next_call_goes_on(folder):
    long = ("-s", "trainer.num_training_steps=100000")
    process = start(folder, *words("interrupted", *long))
    lines = folder / "interrupted" / "metrics.jsonl"
    wait_for(lambda: lines.exists() and lines.read_text().count("\n") >= 3, "the third update")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, ""), errors
    done = len(records(lines))
    *_, error, hint = errors.splitlines()
    assert "\nstopping after this update, with a checkpoint; Ctrl-C again ends at once" in errors
    assert error.startswith(f"error: interrupted after step {done};")
    assert hint.startswith("hint: the same command goes on")
    assert "Traceback" not in errors
    assert (folder / "interrupted" / "checkpoints" / f"step_{done:06d}" / "manifest.json").is_file()
    more = grpo(folder, *words("interrupted", *long, "--max-time", "0.001"))
    assert more.returncode == 0, more.stderr
    assert f"resumed from step {done} (" in more.stderr
    assert more.stdout.startswith("train  partial")


STUBBORN = """
import os, signal, sys, time
from pipelines.training.update import Updater

def update(self, sequences, references):
    print("updating", flush=True)
    time.sleep(60)

Updater.update = update
from grpo_cli.app import main
main(sys.argv[1:])
"""


def test_the_second_ctrl_c_ends_at_once(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, *words("stubborn")],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "updating\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None  # the update in hand is finished first
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert not (folder / "stubborn" / "checkpoints").exists()


def test_of_two_processes_one_trains_and_the_other_finds_it_done(folder):
    racers = [start(folder, *words("raced")) for _ in range(2)]
    ended = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], ended
    (winner, told), (loser, waited) = sorted(ended, key=lambda end: end[0].startswith("train  cached"))
    assert winner.startswith("train  ran")
    assert loser.startswith("train  cached")
    assert f"step {STEPS}/{STEPS}" in told
    assert "warning: train: waiting for process" in waited
    assert "step 1/" not in waited
    assert [record["step"] for record in records(folder / "raced" / "metrics.jsonl")] == list(range(1, STEPS + 1))
