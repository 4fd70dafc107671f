"""gc frees what nobody would find again, and nothing that no stage made or that somebody works in."""

import pytest

from pipelines.stages import locks
from pipelines.stages.gc import Reclaimable, free, reclaimable
from pipelines.stages.identity import Identity
from pipelines.stages.store import directory_for, run_stage, state


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
    for limit in (1, 2):
        run_stage(identity(limit), directory_for(tmp_path, identity(limit)), work)
    return tmp_path


def listed(root):
    return {item.directory.name: item.reasons for item in reclaimable(root, unused)}


def test_lists_what_is_not_in_use_with_size_and_reason(root):
    (item,) = reclaimable(root, unused)
    directory = directory_for(root, identity(2))
    assert (item.stage, item.directory, item.reasons) == ("preprocess", directory, ["data.limit: differs"])
    assert item.size_bytes == sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_listing_touches_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    listed(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_free_removes_the_entry_and_no_other(root):
    (item,) = reclaimable(root, unused)
    assert free(item)
    assert not item.directory.exists()
    assert state(identity(1), directory_for(root, identity(1)), verify=True).status == "cached"
    assert listed(root) == {}
    assert run_stage(identity(2), item.directory, work).status == "ran"


def test_interrupted_entries_can_go(root):
    entry = directory_for(root, identity(3))
    with pytest.raises(RuntimeError):
        run_stage(identity(3), entry, fail)
    assert listed(root) == {entry.name: ["started, not finished"], identity(2).key: ["data.limit: differs"]}


def test_unreadable_entries_can_go(root):
    entry = directory_for(root, identity(1))
    (entry / "manifest.json").write_text("{")
    assert "manifest.json is not JSON" in listed(root)[entry.name][0]


def test_what_no_stage_made_stays(root):
    for path in (root / "preprocess" / "0123456789ab", root / "thesis" / "ba9876543210", root / "preprocess" / "mine"):
        path.mkdir(parents=True)
        (path / "thesis.tex").write_text("mine")
    assert set(listed(root)) == {identity(2).key}


def test_work_in_progress_stays(root):
    entry = directory_for(root, identity(2))
    item = Reclaimable("preprocess", entry, 0, [])
    with locks.hold(entry, "test"):
        assert listed(root) == {}
        assert not free(item)
    assert entry.exists()


def test_an_empty_or_missing_store_has_nothing(tmp_path):
    assert reclaimable(tmp_path, unused) == []
    assert reclaimable(tmp_path / "nowhere", unused) == []
