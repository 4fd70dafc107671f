"""What only looks downloads nothing: it says what would be downloaded. The hub's own functions stand in for the hub."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from stage_world import tree

from grpo_cli.app import run

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
STAGES = ("preprocess", "train", "eval", "sample", "inspect-rewards")
MODEL = ("-s", "model.model_path=nobody/model")
COMMIT = "fedcba9876" * 4
DATA = ("-s", f"data={{loader_type: hf, hf_name: nobody/rows, hf_split: train, hf_revision: {COMMIT}}}")
REFERENCE = ("-s", "model.ref_model_path=nobody/older", "-s", "trainer.grpo_beta=0.1")
BENCHMARKS = ("-s", "evaluation=[{name: gsm8k}, {name: mcq, config: {hub: nobody/choices}}]")
TOLD = "would be downloaded from the hub: "


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The built-in model and a few rows, preprocessed."""
    place = tmp_path_factory.mktemp("hub")
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:8]))
    (place / "config.yaml").write_text("data: {train_path: rows.jsonl}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(["preprocess", "-q"]) == 0
    return place


@pytest.fixture
def asked(project, monkeypatch):
    """What was asked of the hub: nothing is in its cache, and whoever would fetch something fails."""
    requests = []

    def snapshot(repository, *, local_files_only=False, **_):
        if not local_files_only:
            requests.append(repository)
        raise LocalEntryNotFoundError("not in the cache")

    def load(name, *_, **__):
        requests.append(name)
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(project / "assets"))
    monkeypatch.chdir(project)
    return requests


@pytest.fixture
def told(asked, project, capsys):
    """Run a command that only looks: what it prints; it exits with 0, asks the hub for nothing and writes nothing."""

    def call(*arguments):
        before = tree(project)
        code = run(arguments)
        captured = capsys.readouterr()
        assert (code, asked, tree(project) == before) == (0, [], True), captured.err
        return captured.out + captured.err

    return call


@pytest.mark.parametrize("option", ["--dry-run", "--explain"])
@pytest.mark.parametrize("command", STAGES)
def test_a_model_that_is_not_here(told, command, option):
    assert f"{TOLD}nobody/model (revision main)" in told(command, option, *MODEL)


def test_a_model_for_given_prompts_and_completions(told, project):
    (project / "given.jsonl").write_text('{"prompt": "1+1=?", "completion": "2", "generated": "2"}\n')
    assert TOLD in told("sample", "--prompt", "1+1=?", "--explain", *MODEL)
    assert TOLD in told("inspect-rewards", "--completions", "given.jsonl", "--explain", *MODEL)


@pytest.mark.parametrize("command", ["preprocess", "train"])
def test_the_first_prompt_is_not_fetched_for_a_look(told, command):
    for extra, name in ((MODEL, "nobody/model (revision main)"), (DATA, f"nobody/rows[train] (revision {COMMIT})")):
        lines = told(command, "--dry-run", *extra).splitlines()
        prompt = next(n for n, line in enumerate(lines) if line.startswith("first prompt"))
        assert f"{TOLD}{name}" in "".join(lines[prompt:])
        json.loads(told(command, "--dry-run", "--json", *extra))


@pytest.mark.parametrize("command", STAGES)
def test_a_data_set_on_the_hub(told, command):
    assert f"{TOLD}nobody/rows[train] (revision {COMMIT})" in told(command, "--explain", *DATA)


def test_a_reference_that_is_not_here(told):
    rows = json.loads(told("train", "--explain", "--json", *REFERENCE))["stages"]
    found = [(row["stage"], row["status"]) for row in rows]
    assert found == [("preprocess", "cached"), ("train", "missing")]
    assert rows[1]["why"] == [f"{TOLD}nobody/older (revision main)"]


@pytest.mark.parametrize("extra", [(), ("-s", "data.max_prompt_len=63")], ids=["preprocessed", "not preprocessed"])
def test_benchmarks_on_the_hub(told, extra):
    found = told("eval", "--dry-run", *BENCHMARKS, *extra)
    assert f"{TOLD}openai/gsm8k/main/test (revision main)" in found
    assert f"{TOLD}nobody/choices/ARC-Challenge/test (revision main)" in found


def test_status_and_gc(told):
    run(["status", "-q"])  # it remembers digests
    assert f"{TOLD}nobody/model (revision main)" in told("status", *MODEL)
    assert f"{TOLD}nobody/rows[train] (revision {COMMIT})" in told("status", *DATA)
    told("gc", *MODEL)


def test_config_check_lists_all_of_it(told):
    found = told("config", "check", *MODEL, *DATA, *BENCHMARKS, "-s", "trainer.eval_every=5").splitlines()
    assert found[-4:] == [
        f"warning: model.model_path: {TOLD}nobody/model (revision main)",
        f"warning: data.hf_name: {TOLD}nobody/rows[train] (revision {COMMIT})",
        f"warning: evaluation.0: {TOLD}openai/gsm8k/main/test (revision main)",
        f"warning: evaluation.1: {TOLD}nobody/choices/ARC-Challenge/test (revision main)",
    ]


def test_who_works_does_ask_the_hub(asked, capsys):
    assert run(["preprocess", *MODEL]) == 2
    assert asked == ["nobody/model"]
    assert run(["eval", *BENCHMARKS]) == 2
    assert asked == ["nobody/model", "openai/gsm8k", "nobody/choices"]
    assert "cannot be fetched from the hub" in capsys.readouterr().err
