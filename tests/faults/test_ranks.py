"""Several ranks train one model: they do what one would do, and go on after a kill or Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from pipelines.models.save import load_weights

pytestmark = pytest.mark.slow

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
GRPO = [sys.executable, "-c", "from grpo_cli.app import main; main()", "train", "-q"]
ALIKE = 1e-4
"""Relative: sums of float32 numbers in another order."""
NOISE = ("mismatch_kl", "policy_loss", "loss", "critic/vf_explained_var")
"""Near 0 on-policy, or a ratio of what is near 0: compared absolutely."""

BASE = {
    "trainer": {"num_training_steps": 2, "ppo_batch_size": 6, "num_rollout_samples": 4, "learning_rate": 1e-3},
    "data": {"train_path": "rows.jsonl", "max_gen_len": 24},
    "rewards": [{"name": "format_structure"}],
    "monitoring": {"log_samples_every": 1},
}
SETTINGS = {
    "kl and refill": {"trainer": {"grpo_beta": 0.05, "num_iterations": 2, "advantage": {"refill": 1}}},
    "dual and sft": {
        "trainer": {
            "use_dual_gradients": True,
            "thinking_layer_end": 1,
            "answer_layer_start": 1,
            "use_sft_on_answer": True,
            "eval_every": 1,
        },
        "data": {"val_fraction": 0.1},
        "evaluation": [{"name": "exact_match", "config": {"limit": 4}}],
    },
    "ppo": {"trainer": {"algorithm": "ppo", "num_rollout_samples": 1, "ppo_batch_size": 2}},
}


def merged(*trees):
    tree = {}
    for part in trees:
        for section, values in part.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return tree


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:40]))
    return tmp_path


def configure(folder, *parts):
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(BASE, *parts)))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def launch(folder, ranks, *arguments):
    """What `mlx.launch` does for the ring back end, without swallowing exit codes."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(ranks)]))
    environment = os.environ | {"MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*GRPO, *arguments],
            cwd=folder,
            env=environment | {"MLX_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def ended(processes, seconds=120):
    """(exit code, stdout, stderr) of each."""
    try:
        return [(each.returncode, *texts) for each in processes for texts in [each.communicate(timeout=seconds)]]
    finally:
        for each in processes:
            each.kill()
            each.communicate()


def alone(folder, *arguments):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(
        [*GRPO, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr


def lines(folder, run, name):
    return [json.loads(line) for line in (folder / run / name).read_text().splitlines()]


def assert_alike(folder, one, several, step):
    """The same metrics but for rounding, the same samples, the same weights."""
    for first, second in zip(lines(folder, one, "metrics.jsonl"), lines(folder, several, "metrics.jsonl"), strict=True):
        assert first.keys() == second.keys()
        for name in first:
            if name.startswith(("time", "memory")) or "second" in name:
                continue
            rel, near = (0.05, 2e-5) if name in NOISE else (ALIKE, 1e-6)
            assert second[name] == pytest.approx(first[name], rel=rel, abs=near), name
    samples = [lines(folder, run, "samples.jsonl") for run in (one, several)]
    assert [sample["completion"] for sample in samples[0]] == [sample["completion"] for sample in samples[1]]
    assert np.allclose(*([sample["advantage"] for sample in run] for run in samples), atol=1e-6)
    weights = [load_weights(folder / run / f"checkpoints/step_{step:06d}/model.safetensors") for run in (one, several)]
    begun = load_weights(ROWS.parents[1] / "tiny-model" / "model.safetensors")
    assert farthest(*weights) < 0.02 * farthest(weights[0], begun)


def farthest(first, second):
    return max(float(mx.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.parametrize(("name", "ranks"), [("kl and refill", 2), ("dual and sft", 2), ("ppo", 3)])
def test_several_ranks_make_the_updates_of_one(folder, name, ranks):
    configure(folder, SETTINGS[name])
    alone(folder, "-s", "trainer.output_dir=one")
    found = ended(launch(folder, ranks, "-s", "trainer.output_dir=several"))
    assert [code for code, _, _ in found] == [0] * ranks, found
    assert [out for _, out, _ in found[1:]] == [""] * (ranks - 1)  # rank 0 says what there is to say
    assert_alike(folder, "one", "several", BASE["trainer"]["num_training_steps"])


def test_a_finished_run_ends_all_ranks_at_once(folder):
    configure(folder)
    alone(folder, "-s", "trainer.output_dir=run")
    before = (folder / "run/manifest.json").read_bytes()
    found = ended(launch(folder, 2, "-s", "trainer.output_dir=run"))
    assert [code for code, _, _ in found] == [0, 0]
    assert "cached" in found[0][1]
    assert (folder / "run/manifest.json").read_bytes() == before


def begun(folder, processes, run="run"):
    """Return when a checkpoint is there."""
    deadline = time.monotonic() + 90
    while not list((folder / run / "checkpoints").glob("step_*/manifest.json")):
        assert time.monotonic() < deadline
        assert all(each.poll() is None for each in processes), ended(processes)
        time.sleep(0.05)


def test_a_lost_rank_ends_the_others_and_the_run_goes_on(folder):
    configure(folder, {"trainer": {"num_training_steps": 400}, "checkpointing": {"save_every": 1}})
    processes = launch(folder, 2, "-s", "trainer.output_dir=run")
    begun(folder, processes)
    os.kill(processes[1].pid, signal.SIGKILL)
    found = ended(processes)
    assert found[0][0] == 1
    assert "error: the other ranks of this run cannot be reached any more" in found[0][2]
    steps = len(lines(folder, "run", "metrics.jsonl")) + 1
    configure(folder, {"trainer": {"num_training_steps": steps}, "checkpointing": {"save_every": 1}})
    found = ended(launch(folder, 2, "-s", "trainer.output_dir=run"))
    assert [code for code, _, _ in found] == [0, 0], found
    assert [line["step"] for line in lines(folder, "run", "metrics.jsonl")] == list(range(1, steps + 1))


def test_ctrl_c_saves_a_checkpoint_and_ends_all_ranks(folder):
    configure(folder, {"trainer": {"num_training_steps": 400}, "checkpointing": {"save_every": 1}})
    processes = launch(folder, 2, "-s", "trainer.output_dir=run")
    begun(folder, processes)
    for each in processes:
        os.kill(each.pid, signal.SIGINT)
    found = ended(processes)
    assert [code for code, _, _ in found] == [130, 0], found
    done = len(lines(folder, "run", "metrics.jsonl"))
    assert (folder / f"run/checkpoints/step_{done:06d}/manifest.json").is_file()


def test_an_error_is_told_once(folder):
    configure(folder, {"trainer": {"learning_rat": 1}})
    first, second = launch(folder, 2)
    code, _, said = ended([first])[0]
    assert code == 2
    assert "trainer.learning_rat" in said
    assert "learning_rat" not in ended([second])[0][2]


def test_through_the_launcher_of_mlx(folder):
    configure(folder, SETTINGS["kl and refill"])
    launcher = Path(sys.executable).with_name("mlx.launch")
    words = [str(launcher), "-n", "2", "--backend", "ring", "--starting-port", str(free_ports(1)[0])]
    found = subprocess.run([*words, "--", *GRPO], cwd=folder, capture_output=True, text=True, timeout=120)
    assert (folder / "outputs/run/manifest.json").is_file(), found.stderr
