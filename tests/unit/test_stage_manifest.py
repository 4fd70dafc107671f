"""The manifest lists what a stage wrote, and nothing else decides the digest that later stages see."""

import json
import math
import shutil
import subprocess
import sys

import pytest

from pipelines.errors import StageError
from pipelines.stages import manifest
from pipelines.stages.identity import Identity, write_identity

IDENTITY = Identity("preprocess", 1, {"limit": 3}, {"data": "0" * 64})


@pytest.fixture
def directory(tmp_path):
    entry = tmp_path / "entry"
    (entry / "deep" / "er").mkdir(parents=True)
    write_identity(IDENTITY, entry)
    (entry / "a.npy").write_bytes(b"array")
    (entry / "deep" / "er" / "b.txt").write_text("text")
    (entry / "train.log").write_text("line\n")
    return entry


def complete(directory, identity=IDENTITY, **options):
    return manifest.complete(directory, identity, summary={}, seconds=1.0, **options)


def test_lists_every_output_and_neither_of_our_own_files(directory):
    (directory / "identity.json.123-ab.grpo-tmp").write_text("left over")
    complete(directory)
    record = complete(directory)
    assert [file.path for file in record.files] == ["a.npy", "deep/er/b.txt", "train.log"]
    assert record.files[0].size_bytes == 5


def test_nested_manifests_belong_to_the_outputs(directory):
    (directory / "deep" / "manifest.json").write_text("{}")
    assert "deep/manifest.json" in [file.path for file in complete(directory).files]


def test_unrecorded_patterns_are_left_out(directory):
    record = complete(directory, unrecorded=["*.log", "deep/*"])
    assert [file.path for file in record.files] == ["a.npy"]


def test_reads_back_what_it_wrote(directory):
    assert manifest.read(directory) is None
    written = complete(directory)
    assert manifest.read(directory) == written


def test_summary_is_kept_as_json_can(directory):
    summary = {"rows": 3, "loss": math.nan, "best": {"reward": math.inf}, "path": directory, "shape": (1, 2)}
    record = manifest.complete(directory, IDENTITY, summary=summary, seconds=0.0)
    assert record.summary == {
        "rows": 3,
        "loss": None,
        "best": {"reward": None},
        "path": str(directory),
        "shape": [1, 2],
    }
    assert manifest.read(directory) == record


def test_outputs_digest_sees_contents_and_names_only(directory):
    before = complete(directory).outputs_digest
    other = Identity("preprocess", 2, {"limit": 4}, {})
    again = manifest.complete(directory, other, summary={"rows": 9}, seconds=9.0)
    assert again.outputs_digest == before
    (directory / "a.npy").write_bytes(b"ARRAY")
    assert complete(directory).outputs_digest != before
    (directory / "a.npy").write_bytes(b"array")
    (directory / "a.npy").rename(directory / "c.npy")
    assert complete(directory).outputs_digest != before


def test_damages_name_file_and_reason(directory):
    record = complete(directory)
    assert manifest.damages(directory, record, verify=True) == []
    (directory / "a.npy").write_bytes(b"arr")
    (directory / "train.log").unlink()
    (directory / "deep" / "er" / "b.txt").write_text("tixt")
    assert manifest.damages(directory, record) == ["a.npy: 3 bytes instead of 5", "train.log: gone"]
    assert "deep/er/b.txt: content changed (sha256 differs)" in manifest.damages(directory, record, verify=True)


def test_a_folder_that_is_gone_is_one_line(directory):
    (directory / "deep" / "c.txt").write_text("text")
    record = complete(directory)
    shutil.rmtree(directory / "deep" / "er")
    assert manifest.damages(directory, record) == ["deep/er: gone"]
    shutil.rmtree(directory / "deep")
    assert manifest.damages(directory, record, verify=True) == ["deep: gone"]


@pytest.mark.parametrize("damage", ["", "{}", "[]", "7", '{"format": 99}', '{"format": 1, "files": 3}'])
def test_a_damaged_manifest_is_an_error(directory, damage):
    (directory / "manifest.json").write_text(damage)
    with pytest.raises(StageError, match=r"manifest\.json"):
        manifest.read(directory)


def test_versions_and_code_are_recorded(directory):
    record = complete(directory)
    stored = json.loads((directory / "manifest.json").read_text())
    assert stored["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"grpo", "numpy"} <= set(record.versions)
    assert record.code == manifest.code_digest()
    assert len(record.code) == 64


def test_recording_versions_imports_none_of_them():
    script = (
        "import sys\nfrom pipelines.stages import manifest, store\nmanifest.versions()\n"
        "print([m for m in ('numpy', 'mlx', 'transformers', 'datasets', 'sklearn', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
