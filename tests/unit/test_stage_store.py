"""Cached, stale, partial, missing, damaged: what is found, what is done about it, and the words for it."""

import dataclasses
import logging
import os

import pytest

from pipelines.errors import ConfigError, StageError
from pipelines.stages.identity import Identity, read_identity
from pipelines.stages.store import Unfinished, directory_for, entries, outputs_digest, run_stage, state

CONTENT = "token arrays"


def preprocess(limit=3, version=1):
    return Identity("preprocess", version, {"data": {"limit": limit}}, {"train_data": "0" * 64})


def train(beta=0.0, upstream="1" * 64):
    return Identity("train", 1, {"trainer": {"grpo_beta": beta}}, {"preprocess": upstream})


class Work:
    """Writes one file; counts how often it had to."""

    def __init__(self, content=CONTENT):
        self.content = content
        self.calls = 0
        self.found = []

    def __call__(self, directory):
        self.calls += 1
        self.found = sorted(path.name for path in directory.iterdir())
        (directory / "train_prompts.npy").write_text(self.content)
        return {"rows": 3}


def fail(_directory):
    raise RuntimeError("power cut")


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "stages"


@pytest.fixture
def run_directory(tmp_path):
    return tmp_path / "outputs" / "run"


def run(identity, root, work, **options):
    return run_stage(identity, directory_for(root, identity), work, **options)


# The store: entries that may be emptied at will.


def test_first_run_then_hit(root, work):
    first = run(preprocess(), root, work)
    assert (first.status, first.reasons, first.summary) == ("ran", ["never ran"], {"rows": 3})
    assert first.directory == root / "preprocess" / preprocess().key
    second = run(preprocess(), root, work)
    assert (second.status, second.reasons, second.summary) == ("cached", [], {"rows": 3})
    assert second.seconds == first.seconds
    assert work.calls == 1
    assert state(preprocess(), first.directory).status == "cached"


def test_a_hit_writes_nothing(root, work):
    directory = run(preprocess(), root, work).directory
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    run(preprocess(), root, work)
    state(preprocess(), directory)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_missing(root):
    found = state(preprocess(), directory_for(root, preprocess()))
    assert (found.status, found.reasons) == ("missing", ["never ran"])


def test_stale_shows_the_difference(root, work):
    run(preprocess(limit=3), root, work)
    changed = preprocess(limit=5)
    found = state(changed, directory_for(root, changed))
    assert (found.status, found.reasons) == ("stale", ["data.limit: 3 -> 5"])
    assert run(changed, root, work).reasons == ["data.limit: 3 -> 5"]
    assert work.calls == 2


def test_stale_is_told_against_the_nearest_entry(root, work):
    far = Identity("preprocess", 1, {"data": {"limit": 3}}, {"train_data": "f" * 64, "tokenizer": "e" * 64})
    run(preprocess(limit=3), root, work)
    run(far, root, work)
    assert state(preprocess(limit=5), directory_for(root, preprocess(limit=5))).reasons == ["data.limit: 3 -> 5"]


def test_going_back_is_a_hit(root, work):
    for limit in (3, 5, 3):
        last = run(preprocess(limit), root, work)
    assert last.status == "cached"
    assert work.calls == 2


def test_partial_is_emptied_and_redone(root, work):
    directory = directory_for(root, preprocess())
    with pytest.raises(RuntimeError, match="power cut"):
        run(preprocess(), root, fail)
    (directory / "half.npy").write_text("hal")
    found = state(preprocess(), directory)
    assert (found.status, found.reasons) == ("partial", ["started, not finished: there is no manifest.json"])
    assert run(preprocess(), root, work).status == "ran"
    assert work.found == ["identity.json"]


def test_force_redoes_from_an_empty_directory(root, work):
    run(preprocess(), root, work)
    again = run(preprocess(), root, work, force=True)
    assert (again.status, again.reasons) == ("ran", ["forced"])
    assert work.found == ["identity.json"]


