"""A run is read as its directory tells it, whatever state that is in; what is no run is refused by name."""

import json
from pathlib import Path

import pytest
from report_world import copied, logged, reseal, rewrite, world

from pipelines.errors import DataError, StageError
from pipelines.reports.runs import read
from pipelines.stages import locks
from pipelines.stages.digest import DigestCache


@pytest.fixture(autouse=True)
def _here(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(world(tmp_path_factory))


@pytest.fixture
def run(tmp_path):
    return copied("a/run", tmp_path / "run")


def only(*places):
    (found,) = read([Path(place) for place in places])
    return found


def test_every_number_of_the_log():
    found, records = only("a/run"), logged("a/run")
    assert records[0]["step"] == 0  # an evaluation before the first update
    for name in {name for record in records for name in record} - {"step", "time"}:
        pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
        assert list(zip(*found.series[name], strict=True)) == pairs
    assert "time" not in found.series
    assert (found.step, found.planned, found.algorithm) == (3, 3, "grpo")
    assert found.state == "finished after 3 updates"
    rewards = [record["reward"] for record in records[1:]]
    assert found.change("reward") == (rewards[0], rewards[-1])
    assert found.total("reward") == sum(rewards)
    assert found.change("never logged") is None
    assert found.values("never logged") == []


def test_the_ends_of_a_metric_are_means_over_a_tenth(run):
    lines = [json.dumps({"step": step, "reward": step}) + "\n" for step in range(1, 102)]
    (run / "metrics.jsonl").write_text("".join(lines))
    assert only(run).change("reward") == (6.0, 96.0)


def test_what_is_no_finite_number_is_left_out(run):
    wrong = ["null", "NaN", "Infinity", "-Infinity", "1e308", "1" + "0" * 400, '"text"', "[1]", "{}"]
    lines = [f'{{"step": {step}, "reward": {value}, "loss": 1}}\n' for step, value in enumerate(wrong, 1)]
    (run / "metrics.jsonl").write_text("".join(lines) + '{"step": 10, "reward": 2}\n')
    found = only(run)
    assert found.series["reward"] == ([10], [2.0])
    assert found.step == 10


def test_lines_that_were_cut_off_and_lines_written_twice(run):
    text = '{"step": 1, "reward": 1}\n{"step": 2, "reward": 9}\nno json\n[1]\n{"reward": 3}\n\xff\n'
    (run / "metrics.jsonl").write_bytes(text.encode("latin-1") + b'{"step": 2, "reward": 2}\n{"step": 3, "rew')
    assert only(run).series == {"reward": ([1, 2], [1.0, 2.0])}


def test_a_run_without_a_manifest_is_not_finished(run):
    (run / "manifest.json").unlink()
    rewrite(run, lambda record: record.update(reward=None) if record["step"] == 3 else None)
    assert only(run).state == "not finished: 3 of 3 updates done"
    (run / "manifest.json").write_text("{")
    assert only(run).state.startswith("not finished")
    assert only(run).manifest is None


def test_a_run_that_is_going_on(run):
    with locks.hold(run, "train"):
        assert only(run).state.startswith("running (process ")
        assert only(run).state.endswith("), 3 of 3 updates done")
    assert only(run).state.startswith("finished")


@pytest.mark.parametrize(
    ("make", "words", "error"),
    [
        (lambda run: run / "gone", "is not there", DataError),
        (lambda run: run.parent, "holds no run", DataError),
        (lambda run: run / "metrics.jsonl", "is a file", DataError),
        (lambda run: reseal(run, lambda record: record.update(stage="preprocess")), "holds no run", DataError),
        (lambda run: (run / "metrics.jsonl").write_text("") or run, "metrics.jsonl has no update", DataError),
        (lambda run: (run / "metrics.jsonl").unlink() or run, "metrics.jsonl has no update", DataError),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1, "reward": null}') and run, "no upd", DataError),
        (lambda run: (run / "identity.json").write_text("{") and run, "identity.json is not JSON", StageError),
    ],
    ids=["missing", "no run", "a file", "another stage", "empty log", "no log", "only nulls", "damaged identity"],
)
def test_what_is_no_run_is_refused_by_name(run, make, words, error):
    place = make(run)
    with pytest.raises(error, match=words) as found:
        only(place)
    assert str(place) in found.value.message
    assert found.value.hint


def test_names_are_as_long_as_tells_runs_apart(tmp_path):
    assert [run.name for run in read([Path("a/run"), Path("lora")])] == ["run", "lora"]
    assert [run.name for run in read([Path("a/run"), Path("b/run")])] == ["a/run", "b/run"]
    deep = copied("a/run", tmp_path / "a" / "run")
    assert [run.name for run in read([Path("a/run"), deep])] == ["reports/a/run", f"{tmp_path.name}/a/run"]
    assert [run.colour for run in read([Path("a/run"), Path("b/run"), Path("lora")])] == [0, 1, 2]


def test_one_run_however_it_is_called(tmp_path):
    (tmp_path / "link").symlink_to(Path("a/run").resolve())
    assert only("a/run", "a/../a/run", "a/run/", tmp_path / "link").directory == Path("a/run")


def test_warnings_are_told_once_in_order(run):
    log = "12:00  step 1\n12:00  warning: b\n12:01  warning: a  warning: c\n12:02  warning: b\nwarning: no date\n"
    (run / "train.log").write_bytes(log.encode() + b"12:03  warning: \xff\n12:04  warn")
    assert only(run).warnings() == ["b", "a  warning: c", "\\xff"]
    (run / "train.log").unlink()
    assert only(run).warnings() == []


def test_samples_of_some_updates(run):
    assert only(run).sampled_steps() == [1, 2, 3]
    assert {record["step"] for record in only(run).samples([1, 3])} == {1, 3}
    (run / "samples.jsonl").write_text('{"step": "1"}\n{"step": [1]}\n{}\n{"step": 2, "completion": 3}\ncut')
    assert only(run).sampled_steps() == [2]
    (run / "samples.jsonl").unlink()
    assert only(run).sampled_steps() == []


def test_checkpoints_are_its_own_and_whole(tmp_path):
    run = copied("a/run", tmp_path / "run", whole=True)
    weights = run / "checkpoints" / "step_000003"
    copied(weights, run / "elsewhere" / "step_000002", whole=True)
    for name in ("inner", "a"):  # other runs inside this one's directory
        copied("b/run", run / name, whole=True)
    (copied(weights, run / "checkpoints" / "step_000004") / "manifest.json").unlink()
    for path in copied(weights, run / "checkpoints" / "step_000005").glob("*.safetensors"):
        path.unlink()
    copied(weights, run / "checkpoints" / "step_6.old")
    ours = [path.relative_to(run).as_posix() for path in only(run).checkpoints()]
    assert ours == ["elsewhere/step_000002", "checkpoints/step_000003"]
    assert only(run / "inner").checkpoints() == [run / "inner" / "checkpoints" / "step_000003"]


def test_weights_that_vanish_meanwhile_have_no_digest(tmp_path):
    found = only("lora")
    (checkpoint,) = found.checkpoints()
    cache = DigestCache(tmp_path)
    assert set(found.weights(checkpoint, cache) or ()) == {"checkpoint", "model"}
    assert found.weights(checkpoint.with_name("step_000009"), cache) is None


def test_settings_of_another_version_are_not_known(run):
    reseal(run, lambda record: record.update(config={"trainer": {"algorithm": "grpo"}}))
    found = only(run)
    assert (found.planned, found.setting("model", "use_lora"), found.algorithm) == (0, None, "grpo")
