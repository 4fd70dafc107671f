"""gc frees what nobody would find again, and nothing that no stage made, that somebody uses, or that lies elsewhere."""

import os
import time

import pytest
from stage_world import tree

from pipelines.stages import gc, locks
from pipelines.stages.gc import free, old_runs, reclaimable
from pipelines.stages.identity import Identity
from pipelines.stages.store import directory_for, run_stage, state

TEMPORARY = "manifest.json.4711-ab.grpo-tmp"


def identity(limit):
    return Identity("preprocess", 1, {"data": {"limit": limit}}, {})


def work(directory):
    (directory / "deep").mkdir()
    (directory / "deep" / "tokens.npy").write_text("0123456789")


def fail(directory):
    (directory / "half.npy").write_text("half")
    raise RuntimeError("power cut")


def unused(old):
    """Only limit 1 is in use."""
    return [] if old == identity(1) else ["data.limit: differs"]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "stages"
    for limit in (1, 2):
        run_stage(identity(limit), directory_for(root, identity(limit)), work)
    return root


def listed(root):
    return {item.path.name: item.reasons for item in reclaimable(root, unused)}


def an_hour_ago(*paths):
    for path in paths:
        os.utime(path, (time.time() - 2 * gc.SETTLED_SECONDS,) * 2, follow_symlinks=False)


def test_lists_what_is_not_in_use_with_size_age_and_reason(root):
    directory = directory_for(root, identity(2))
    an_hour_ago(directory)
    [item] = reclaimable(root, unused)
    assert (item.kind, item.stage, item.path) == ("entry", "preprocess", directory)
    assert item.reasons == ["data.limit: differs"]
    assert item.size_bytes == sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    assert item.age_seconds == pytest.approx(2 * gc.SETTLED_SECONDS, abs=60)


def test_listing_writes_nothing(root, tmp_path):
    run_stage(Identity("train", 1, {}, {}), tmp_path / "run", work)
    before = tree(tmp_path)
    listed(root)
    old_runs(tmp_path / "run")
    assert tree(tmp_path) == before


def test_free_removes_the_entry_and_no_other(root):
    [item] = reclaimable(root, unused)
    assert free(item)
    assert not item.path.exists()
    assert state(identity(1), directory_for(root, identity(1)), verify=True).status == "cached"
    assert listed(root) == {}
    assert run_stage(identity(2), item.path, work).status == "ran"


def test_interrupted_entries_can_go(root):
    entry = directory_for(root, identity(3))
    with pytest.raises(RuntimeError):
        run_stage(identity(3), entry, fail)
    assert listed(root) == {entry.name: ["started, not finished"], identity(2).key: ["data.limit: differs"]}


def test_an_entry_cut_off_before_it_was_claimed_can_go(root):
    empty, written = root / "preprocess" / "0123456789ab", root / "preprocess" / "0123456789ac"
    for entry in (empty, written):
        entry.mkdir()
    (written / TEMPORARY).write_text("{")
    assert {empty.name, written.name} <= set(listed(root))


def test_unreadable_entries_can_go(root):
    entry = directory_for(root, identity(1))
    (entry / "manifest.json").write_text("{")
    assert "manifest.json is not JSON" in listed(root)[entry.name][0]


def test_what_no_stage_made_stays(root):
    for path in (root / "preprocess" / "0123456789ab", root / "thesis" / "ba9876543210", root / "preprocess" / "mine"):
        path.mkdir(parents=True)
        (path / "thesis.tex").write_text("mine")
    assert set(listed(root)) == {identity(2).key}


def test_links_are_not_followed(root, tmp_path):
    """Neither a link to an entry, nor a link to a stage's directory, nor a link inside an entry leads to a loss."""
    outside = tmp_path / "outside"
    for place, limit in ((outside / "preprocess", 7), (outside / "eval", 8)):
        run_stage(identity(limit), place / identity(limit).key, work)
    (outside / "mine.txt").write_text("mine")
    (root / "preprocess" / identity(7).key).symlink_to(outside / "preprocess" / identity(7).key)
    (root / "eval").symlink_to(outside / "eval")
    (directory_for(root, identity(2)) / "link").symlink_to(outside)
    before = tree(outside)
    items = reclaimable(root, unused)
    assert [item.path.name for item in items] == [identity(2).key]
    assert items[0].size_bytes < 10_000
    assert all(map(free, items))
    assert tree(outside) == before