def test_failing_while_forced_leaves_it_incomplete(root, work):
    directory = run(preprocess(), root, work).directory
    with pytest.raises(RuntimeError):
        run(preprocess(), root, fail, force=True)
    assert state(preprocess(), directory).status == "partial"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text("tok"), "train_prompts.npy: 3 bytes instead of 12"),
        (lambda path: path.unlink(), "train_prompts.npy: gone"),
        (lambda path: (path.unlink(), path.mkdir()), "train_prompts.npy: gone"),
    ],
)
def test_damaged_is_redone_loudly(root, work, caplog, damage, reason):
    directory = run(preprocess(), root, work).directory
    damage(directory / "train_prompts.npy")
    found = state(preprocess(), directory)
    assert (found.status, found.reasons) == ("damaged", [reason])
    with caplog.at_level(logging.WARNING):
        result = run(preprocess(), root, work)
    assert (result.status, result.reasons) == ("ran", [reason])
    assert reason in caplog.text
    assert state(preprocess(), directory).status == "cached"


def test_flipped_byte_is_found_by_verify_only(root, work):
    directory = run(preprocess(), root, work).directory
    path = directory / "train_prompts.npy"
    stamp = path.stat()
    path.write_text("tOken arrays")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert state(preprocess(), directory).status == "cached"
    found = state(preprocess(), directory, verify=True)
    assert (found.status, found.reasons) == ("damaged", ["train_prompts.npy: content changed (sha256 differs)"])
    assert run(preprocess(), root, work).status == "cached"
    assert run(preprocess(), root, work, verify=True).status == "ran"
    assert path.read_text() == CONTENT


@pytest.mark.parametrize("name", ["manifest.json", "identity.json"])
@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_unreadable_bookkeeping_is_damage(root, work, name, content):
    directory = run(preprocess(), root, work).directory
    (directory / name).write_text(content)
    found = state(preprocess(), directory)
    assert found.status == "damaged"
    assert name in found.reasons[0] or "identity" in found.reasons[0]
    assert run(preprocess(), root, work).status == "ran"


def test_an_entry_under_a_foreign_name_is_damage(root, work):
    there = run(preprocess(limit=3), root, work).directory
    here = directory_for(root, preprocess(limit=5))
    there.rename(here)
    assert state(preprocess(limit=5), here).status == "damaged"
    assert run(preprocess(limit=5), root, work).status == "ran"


def test_early_cut_off_looks_at_outputs_not_at_settings(root):
    first = run(preprocess(version=1), root, Work())
    second = run(preprocess(version=2), root, Work())
    third = run(preprocess(version=3), root, Work("other tokens"))
    digests = [outputs_digest(result.directory) for result in (first, second, third)]
    assert train(upstream=digests[0]).key == train(upstream=digests[1]).key
    assert train(upstream=digests[0]).key != train(upstream=digests[2]).key


def test_an_incomplete_stage_has_no_outputs(root):
    with pytest.raises(RuntimeError):
        run(preprocess(), root, fail)
    assert outputs_digest(directory_for(root, preprocess())) is None


def test_entries_are_those_of_one_stage(root, work):
    directory = run(preprocess(), root, work).directory
    (root / "preprocess" / "notes.txt").write_text("mine")
    assert list(entries(root, "preprocess")) == [directory]
    assert list(entries(root, "train")) == []


def test_work_that_stops_on_purpose_is_partial(root, work):
    result = run(preprocess(), root, lambda _: Unfinished({"step": 7}))
    assert (result.status, result.summary) == ("partial", {"step": 7})
    assert state(preprocess(), result.directory).status == "partial"
    assert run(preprocess(), root, work).status == "ran"


# A run's directory: claimed, never emptied, never given to another identity.


def test_run_directory_hit(run_directory, work):
    assert run_stage(train(), run_directory, work, resumable=True).status == "ran"
    assert run_stage(train(), run_directory, work, resumable=True).status == "cached"
    assert read_identity(run_directory) == train()


