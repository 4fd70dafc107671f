"""Digests are of content; the cache saves reading and is never believed against the file."""

import hashlib
import json
import os
import time

import pytest

from pipelines.errors import StageError
from pipelines.stages import digest
from pipelines.stages.digest import CACHE_FILE, DigestCache

LONG_AGO = time.time_ns() - 3600 * 10**9


@pytest.fixture(autouse=True)
def _settled_at_once(monkeypatch):
    """Change times cannot be set back, so let files count as settled when they are written."""
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -3600.0)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remembered(root):
    return json.loads((root / CACHE_FILE).read_text())["files"]


def poison(root, value="f" * 64):
    """A cache that lies: whoever returns this did not read the file."""
    record = json.loads((root / CACHE_FILE).read_text())
    for entry in record["files"].values():
        entry["sha256"] = value
    (root / CACHE_FILE).write_text(json.dumps(record))


def test_of_file_is_sha256(weights):
    assert digest.of_file(weights) == sha256(weights)


def test_of_tree_depends_on_names_and_contents_not_on_places(tmp_path, weights):
    copy = tmp_path / "elsewhere.bin"
    copy.write_bytes(weights.read_bytes())
    assert digest.of_tree({"a": weights}) == digest.of_tree({"a": copy})
    assert digest.of_tree({"a": weights}) != digest.of_tree({"b": weights})
    copy.write_bytes(b"other")
    assert digest.of_tree({"a": weights}) != digest.of_tree({"a": copy})


def test_unchanged_file_is_not_read_again(tmp_path, weights):
    first = DigestCache(tmp_path)
    first.of_file(weights)
    first.save()
    poison(tmp_path)
    assert DigestCache(tmp_path).of_file(weights) == "f" * 64


def test_a_cache_that_is_not_believed_reads_and_is_mended(tmp_path, weights):
    """What a file's stamp cannot tell, such as a failing disk, `status --verify` finds out."""
    cache = DigestCache(tmp_path)
    cache.of_file(weights)
    cache.save()
    poison(tmp_path)
    doubting = DigestCache(tmp_path, believe=False)
    assert doubting.of_file(weights) == sha256(weights)
    doubting.save()
    assert DigestCache(tmp_path).of_file(weights) == sha256(weights)


@pytest.mark.parametrize("change", ["content", "size", "time", "inode"])
def test_changed_file_is_read_again(tmp_path, weights, change):
    cache = DigestCache(tmp_path)
    cache.of_file(weights)
    cache.save()
    poison(tmp_path)
    stamp = weights.stat()
    if change == "content":  # same size, and a time stamp put back: the change time still tells
        weights.write_bytes(b"WEIGHTS" * 1000)
        os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif change == "size":
        weights.write_bytes(b"short")
    elif change == "time":
        os.utime(weights, ns=(LONG_AGO, LONG_AGO))
    else:
        replacement = tmp_path / "new"
        replacement.write_bytes(weights.read_bytes())
        replacement.replace(weights)
    assert DigestCache(tmp_path).of_file(weights) == sha256(weights)


def test_young_file_is_not_remembered(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED_SECONDS", 3600.0)
    cache = DigestCache(tmp_path)
    cache.of_file(weights)
    cache.save()
    assert not (tmp_path / CACHE_FILE).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"format": 1, "files": []}', b'{"format": 7, "files": {}}', b"null"],
)
def test_corrupt_cache_is_rebuilt(tmp_path, weights, content):
    (tmp_path / CACHE_FILE).write_bytes(content)
    cache = DigestCache(tmp_path)
    assert cache.of_file(weights) == sha256(weights)
    cache.save()
    assert remembered(tmp_path)[str(weights)]["sha256"] == sha256(weights)


@pytest.mark.parametrize("entry", [7, {}, {"stamp": [1], "sha256": "f" * 64}, {"stamp": [1, 2, 3, 4], "sha256": "no"}])
def test_corrupt_entry_is_dropped(tmp_path, weights, entry):
    (tmp_path / CACHE_FILE).write_text(json.dumps({"format": 1, "files": {str(weights): entry}}))
    assert DigestCache(tmp_path).of_file(weights) == sha256(weights)


def test_two_caches_keep_what_both_learnt(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    caches = [DigestCache(tmp_path), DigestCache(tmp_path)]
    for path, cache in zip(paths, caches, strict=True):
        path.write_text(path.name)
        cache.of_file(path)
    for cache in caches:
        cache.save()
    assert set(remembered(tmp_path)) == {str(path) for path in paths}


def test_files_that_are_gone_are_forgotten(tmp_path, weights):
    cache = DigestCache(tmp_path)
    cache.of_file(weights)
    cache.save()
    weights.unlink()
    other = tmp_path / "other"
    other.write_text("x")
    cache.of_file(other)
    cache.save()
    assert set(remembered(tmp_path)) == {str(other)}


def test_one_entry_for_a_link_and_its_target(tmp_path, weights):
    link = tmp_path / "link"
    link.symlink_to(weights)
    cache = DigestCache(tmp_path)
    assert cache.of_file(link) == cache.of_file(weights)
    cache.save()
    assert set(remembered(tmp_path)) == {str(weights)}


def test_store_that_cannot_be_written_remembers_nothing_and_works(weights):
    cache = DigestCache(weights / "store")  # below a file: nothing can be made there, not even by root
    assert cache.of_file(weights) == sha256(weights)
    cache.save()
    assert cache.of_file(weights) == sha256(weights)


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.mkdir()])
def test_unreadable_is_a_stage_error(tmp_path, make):
    path = tmp_path / "gone"
    make(path)
    for cache in (None, DigestCache(tmp_path)):
        with pytest.raises(StageError, match="gone"):
            digest.of_file(path, cache)