def test_a_store_that_is_a_link_itself_is_the_store(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    [item] = reclaimable(tmp_path / "link", unused)
    assert free(item)
    assert not directory_for(root, identity(2)).exists()


@pytest.mark.parametrize("use", [lambda entry: locks.hold(entry, "test"), locks.reading])
def test_what_somebody_works_in_or_reads_stays(root, use):
    entry = directory_for(root, identity(2))
    [item] = reclaimable(root, unused)
    with use(entry):
        assert listed(root) == {}
        assert not free(item)
    assert entry.exists()
    assert free(item)


def test_an_entry_that_was_finished_meanwhile_stays(root):
    entry = directory_for(root, identity(1))
    (entry / "manifest.json").unlink()
    [item] = [item for item in reclaimable(root, unused) if item.path == entry]
    run_stage(identity(1), entry, work)
    assert not free(item)
    assert state(identity(1), entry).status == "cached"


def test_old_temporary_files_can_go(root):
    kept = directory_for(root, identity(1))
    paths = [place / TEMPORARY for place in (root, root / "preprocess", kept)]
    for path in paths:
        path.write_text("{")
    assert TEMPORARY not in listed(root)
    an_hour_ago(*paths)
    items = [item for item in reclaimable(root, unused) if item.kind == "file"]
    assert [item.path for item in items] == paths
    assert all(map(free, items))
    assert not any(path.exists() for path in paths)
    assert state(identity(1), kept, verify=True).status == "cached"


def test_locks_of_entries_that_are_gone_can_go(root):
    [entry] = reclaimable(root, unused)
    free(entry)
    lock = locks.lock_path(entry.path)
    assert lock.exists()
    assert listed(root) == {}  # so young that somebody may be about to take it
    an_hour_ago(*lock.parent.glob("*"))
    with locks.reading(entry.path):
        assert listed(root) == {}
    [item] = reclaimable(root, unused)
    assert (item.kind, item.reasons) == ("locks", ["1 lock of entries that are gone"])
    assert free(item)
    assert not lock.exists()
    assert locks.lock_path(directory_for(root, identity(1))).exists()


def test_earlier_runs_are_told_and_freed_only_one_by_one(tmp_path):
    run = tmp_path / "outputs" / "run"
    for limit in (1, 2, 3):
        run_stage(identity(limit), run, work, fresh=True)
    for name in ("run.old-x", "run.old-9", "other.old-1"):
        (run.parent / name).mkdir()
        (run.parent / name / "thesis.tex").write_text("mine")
    (run.parent / "run.old-8").symlink_to(run)
    items = old_runs(run)
    assert [item.path.name for item in items] == ["run.old-1", "run.old-2"]
    assert {(item.kind, item.stage, *item.reasons) for item in items} == {("old run", "train", gc.EARLIER_RUN)}
    assert free(items[0])
    assert sorted(path.name for path in run.parent.glob("run*")) == [
        "run",
        "run.old-2",
        "run.old-8",
        "run.old-9",
        "run.old-x",
    ]
    assert state(identity(3), run).status == "cached"


def test_a_clock_that_was_set_back_makes_nothing_old(root):
    path = root / TEMPORARY
    path.write_text("{")
    tomorrow = time.time() + 86400
    os.utime(path, (tomorrow, tomorrow))
    os.utime(directory_for(root, identity(2)), (tomorrow, tomorrow))
    [item] = reclaimable(root, unused)
    assert (item.kind, item.age_seconds) == ("entry", 0.0)


def test_an_empty_or_missing_store_has_nothing(tmp_path):
    assert reclaimable(tmp_path, unused) == []
    assert reclaimable(tmp_path / "nowhere", unused) == []
    assert old_runs(tmp_path / "nowhere" / "run") == []