def test_incomplete_run_continues_when_resumable(run_directory, work):
    with pytest.raises(RuntimeError):
        run_stage(train(), run_directory, fail, resumable=True)
    (run_directory / "step_000500").mkdir()
    result = run_stage(train(), run_directory, work, resumable=True)
    assert result.status == "ran"
    assert work.found == ["identity.json", "step_000500"]


def test_damaged_run_continues_when_resumable(run_directory, work, caplog):
    run_stage(train(), run_directory, work, resumable=True)
    (run_directory / "train_prompts.npy").write_text("tok")
    (run_directory / "step_000500").mkdir()
    assert run_stage(train(), run_directory, work, resumable=True).status == "ran"
    assert "step_000500" in work.found
    assert "manifest.json" not in work.found
    assert "3 bytes instead of 12" in caplog.text


def test_incomplete_run_is_set_aside_when_not_resumable(run_directory, work):
    with pytest.raises(RuntimeError):
        run_stage(train(), run_directory, fail)
    (run_directory / "half").write_text("kept")
    run_stage(train(), run_directory, work)
    assert (run_directory.parent / "run.old-1" / "half").read_text() == "kept"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_another_identitys_run_is_never_overwritten(run_directory, work, finished, force):
    if finished:
        run_stage(train(beta=0.04), run_directory, work, resumable=True)
    else:
        with pytest.raises(RuntimeError):
            run_stage(train(beta=0.04), run_directory, fail, resumable=True)
    before = {path: path.read_bytes() for path in run_directory.rglob("*")}
    found = state(train(beta=0.0), run_directory)
    assert (found.status, found.reasons) == ("stale", ["trainer.grpo_beta: 0.04 -> 0.0"])
    with pytest.raises(StageError) as refusal:
        run_stage(train(beta=0.0), run_directory, Work(), resumable=True, force=force)
    assert "trainer.grpo_beta: 0.04 -> 0.0" in refusal.value.message
    for way_out in ("trainer.output_dir=", "--fresh", "put the settings back"):
        assert way_out in refusal.value.hint
    assert {path: path.read_bytes() for path in run_directory.rglob("*")} == before


def test_a_run_of_another_version_is_not_told_to_put_settings_back(run_directory):
    run_stage(dataclasses.replace(train(), version=0), run_directory, Work(), resumable=True)
    with pytest.raises(StageError, match="belongs to a run of another version of grpo") as refusal:
        run_stage(train(), run_directory, Work(), resumable=True)
    assert "model.model_path=CHECKPOINT" in refusal.value.hint
    assert "settings back" not in refusal.value.hint


def test_fresh_keeps_every_earlier_run(run_directory, caplog):
    for content, beta in (("first", 0.04), ("second", 0.0), ("third", 0.0)):
        run_stage(train(beta=beta), run_directory, Work(content), resumable=True, fresh=True)
    kept = {path.name: (path / "train_prompts.npy").read_text() for path in run_directory.parent.glob("run*")}
    assert kept == {"run.old-1": "first", "run.old-2": "second", "run": "third"}
    assert "run.old-2" in caplog.text


def test_force_on_a_run_sets_it_aside(run_directory, work):
    run_stage(train(), run_directory, work, resumable=True)
    result = run_stage(train(), run_directory, work, resumable=True, force=True)
    assert (result.status, result.reasons) == ("ran", ["forced"])
    assert (run_directory.parent / "run.old-1" / "manifest.json").exists()


@pytest.mark.parametrize("options", [{}, {"resumable": True}, {"force": True}, {"fresh": True}])
def test_files_that_no_run_made_are_never_touched(run_directory, work, options):
    run_directory.mkdir(parents=True)
    (run_directory / "thesis.tex").write_text("mine")
    assert state(train(), run_directory).status == "stale"
    with pytest.raises(StageError, match="not empty"):
        run_stage(train(), run_directory, work, **options)
    assert [path.name for path in run_directory.iterdir()] == ["thesis.tex"]
    assert work.calls == 0


