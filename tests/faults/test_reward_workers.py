"""Reward workers: the same scores from any number of them, whatever hangs, dies, or is orphaned."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

from pipelines.config import RewardConfig
from pipelines.errors import RewardError
from pipelines.plugins import load_plugins
from pipelines.rewards import BaseReward, RewardContext, RewardRegistry
from pipelines.rewards.workers import SMALL_ITEMS, ParallelComposer, default_workers

PLUGIN = """
import os, re, signal, subprocess, sys, time
from pathlib import Path
from pipelines.rewards import BaseReward, RewardRegistry

if os.environ.get("END_AT_IMPORT"):
    os._exit(7)

@RewardRegistry.register("told")
class Told(BaseReward):
    '''Does what the text says.'''
    time_limit_seconds = float(os.environ.get("LIMIT", "1.0"))

    def compute(self, context):
        word = context.generated_text
        if word == "loop":
            while True:
                pass
        if word == "regex":
            re.match("(a+)+$", "a" * 60 + "b")  # holds the interpreter for years
        if word == "sleep":
            time.sleep(60)
        if word == "family":
            Path("child").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
            time.sleep(60)
        if word == "exit":
            sys.exit(3)
        if word == "end":
            os._exit(3)
        if word == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "error":
            raise ValueError("told to")
        if word == "print":
            print("printed by a reward")
        if word == "abstain":
            return None
        return {"reward": len(word), "pid": os.getpid(), "mlx": "mlx" in sys.modules, "set": {word}}
"""
SCRIPT = """
import signal, sys
from contextlib import closing
from pipelines.config import RewardConfig
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardContext
from pipelines.rewards.workers import ParallelComposer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
load_plugins(["told.py"])
with closing(ParallelComposer([RewardConfig(name="told")], ["told.py"], workers=2)) as composer:
    scores = composer.score([RewardContext(generated_text="x")] * 64)
    print(*{said["told"]["pid"] for said in scores.details}, flush=True)
    try:
        composer.score([RewardContext(generated_text=word) for word in sys.argv[1:]])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    """The plugin in the working directory, loaded; what it registers is forgotten after the test."""
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "told.py").write_text(PLUGIN)
    load_plugins(["told.py"])


def composer(*names, workers=2, **options):
    entries = [RewardConfig(name=name) for name in names or ["told"]]
    return closing(ParallelComposer(entries, ["told.py"], workers=workers, max_failure_fraction=1.0, **options))


def texts(*words):
    return [RewardContext(generated_text=word, reference_answer="42") for word in words]


def told(scores):
    return [row["told"] for row in scores.details if "told" in row]


MIXED = ["42", "error", "", "<think>a</think>42", "exit", "abstain", "\U0001f600 \ud800 \x00", "print"] * 40


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(workers):
    names = ("told", "exact_match", "semantic_similarity", "thinking_quality", "told")
    found = []
    for count in (0, workers):
        with composer(*names, workers=count) as parallel:
            found.append(parallel.score(texts(*MIXED)))
    here, there = found
    np.testing.assert_array_equal(there.values, here.values)
    np.testing.assert_array_equal(there.totals, here.totals)
    assert (there.names, there.failures) == (here.names, here.failures)
    assert len(here.failures) == 4 * 40
    for scores in found:
        for said in (*told(scores), *(row["told_2"] for row in scores.details if "told_2" in row)):
            del said["pid"], said["mlx"]
    assert there.details == here.details
    assert told(here)[0] == {"set": ["42"]}
    assert set(there.seconds) == set(here.seconds) == set(here.names)


@pytest.mark.parametrize("word", ["loop", "regex", "sleep"])
def test_a_hung_reward_is_killed_by_the_clock(word):
    with composer() as parallel:
        parallel.score(texts(*"ab" * 8))
        start = time.perf_counter()
        scores = parallel.score(texts(*"abcde", word, *"fgh"))
        assert 1.0 < time.perf_counter() - start < 5.0
        assert [(each.row, each.error) for each in scores.failures] == [(5, "TimeoutError: no result after 1 seconds")]
        assert scores.totals.tolist()[:5] == [1.0] * 5
        assert np.isnan(scores.totals[5])
        assert parallel.score(texts("again")).totals.tolist() == [5.0]


