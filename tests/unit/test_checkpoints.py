"""What is saved comes back; what is kept is the newest and the best; what is not ours is never deleted."""

import json
import logging
import math
import shutil

import pytest

from pipelines.config import CheckpointingConfig
from pipelines.errors import CheckpointError
from pipelines.training.checkpoints import Checkpoints


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run" / "checkpoints"


def weights(step):
    def write(path):
        (path / "model.safetensors").write_bytes(f"weights of step {step}".encode() * 100)
        (path / "tokenizer").mkdir()
        (path / "tokenizer" / "config.json").write_text("{}")

    return write


def checkpoints(directory, **settings):
    return Checkpoints(directory, CheckpointingConfig(**settings))


def save(store, *steps, metrics=None):
    for step in steps:
        store.save(step, weights(step), {"step": step}, (metrics or {}).get(step))


def names(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_saved_checkpoint_comes_back(directory):
    store = checkpoints(directory)
    state = {"seed": 2**63 + 1, "mean": 0.1 + 0.2, "cursor": {"epoch": 1, "order": [3, 1, 2]}, "best": None}
    path = store.save(500, weights(500), state)
    found = store.latest()
    assert (found.path, found.step, found.state) == (path, 500, state)
    assert path.name == "step_000500"
    assert (path / "model.safetensors").read_bytes() == b"weights of step 500" * 100
    assert names(directory) == ["step_000500"]


def test_manifest_lists_every_file_but_itself(directory):
    path = checkpoints(directory).save(1, weights(1), {})
    manifest = json.loads((path / "manifest.json").read_text())
    assert [file["path"] for file in manifest["files"]] == ["model.safetensors", "state.json", "tokenizer/config.json"]
    assert manifest["files"][0]["size_bytes"] == 1700


def test_nothing_saved_yet(directory):
    store = checkpoints(directory)
    assert store.latest() is None
    assert store.best() is None
    assert store.steps() == []
    assert store.forget_after(0) == []
    assert not directory.exists()


def test_newest_are_kept(directory):
    store = checkpoints(directory, keep_last_n=2)
    save(store, 1, 2, 3, 4)
    assert store.steps() == [3, 4]


def test_steps_are_ordered_as_numbers(directory):
    store = checkpoints(directory, keep_last_n=2)
    save(store, 999_999, 1_000_000)
    assert names(directory) == ["step_1000000", "step_999999"]
    assert store.latest().step == 1_000_000


def test_best_is_kept_beside_the_newest(directory):
    store = checkpoints(directory, keep_last_n=2)
    save(store, 1, 2, 3, 4, 5, metrics={1: 0.2, 2: 0.9, 3: 0.5, 4: math.nan, 5: 0.6})
    assert store.steps() == [2, 4, 5]
    assert store.best().step == 2
    save(store, 6, metrics={6: 0.95})
    assert store.steps() == [5, 6]


def test_best_may_be_the_smallest_and_is_the_earliest_of_equals(directory):
    store = checkpoints(directory, keep_last_n=1, best_metric="loss", best_mode="min")
    save(store, 1, 2, 3, 4, metrics={1: 0.5, 2: 0.1, 3: 0.1, 4: 0.7})
    assert store.steps() == [2, 4]
    assert store.best().step == 2


def test_values_of_another_metric_are_not_compared(directory):
    save(checkpoints(directory, keep_last_n=1, best_metric="kl"), 1, metrics={1: 100.0})
    store = checkpoints(directory, keep_last_n=1)
    save(store, 2, 3, metrics={2: 0.5, 3: 0.4})
    assert store.steps() == [2, 3]


def test_saving_a_step_again_replaces_it(directory):
    store = checkpoints(directory)
    save(store, 1, 2)
    store.save(2, weights(22), {"again": True})
    assert store.latest().state == {"again": True}
    assert b"step 22" in (directory / "step_000002" / "model.safetensors").read_bytes()
    assert names(directory) == ["step_000001", "step_000002"]


def test_at_finds_by_step_and_by_directory(directory, tmp_path, monkeypatch):
    store = checkpoints(directory)
    save(store, 7)
    shutil.copytree(directory / "step_000007", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for which in (7, "7", "000007", "step_000007", directory / "step_000007", "elsewhere", tmp_path / "elsewhere"):
        assert store.at(which).step == 7


def test_at_says_what_there_is(directory):
    store = checkpoints(directory)
    save(store, 7, 8)
    for which in (9, "nowhere", directory / "step_000009"):
        with pytest.raises(CheckpointError, match="no such directory") as caught:
            store.at(which)
        assert caught.value.hint.endswith(": 7, 8")


def test_forget_after_deletes_only_later_ones(directory):
    store = checkpoints(directory, keep_last_n=9)
    save(store, 1, 2, 3, 4)
    assert sorted(store.forget_after(2)) == [3, 4]
    assert names(directory) == ["step_000001", "step_000002"]


def test_a_step_saved_before_later_ones_is_not_deleted_at_once(directory):
    store = checkpoints(directory, keep_last_n=2)
    save(store, 400, 500, 350)
    assert store.steps() == [350, 400, 500]


def test_foreign_directories_and_files_are_never_deleted(directory):
    store = checkpoints(directory, keep_last_n=1)
    save(store, 1)
    (directory / "step_000000").mkdir()
    (directory / "step_000000" / "thesis.tex").write_text("years of work")
    (directory / "step_1").mkdir()
    (directory / "notes.txt").write_text("mine")
    (directory / ".step_000001-backup.grpo-tmp").mkdir()
    shutil.copytree(directory / "step_000001", directory / "step_000002")  # a copy by hand
    (directory / "step_000003").symlink_to(directory / "step_000001")
    (directory / "step_000001" / "my-notes.txt").write_text("mine too")
    before = names(directory)
    save(store, 10, 11)
    assert names(directory) == sorted([*before, "step_000011"])
    assert (directory / "step_000001" / "my-notes.txt").exists()


def test_a_file_of_the_operating_system_saves_nothing(directory):
    store = checkpoints(directory, keep_last_n=1)
    save(store, 1)
    (directory / "step_000001" / ".DS_Store").write_text("")
    save(store, 2)
    assert store.steps() == [2]


def test_somebody_elses_directory_with_a_steps_name_is_set_aside(directory, caplog):
    (directory / "step_000005").mkdir(parents=True)
    (directory / "step_000005" / "thesis.tex").write_text("years of work")
    store = checkpoints(directory)
    save(store, 5)
    assert store.latest().step == 5
    assert (directory / "step_000005.old-1" / "thesis.tex").exists()
    assert "kept as step_000005.old-1" in caplog.text


def test_sparing_a_directory_is_said_once(directory, caplog):
    store = checkpoints(directory, keep_last_n=1)
    save(store, 1)
    (directory / "step_000001" / "notes.txt").write_text("mine")
    save(store, 2, 3, 4)
    assert caplog.text.count("it holds files of somebody else (notes.txt)") == 1


def test_the_writers_error_leaves_nothing_behind(directory):
    store = checkpoints(directory)
    save(store, 1)

    def fail(path):
        (path / "model.safetensors").write_bytes(b"half")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        store.save(2, fail, {})
    assert names(directory) == ["step_000001"]


def test_a_full_disk_is_an_error_with_a_hint(directory):
    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"step 3 cannot be saved: .*No space left") as caught:
        checkpoints(directory).save(3, full, {})
    assert "earlier checkpoints are untouched" in caught.value.hint
    assert names(directory) == []


@pytest.mark.parametrize("state", [{"loss": math.nan}, {"array": object()}])
def test_a_state_that_json_cannot_hold_is_refused(directory, state):
    with pytest.raises((TypeError, ValueError)):
        checkpoints(directory).save(1, weights(1), state)
    assert names(directory) == []


def test_reading_changes_nothing(directory):
    save(checkpoints(directory), 1)
    leftover = directory / ".step_000002-0123abcd.grpo-tmp"
    leftover.mkdir()
    before = sorted(directory.rglob("*"))
    store = checkpoints(directory)
    store.latest()
    store.best()
    store.at(1)
    assert sorted(directory.rglob("*")) == before


def test_a_good_checkpoint_is_read_without_a_word(directory, caplog):
    store = checkpoints(directory)
    save(store, 1, 2)
    with caplog.at_level(logging.WARNING):
        store.latest()
    assert not caplog.records
