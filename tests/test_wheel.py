"""What is installed: the wheel holds two packages and their data, and works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = {"arithmetic/train.jsonl", "arithmetic/val.jsonl", "tiny-model/config.json", "tiny-model/model.safetensors"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def test_top_level_is_two_packages_and_metadata(unpacked):
    names = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"grpo_cli", "pipelines"}


def test_bundled_data_travels_inside(unpacked):
    bundled = unpacked / "pipelines" / "_bundled"
    found = {path.relative_to(bundled).as_posix() for path in bundled.rglob("*") if path.is_file()}
    assert found >= BUNDLED
    assert sum(path.stat().st_size for path in bundled.rglob("*") if path.is_file()) < 6 * 2**20


def test_every_source_file_is_in_the_wheel(unpacked):
    for package in ("grpo_cli", "pipelines"):
        here = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if p.suffix in (".py", ".yaml")}
        there = {p.relative_to(unpacked) for p in (unpacked / package).rglob("*") if p.suffix in (".py", ".yaml")}
        assert here <= there


def test_an_installed_copy_finds_its_data(unpacked, tmp_path):
    """Run from an empty directory with only the unpacked wheel on the path."""
    script = "import pipelines.bundled as b; print(b.__file__); print(b.bundled('arithmetic'), b.bundled('tiny-model'))"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    module, directories = done.stdout.splitlines()
    assert module == str(unpacked / "pipelines" / "bundled.py")
    assert directories.count(str(unpacked / "pipelines" / "_bundled")) == 2


def test_the_installed_command_line_answers(unpacked, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-m", "grpo_cli", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "preprocess" in done.stdout