def test_what_a_hung_reward_started_goes_with_it(tmp_path):
    with composer(workers=1) as parallel:
        assert len(parallel.score(texts("family", "x")).failures) == 1
        assert not alive(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize(("word", "reason"), [("end", "status 3"), ("signal", "signal SIGSEGV")])
def test_a_worker_that_dies_is_one_failure(word, reason):
    with composer("exact_match", "told") as parallel:
        scores = parallel.score(texts("42", word, "42", word))
        assert [(each.row, each.name, each.error) for each in scores.failures] == [
            (row, "told", f"its process ended: {reason}") for row in (1, 3)
        ]
        assert scores.values[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
        assert parallel.score(texts("again")).failures == ()


def test_several_deaths_in_one_chunk():
    words = ["x"] * 64
    words[1] = words[3] = "end"
    with composer(workers=1) as parallel:
        scores = parallel.score(texts(*words))
    assert [each.row for each in scores.failures] == [1, 3]
    assert np.nansum(scores.totals) == 62


def test_above_the_limit_the_run_ends_without_waiting_for_the_others():
    strict = ParallelComposer([RewardConfig(name="told")], ["told.py"], workers=1)
    told = r"reward 'told' failed: its process ended: status 3 .*; 1 of 21 completions failed"
    with closing(strict), pytest.raises(RewardError, match=told):
        strict.score(texts(*["end"] * 21))


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setenv("END_AT_IMPORT", "1")
    with composer() as parallel, pytest.raises(RewardError, match="end outside of any reward: status 7"):
        parallel.score(texts("x"))


def test_workers_run_elsewhere_without_mlx():
    with composer() as parallel:
        said = told(parallel.score(texts(*["x"] * 64)))
    assert os.getpid() not in {each["pid"] for each in said}
    assert not any(each["mlx"] for each in said)


def test_a_plugin_that_is_edited_while_a_run_goes_on_changes_no_score(tmp_path):
    with composer(workers=1) as parallel:
        (tmp_path / "told.py").write_text(PLUGIN.replace("len(word)", "7"))
        assert parallel.score(texts("end", "xx")).totals[1] == 2
        (tmp_path / "told.py").unlink()
        assert parallel.score(texts("end", "xx")).totals[1] == 2


def test_a_reward_without_a_file_runs_here():
    @RewardRegistry.register("homeless")
    class Homeless(BaseReward):
        def compute(self, context):
            return os.getpid()

    with composer("homeless", "told") as parallel:
        scores = parallel.score(texts("x", "yy"))
    assert scores.values[:, 0].tolist() == [np.float32(os.getpid())] * 2
    assert os.getpid() not in {each["pid"] for each in told(scores)}


def test_a_small_batch_of_quick_rewards_starts_no_process():
    with composer("exact_match") as parallel:
        assert parallel.score(texts("42", "17")).totals.tolist() == [1.0, 0.0]
        assert parallel.pool.workers == []
        parallel.score(texts(*["42"] * (SMALL_ITEMS + 1)))
        assert len(parallel.pool.workers) == 2


def test_an_empty_batch():
    with composer() as parallel:
        assert parallel.score([]).values.shape == (0, 1)


def test_scoring_in_the_background_and_closing_in_the_middle():
    with composer() as parallel:
        parallel.score(texts("x"))
        pids = [worker._process.pid for worker in parallel.pool.workers]
        start = time.perf_counter()
        first, second = parallel.submit(texts("sleep", "x")), parallel.submit(texts("yy"))
        assert not first.done()
        assert time.perf_counter() - start < 0.5
        assert second.result().totals.tolist() == [2.0]
        assert len(first.result().failures) == 1
        hanging = parallel.submit(texts("loop"))
        time.sleep(0.2)
    with pytest.raises(RewardError, match="closed while a batch was being scored"):
        hanging.result()
    assert not any(map(alive, pids))


def test_the_default_leaves_a_core():
    assert 1 <= default_workers() <= max(1, (os.cpu_count() or 1) - 1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not stat.stdout.strip().startswith("Z") and bool(stat.stdout.strip())


@pytest.fixture
def trainer(tmp_path):
    """A program of its own that scores these words, and the process ids of its workers."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *words],
            cwd=tmp_path,
            env={**os.environ, "LIMIT": "60"},  # no reward times out before its trainer is stopped
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("word", ["loop", "regex", "sleep"])
def test_workers_end_with_a_killed_trainer(trainer, word):
    process, pids = trainer(word, word)
    assert pids
    assert all(map(alive, pids))
    time.sleep(0.2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_control_c_is_not_answered_by_workers(trainer):
    process, pids = trainer("sleep")
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "interrupted\n", "")
    assert not any(map(alive, pids))


def test_what_a_reward_prints_is_no_data(trainer):
    process, _ = trainer("print")
    assert process.communicate(timeout=20) == ("", "printed by a reward\n")
