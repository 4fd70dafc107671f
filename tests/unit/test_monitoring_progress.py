"""What a person sees: one plain line, or a live view that keeps stdout clean."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from pipelines.monitoring.progress import LiveView, Moment, Pace, clock_text, plain_line, sample_line

VALUES = {
    "reward": 0.6123,
    "rewards/exact_match/mean": 0.58,
    "rewards/exact_match/std": 0.4,
    "completions/mean_length": 23.14,
    "completions/clipped_ratio": 0.004,
    "kl": 0.00123,
    "entropy": 0.5,
    "loss": -0.01,
    "grad_norm": 0.412,
    "learning_rate": 3e-4,
    "rollout/tokens_per_second": 3210.4,
    "memory/peak_gb": 1.25,
}


def moment(step=12, **values):
    return Moment(step, 100, VALUES | values, 1.12, 98.3)


def test_plain_line():
    assert plain_line(moment()) == (
        "step 12/100  reward 0.612  exact_match 0.58  len 23.1  trunc 0%  "
        "kl 0.0012  grad 0.41  lr 3.0e-4  1.1 s  ETA 1:38"
    )


def test_plain_line_of_supervised_training_shows_the_loss():
    line = plain_line(Moment(1, 9, {"loss": 1.25, "learning_rate": 1e-5}, 0.5, 4.0))
    assert line == "step 1/9  loss 1.25  lr 1.0e-5  0.5 s  ETA 0:04"


def test_values_that_are_not_finite_are_shown():
    assert "grad nan" in plain_line(moment(grad_norm=float("nan")))


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (98.3, "1:38"), (59.6, "1:00"), (7500, "2:05:00")])
def test_clock(seconds, text):
    assert clock_text(seconds) == text


def test_pace_is_that_of_the_last_updates():
    now = [0.0]
    pace = Pace(100, clock=lambda: now[0])
    for step in range(101, 141):
        now[0] += 9.0 if step == 101 else 2.0  # the first compiles
        latest = pace.after(step)
    assert latest == 2.0
    assert pace.after(140) == 2.0  # twice at one step: nothing to divide by


def test_pace_counts_updates_not_calls():
    now = [0.0]
    pace = Pace(0, clock=lambda: now[0])
    now[0] = 30.0
    assert pace.after(10) == 3.0


def test_sample_line_is_short_printable_and_single():
    line = sample_line(
        {"prompt": "x" * 80 + "What is 3+4?", "completion": "<think>\n\x1b[31m3+4\u202e</think> [7]" + "y" * 300}
    )
    assert "What is 3+4? -> <think> [31m3+4 </think> [7]yyy" in line
    assert line.startswith("...")
    assert line.isprintable()
    assert len(line) < 240


def test_sample_line_of_long_thinking_still_has_the_answer():
    line = sample_line({"prompt": "3+4?", "completion": "<think>" + "so " * 500 + "</think>\n7"})
    assert line.startswith("3+4? -> <think>so so")
    assert line.endswith("so </think> 7")
    assert len(line) < 200


def test_sample_line_without_texts_is_empty():
    assert sample_line({"prompt": None, "reward": 1.0}) == ""


def screen(*moments, sample=None, stopping="", width=100):
    stream = io.StringIO()
    view = LiveView(Console(file=stream, force_terminal=True, width=width, color_system=None))
    if sample:
        view.sample(sample)
    for each in moments:
        view.show(each)
    view.stopping = stopping
    view.close()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_live_view_shows_the_run():
    shown = screen(moment(), sample={"prompt": "2+2?", "completion": "[bold]4"})
    for words in (
        "step 12/100",
        "ETA 1:38",
        "reward 0.612   exact_match 0.58",
        "entropy 0.5",
        "trunc 0%",
        "rollout 3,210 tokens/s",
        "memory 1.2 GB",
        "sample  2+2? -> [bold]4",
    ):
        assert words in shown


@pytest.mark.parametrize("width", [40, 80, 160])
def test_live_view_has_the_rewards_below_its_bar(width):
    shown = screen(moment(), width=width).replace("\r", "").splitlines()
    assert "reward 0.612   exact_match 0.58" in shown


def test_live_view_shows_little_memory_in_megabytes():
    assert "memory 97 MB" in screen(moment(**{"memory/peak_gb": 0.0973}))


def test_live_view_keeps_the_last_score_of_a_benchmark():
    shown = screen(moment(10, **{"eval/gsm8k/accuracy": 0.5}), moment(11), moment(12)).rpartition("step 12/100")[2]
    assert "eval gsm8k 50.0% after update 10" in shown


@pytest.mark.parametrize("moments", [[], [moment()]])
def test_live_view_says_that_a_request_to_stop_was_heard(moments):
    assert "stopping after this update" in screen(*moments, stopping="stopping after this update, with a checkpoint")


def test_live_view_before_the_first_update():
    assert "first update ..." in screen()


RUN = """
import sys
from pathlib import Path
from pipelines.config import MonitoringConfig
from pipelines.monitoring.sinks import RunLog

with RunLog(Path(sys.argv[1]), MonitoringConfig(log_every=2), total_steps=4) as log:
    print("data")
    log.note("a note")
    for step in range(1, 5):
        log.metrics(step, {"reward": step / 4})
print(*(name for name in ("rich", "mlx", "numpy") if name in sys.modules))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_the_view_is_live_and_stdout_stays_data(tmp_path):
    master, slave = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, stderr=slave, env=environment, check=True
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert run.stdout == b"data\nrich\n"
    assert "a note" in shown
    assert "step 4/4" in shown
    assert "\x1b[" in shown  # the cursor moves
    assert "step 2/4" in (tmp_path / "train.log").read_text()


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from pipelines.config import MonitoringConfig
from pipelines.monitoring.sinks import RunLog
from pipelines.training.interrupt import stop_on_interrupt

config = MonitoringConfig(log_samples_every=1, log_prompts=False)
with RunLog(Path(sys.argv[1]), config, total_steps=4) as log, stop_on_interrupt(log.stopping) as stop:
    log.samples(1, [{"prompt": "secret", "completion": "secret"}])
    log.metrics(1, {"reward": 0.5})
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked
    log.metrics(2, {"reward": 0.5})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_ctrl_c_is_answered_inside_the_view(tmp_path):
    """Written beside it, the answer would be painted over at once."""
    master, slave = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", STOPPED, str(tmp_path)], stderr=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    frame = shown.rpartition("step 2/4")[2]
    assert "stopping after this update, with a checkpoint; Ctrl-C again ends at once, without one" in frame
    assert "\nstopping" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", frame)
    assert "redacted" not in shown


def test_without_a_terminal_plain_lines_and_nothing_heavy_is_imported(tmp_path):
    run = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout == "data\n\n"
    assert re.sub(r"\d\.\d s", "T s", run.stderr) == (
        "a note\nstep 2/4  reward 0.500  T s  ETA 0:00\nstep 4/4  reward 1.000  T s  ETA 0:00\n"
    )