@pytest.mark.parametrize("name", [".gitkeep", "identity.json.99-ab.grpo-tmp"])
def test_an_empty_directory_may_hold_what_is_nobodys(run_directory, work, name):
    run_directory.mkdir(parents=True)
    (run_directory / name).write_text("")
    assert state(train(), run_directory).status == "missing"
    assert run_stage(train(), run_directory, work).status == "ran"


def test_a_run_whose_owner_is_unreadable_is_not_touched(run_directory, work):
    run_stage(train(), run_directory, work, resumable=True)
    for name in ("identity.json", "manifest.json"):
        (run_directory / name).write_text("{")
    with pytest.raises(StageError, match="nobody can tell of which settings") as refusal:
        run_stage(train(), run_directory, work, resumable=True)
    assert "identity.json is not JSON" in refusal.value.message
    assert "--fresh" in refusal.value.hint
    assert "settings back" not in refusal.value.hint
    assert run_stage(train(), run_directory, work, resumable=True, fresh=True).status == "ran"


def test_a_lost_identity_is_read_from_the_manifest(run_directory, work):
    run_stage(train(), run_directory, work, resumable=True)
    (run_directory / "identity.json").unlink()
    assert run_stage(train(), run_directory, work, resumable=True).status == "cached"
    with pytest.raises(StageError, match="grpo_beta"):
        run_stage(train(beta=0.5), run_directory, work, resumable=True)


@pytest.mark.parametrize("broken", ["identity.json", "manifest.json"])
def test_of_its_two_files_one_is_enough_to_go_on_with_a_run(run_directory, work, broken):
    run_stage(train(), run_directory, work, resumable=True)
    (run_directory / broken).write_text("{")
    with pytest.raises(StageError, match=r"holds a run|grpo_beta"):
        run_stage(train(beta=0.5), run_directory, Work(), resumable=True)
    assert run_stage(train(), run_directory, work, resumable=True).status == "ran"
    assert "train_prompts.npy" in work.found
    assert state(train(), run_directory, verify=True).status == "cached"


def test_a_link_to_a_run_is_followed_not_replaced(tmp_path, run_directory, work):
    link = tmp_path / "latest"
    run_stage(train(), run_directory, work, resumable=True)
    link.symlink_to(run_directory)
    assert run_stage(train(), link, work, resumable=True).status == "cached"
    run_stage(train(), link, work, resumable=True, fresh=True)
    assert link.is_symlink()
    assert (run_directory.parent / "run.old-1").is_dir()


def test_a_file_in_the_way_is_an_error(run_directory, work):
    run_directory.parent.mkdir(parents=True)
    run_directory.write_text("a file")
    with pytest.raises(StageError, match="is a file"):
        run_stage(train(), run_directory, work)


def test_logs_that_grow_later_are_no_damage(run_directory):
    def work(directory):
        (directory / "train.log").write_text("step 1\n")

    run_stage(train(), run_directory, work, unrecorded=["train.log"])
    (run_directory / "train.log").write_text("step 1\nfarewell\n")
    assert state(train(), run_directory, verify=True).status == "cached"


def refuse(_directory):
    raise ConfigError("the model has 3 layers", hint="lower the range")


def test_work_that_is_refused_before_it_wrote_anything_claims_no_directory(run_directory):
    with pytest.raises(ConfigError):
        run_stage(train(), run_directory, refuse, resumable=True)
    assert not run_directory.exists()
    corrected = run_stage(train(beta=0.1), run_directory, Work())
    assert corrected.status == "ran"


def test_work_that_is_refused_later_keeps_what_it_wrote(run_directory):
    def late(directory):
        (directory / "train.log").write_text("one line")
        refuse(directory)

    with pytest.raises(ConfigError):
        run_stage(train(), run_directory, late, resumable=True)
    assert sorted(path.name for path in run_directory.iterdir()) == ["identity.json", "train.log"]
    with pytest.raises(StageError, match="grpo_beta"):
        run_stage(train(beta=0.1), run_directory, Work())
