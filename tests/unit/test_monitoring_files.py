"""The written record: strict lines, nothing twice after a resume, no loss in silence, no text where none is wanted."""

import json
import math
import os
import sys
import time

import numpy as np
import pytest

from pipelines.config import MonitoringConfig
from pipelines.errors import TrainingError
from pipelines.monitoring import jsonl
from pipelines.monitoring.sinks import RunLog, Unwritten
from pipelines.monitoring.writer import Writer

SAMPLE = {
    "prompt": "What is 2+2?",
    "completion": "<think>2+2</think>4",
    "thinking": "2+2",
    "answer": "4",
    "tokens": [5, 6, 7],
    "finish_reason": "stop",
    "length": 9,
    "truncated": False,
    "reward": np.float32(0.5),
    "advantage": None,
    "rewards": {"exact_match": 1.0, "format_structure": None},
    "details": {"format_structure": {"seen": "2+2"}},
}


def open_log(directory, *, resume_step=None, quiet=True, **settings):
    return RunLog(directory, MonitoringConfig(**settings), total_steps=10, quiet=quiet, resume_step=resume_step)


def lines(path):
    def refuse(word):
        raise AssertionError(f"{word} is not strict JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_bytes().decode().split("\n")[:-1]]


def test_metrics_are_strict_json_with_step_and_time(tmp_path):
    before = time.time()
    with open_log(tmp_path) as run_log:
        run_log.metrics(1, {"reward": math.nan, "loss": -math.inf, "kl": np.float32(0.5), "num_tokens": 3})
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert before - 1 <= line.pop("time") <= time.time() + 1
    assert line == {"step": 1, "reward": None, "loss": None, "kl": 0.5, "num_tokens": 3}


def test_unknown_metric_is_refused_and_not_written(tmp_path):
    with open_log(tmp_path) as run_log, pytest.raises(TrainingError, match="'rewrad'"):
        run_log.metrics(1, {"rewrad": 1.0})
    assert lines(tmp_path / "metrics.jsonl") == []


def test_signs_of_dead_learning_are_warned_of_once(tmp_path, capsys):
    with open_log(tmp_path) as run_log:
        for step in range(1, 9):
            run_log.metrics(step, {"completions/clipped_ratio": 0.5})
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: step 5: 50% of the completions")
    assert warning in (tmp_path / "train.log").read_text()


def test_progress_lines_follow_log_every_and_the_last_update_has_one(tmp_path, capsys):
    with open_log(tmp_path, quiet=False, log_every=4) as run_log:
        for step in range(1, 11):
            run_log.metrics(step, {"reward": 0.1 * step})
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in shown] == ["step 4/10", "step 8/10", "step 10/10"]
    assert all(line in (tmp_path / "train.log").read_text() for line in shown)


def test_quiet_silences_all_but_warnings(tmp_path, capsys):
    with open_log(tmp_path) as run_log:
        run_log.metrics(10, {"reward": 1.0})
        run_log.note("a note")
        run_log.warn("a warning")
    assert capsys.readouterr().err == "warning: a warning\n"
    written = (tmp_path / "train.log").read_text()
    assert "step 10/10" in written
    assert "  a note\n" in written


def test_samples_by_cadence_and_number(tmp_path):
    with open_log(tmp_path, log_samples_every=2, max_logged_samples=3) as run_log:
        assert [step for step in range(1, 5) if run_log.wants_samples(step)] == [2, 4]
        for step in range(1, 5):
            run_log.samples(step, [{"reward": row} for row in range(8)])
    assert [(line["step"], line["reward"]) for line in lines(tmp_path / "samples.jsonl")] == [
        (step, row) for step in (2, 4) for row in range(3)
    ]


@pytest.mark.parametrize("settings", [{"log_samples_every": 0}, {"log_samples_every": 1, "max_logged_samples": 0}])
def test_samples_can_be_switched_off(tmp_path, settings):
    with open_log(tmp_path, **settings) as run_log:
        assert not run_log.wants_samples(10)
        run_log.samples(10, [SAMPLE])
    assert lines(tmp_path / "samples.jsonl") == []


def test_samples_are_written_as_they_are(tmp_path):
    with open_log(tmp_path, log_samples_every=1) as run_log:
        run_log.samples(1, [SAMPLE])
    assert lines(tmp_path / "samples.jsonl") == [{"step": 1} | SAMPLE]


def test_without_log_prompts_only_numbers_stay(tmp_path):
    with open_log(tmp_path, log_samples_every=1, log_prompts=False) as run_log:
        run_log.samples(1, [SAMPLE])
    (line,) = lines(tmp_path / "samples.jsonl")
    assert "2+2" not in json.dumps(line)
    hidden = {name for name, value in line.items() if value == "[redacted]"}
    assert hidden == {"prompt", "completion", "thinking", "answer", "tokens"}
    kept = ("finish_reason", "length", "truncated", "reward", "advantage", "rewards")
    assert {name: line[name] for name in kept} == {name: SAMPLE[name] for name in kept}


@pytest.mark.parametrize("text", ["a\u2028b\x85c", "\ud800 alone", "\x00\x1b", 'quote " and \\', "\U0001f600"])
def test_any_text_survives_in_one_line(tmp_path, text):
    with open_log(tmp_path, log_samples_every=1) as run_log:
        run_log.samples(1, [{"prompt": text}])
    assert lines(tmp_path / "samples.jsonl") == [{"step": 1, "prompt": text}]


