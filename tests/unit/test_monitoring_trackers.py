"""Trackers: numbers arrive, once per step, also over a resume; texts never; what is missing is told at the start."""

import json
import struct
import subprocess
import sys
from types import ModuleType

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from pipelines import train
from pipelines.config import ExperimentConfig, MonitoringConfig
from pipelines.errors import ConfigError, TrainingError
from pipelines.monitoring.sinks import RunLog

SECRET = "a prompt nobody may see"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    """No key, no network, nothing outside the test's folders, and no process that outlives it."""
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()  # it reads the environment once, and keeps a process


def open_log(directory, *, resume_step=None, settings=None, **monitoring):
    config = MonitoringConfig(**monitoring)
    return RunLog(directory, config, total_steps=9, quiet=True, resume_step=resume_step, settings=settings)


def run(directory, steps, reward, *, resume_step=None, **settings):
    with open_log(directory, resume_step=resume_step, **settings) as run_log:
        for step in steps:
            run_log.metrics(step, {"reward": reward, "rewards/exact_match/mean": 0.25})
            run_log.samples(step, [{"prompt": SECRET, "completion": SECRET}])


def wandb_records(file):
    """What a .wandb file holds: a header of 7 bytes, then a log in blocks of 32 KiB, as in LevelDB."""
    data, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def wandb_runs(directory):
    """(id, configuration, name, [(step, metrics)], exit code) of each part of the run, in order of time."""
    wandb.teardown()  # only when its process has ended is the file surely whole
    found = []
    for file in sorted((directory / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        records = list(wandb_records(file))
        (start,) = (record.run for record in records if record.HasField("run"))
        settings = {item.key: json.loads(item.value_json) for item in start.config.update if item.key != "_wandb"}
        history = [
            (
                record.history.step.num,
                {
                    name: json.loads(item.value_json)
                    for item in record.history.item
                    if not (name := "".join(item.nested_key) or item.key).startswith("_")
                },
            )
            for record in records
            if record.HasField("history")
        ]
        (end,) = (record.exit.exit_code for record in records if record.HasField("exit"))
        found.append((start.run_id, settings, start.display_name, history, end))
    return found


def events(directory):
    accumulator = EventAccumulator(str(directory / "tensorboard"))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def replace(patch, package, module):
    """What an import of the package finds from now on; None = nothing."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, package, module)


@pytest.mark.parametrize("package", ["wandb", "tensorboard"])
def test_a_missing_package_is_told_before_any_work(monkeypatch, package):
    config = ExperimentConfig.model_validate({"monitoring": {f"use_{package}": True}})
    train.check(config)
    with monkeypatch.context() as patch:
        replace(patch, package, None)
        with pytest.raises(ConfigError, match=f"monitoring.use_{package}: the package {package}") as told:
            train.check(config)
        train.check(ExperimentConfig())
    assert f"pip install 'grpo[{package}]'" in told.value.hint


def test_a_folder_called_wandb_is_not_the_package(monkeypatch, tmp_path):
    folder = ModuleType("wandb")
    folder.__path__ = [str(tmp_path)]
    with monkeypatch.context() as patch:
        replace(patch, "wandb", folder)
        with pytest.raises(ConfigError, match="the package wandb"), open_log(tmp_path, use_wandb=True):
            pass


def test_neither_is_imported_unless_it_is_on(tmp_path):
    script = """
import sys, pathlib
from pipelines import train
from pipelines.config import ExperimentConfig, MonitoringConfig
from pipelines.monitoring.sinks import RunLog
train.check(ExperimentConfig())
with RunLog(pathlib.Path(sys.argv[1]), MonitoringConfig(), total_steps=1, quiet=True) as run_log:
    run_log.metrics(1, {"reward": 1.0})
sys.exit(not {"wandb", "tensorboard"}.isdisjoint(sys.modules))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.jsonl", "samples.jsonl", "train.log"]


def test_wandb_gets_metrics_and_configuration(tmp_path, capfd):
    settings = {"trainer": {"learning_rate": 1e-5}, "data": {"system_prompt": "Think."}}
    directory = tmp_path / "my_run"
    run(directory, [1, 2], float("nan"), use_wandb=True, settings=settings, log_samples_every=1)
    ((run_id, sent, name, history, end),) = wandb_runs(directory)
    assert json.loads((directory / "wandb" / "run.json").read_text()) == {"id": run_id}
    assert (sent, name, end) == (settings, "my_run", 0)
    assert [step for step, _ in history] == [1, 2]
    for _, metrics in history:
        assert metrics == {"reward": pytest.approx(float("nan"), nan_ok=True), "rewards/exact_match/mean": 0.25}
    assert capfd.readouterr() == ("", "")


def test_no_text_is_given_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["grpo", "train", "--set", f"data.system_prompt={SECRET}"])
    settings = {"trainer": {"seed": 3}, "data": {"limit": 7, "system_prompt": SECRET}}
    run(tmp_path, [1], 1.0, use_wandb=True, log_prompts=False, settings=settings, log_samples_every=1)
    assert wandb_runs(tmp_path)[0][1] == {"trainer": {"seed": 3}, "data": {"limit": 7}}
    for file in (tmp_path / "wandb").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    settings["data"]["system_prompt"] = "kept"
    run(tmp_path / "open", [1], 1.0, use_wandb=True, settings=settings, log_samples_every=1)
    assert wandb_runs(tmp_path / "open")[0][1] == settings
    for file in (tmp_path / "open" / "wandb").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_resume_goes_on_in_the_same_wandb_run_and_sends_no_step_twice(tmp_path):
    run(tmp_path, range(1, 6), 1.0, use_wandb=True)
    run(tmp_path, range(4, 8), 2.0, use_wandb=True, resume_step=3)
    first, second = wandb_runs(tmp_path)
    assert first[0] == second[0]
    assert second[2] == ""  # a name that was changed on the server stays
    assert [step for step, _ in first[3] + second[3]] == [1, 2, 3, 4, 5, 6, 7]
    assert [metrics["reward"] for _, metrics in second[3]] == [2.0, 2.0]


def test_wandb_switched_on_at_a_resume_gets_every_step_from_there(tmp_path):
    run(tmp_path, range(1, 6), 1.0)
    run(tmp_path, range(4, 7), 2.0, use_wandb=True, resume_step=3)
    ((_, _, _, history, _),) = wandb_runs(tmp_path)
    assert [step for step, _ in history] == [4, 5, 6]


def test_a_run_that_starts_again_is_another_wandb_run(tmp_path):
    run(tmp_path, [1, 2], 1.0, use_wandb=True)
    run(tmp_path, [1, 2], 2.0, use_wandb=True)
    first, second = wandb_runs(tmp_path)
    assert first[0] != second[0]
    assert [step for step, _ in second[3]] == [1, 2]


def test_a_run_that_failed_is_marked(tmp_path):
    def fail():
        with open_log(tmp_path, use_wandb=True, use_tensorboard=True) as run_log:
            run_log.metrics(1, {"reward": 1.0})
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert wandb_runs(tmp_path)[0][4] == 1
    assert events(tmp_path) == {"reward": [(1, 1.0)]}


def test_wandb_without_a_key_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(ConfigError, match="cannot start: No API key") as told, open_log(tmp_path, use_wandb=True):
        pass
    assert "wandb login" in told.value.hint
    assert "WANDB_MODE=offline" in told.value.hint


def test_without_a_network_the_run_stays_on_disk(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.5")
    run(tmp_path, [1, 2], 1.0, use_wandb=True)
    assert "cannot be reached, its files stay on disk for `wandb sync`" in caplog.text
    ((_, _, _, history, end),) = wandb_runs(tmp_path)
    assert ([step for step, _ in history], end) == ([1, 2], 0)


def test_tensorboard_shows_the_metrics(tmp_path):
    run(tmp_path, [1, 2, 3], 0.5, use_tensorboard=True)
    expected = {"reward": 0.5, "rewards/exact_match/mean": 0.25}
    assert events(tmp_path) == {tag: [(step, value) for step in (1, 2, 3)] for tag, value in expected.items()}


def test_tensorboard_replaces_what_a_resume_makes_again(tmp_path):
    run(tmp_path, range(1, 6), 1.0, use_tensorboard=True)
    run(tmp_path, range(4, 8), 2.0, use_tensorboard=True, resume_step=3)
    assert events(tmp_path)["reward"] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 2)]
    run(tmp_path, [1, 2], 3.0, use_tensorboard=True)
    assert events(tmp_path)["reward"] == [(1, 3), (2, 3)]


def test_tensorboard_that_cannot_write_is_an_error_and_ends_the_other_tracker(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the directory should be")
    with (
        pytest.raises(TrainingError, match="TensorBoard events") as told,
        open_log(tmp_path, use_wandb=True, use_tensorboard=True),
    ):
        pass
    assert "free space" in told.value.hint
    assert wandb_runs(tmp_path)[0][4] == 1