def test_resume_drops_later_lines_and_repeats_nothing(tmp_path):
    with open_log(tmp_path, log_samples_every=1) as run_log:
        for step in range(1, 8):
            run_log.metrics(step, {"reward": 0.0})
            run_log.samples(step, [{"reward": 0.0}])
    with open_log(tmp_path, log_samples_every=1, resume_step=4) as run_log:
        for step in range(5, 8):
            run_log.metrics(step, {"reward": 1.0})
            run_log.samples(step, [{"reward": 1.0}])
    for name in ("metrics.jsonl", "samples.jsonl"):
        written = [(line["step"], line["reward"]) for line in lines(tmp_path / name)]
        assert written == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1)]
    assert "resumed after step 4; lines of later steps dropped: 6" in (tmp_path / "train.log").read_text()


def test_a_new_run_starts_anew(tmp_path):
    for reward in (0.0, 1.0):
        with open_log(tmp_path) as run_log:
            run_log.metrics(1, {"reward": reward})
    assert [line["reward"] for line in lines(tmp_path / "metrics.jsonl")] == [1.0]


def test_updates_that_no_checkpoint_holds_are_not_made_again_in_silence(tmp_path, capsys):
    """As after a kill before the first checkpoint."""
    for steps, warned in ((3, False), (0, True), (0, False)):
        with open_log(tmp_path) as run_log:
            for step in range(1, steps + 1):
                run_log.metrics(step, {"reward": 0.5})
        assert (
            "warning: no checkpoint to go on from: the run begins again, though it had come to update 3"
            in capsys.readouterr().err
        ) == warned
    assert "it had come to update 3" in (tmp_path / "train.log").read_text()


def test_resume_mends_a_line_that_a_kill_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3, "rew')
    with open_log(tmp_path, resume_step=9) as run_log:
        run_log.metrics(10, {"reward": 1.0})
    assert [line["step"] for line in lines(path)] == [1, 2, 10]


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"step": "2"}\n', b"NaN\n", b"\n"])
def test_cut_drops_what_has_no_step(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'{"step": 2}')
    assert jsonl.cut_after(path, 2) == 1
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_cut_leaves_a_file_without_later_lines_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    inode = path.stat().st_ino
    assert jsonl.cut_after(path, 2) == 0
    assert path.stat().st_ino == inode
    assert jsonl.cut_after(tmp_path / "missing.jsonl", 2) == 0


def test_cut_ends_a_whole_last_line_that_lacks_its_newline(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert jsonl.cut_after(path, 2) == 0
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_records_pass_over_what_was_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    assert list(jsonl.records(path)) == [{"step": 1}]


def test_a_value_without_a_json_form_is_refused():
    with pytest.raises(TypeError):
        jsonl.line({"value": object()})


def break_file(directory):
    """A directory in the place of the file: it cannot be opened for writing, whoever asks."""
    (directory / "samples.jsonl").unlink()
    (directory / "samples.jsonl").mkdir()


def run_broken(directory, then):
    with open_log(directory, log_samples_every=1) as run_log:
        break_file(directory)
        run_log.samples(1, [SAMPLE])
        then(run_log)


def test_a_line_that_cannot_be_written_is_raised_at_a_later_call(tmp_path):
    def later(run_log):
        time.sleep(0.2)
        run_log.metrics(2, {"reward": 1.0})
        pytest.fail("the second call must raise")

    with pytest.raises(TrainingError, match="cannot be written"):
        run_broken(tmp_path, later)


def test_a_line_that_cannot_be_written_is_raised_at_the_end(tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"):
        run_broken(tmp_path, lambda run_log: None)


def test_the_error_of_the_loop_is_not_hidden_by_one_of_the_log(tmp_path, capsys):
    def fail(run_log):
        raise KeyError("the loop's own")

    with pytest.raises(KeyError, match="the loop's own"):
        run_broken(tmp_path, fail)
    assert "cannot be written" in capsys.readouterr().err


def test_an_error_in_the_loop_still_leaves_every_line(tmp_path):
    def run():
        with open_log(tmp_path) as run_log:
            for step in range(1, 501):
                run_log.metrics(step, {"reward": 1.0})
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == list(range(1, 501))


def test_flush_makes_lines_visible_at_once(tmp_path):
    with open_log(tmp_path) as run_log:
        run_log.metrics(1, {"reward": 1.0})
        run_log.flush()
        assert len(lines(tmp_path / "metrics.jsonl")) == 1


def test_writer_keeps_the_order_of_the_calls(tmp_path):
    writer = Writer()
    for number in range(300):
        writer.append(tmp_path / f"{number % 3}.txt", f"{number}\n")
    writer.close()
    for rest in range(3):
        assert (tmp_path / f"{rest}.txt").read_text().split() == [str(n) for n in range(rest, 300, 3)]


def test_a_reader_that_has_gone_ends_no_run(tmp_path, monkeypatch):
    """Of `grpo train 2>&1 | tee log` Ctrl-C ends `tee` too, before the last checkpoint is written."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, open_log(tmp_path, quiet=False) as log:
        monkeypatch.setattr(sys, "stderr", stream)
        log.note("one")
        log.note("two")
    assert "two" in (tmp_path / "train.log").read_text()


def test_of_several_processes_one_answers_a_request_to_stop(tmp_path):
    with RunLog(tmp_path, MonitoringConfig(), total_steps=1) as log:
        assert not log.stopping("stopping")  # there is no live view: stderr has to have it
    assert Unwritten(tmp_path / "other", MonitoringConfig(), total_steps=1).stopping("stopping")
