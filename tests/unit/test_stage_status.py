"""What status says of a pipeline, stage by stage and request by request, and what it does not object to."""

import shutil
from pathlib import Path

import pytest
from stage_world import ask, changed, make_checkpoint, make_config, make_rows, preprocess, train, tree

from pipelines import plan
from pipelines.config import EvaluationConfig, ExperimentConfig
from pipelines.stages import manifest, requests
from pipelines.stages.identity import read_sealed, write_sealed
from pipelines.status import needs_work, pipeline_status, unused


@pytest.fixture
def config(tmp_path, monkeypatch) -> ExperimentConfig:
    monkeypatch.chdir(tmp_path)
    return make_config(tmp_path)


def table(config):
    return {state.stage: (state.status, state.reasons) for state in pipeline_status(config)}


def asked(config, stage="eval"):
    """Each request of a stage with what there is of it."""
    return {state.asked: state.status for state in pipeline_status(config) if state.stage == stage}


def stale(config):
    return {words for words, status in asked(config).items() if status == "stale"}


def behind(config):
    return [state.stage for state in needs_work(pipeline_status(config))]


def test_before_anything(config):
    found = table(config)
    assert list(found) == list(plan.STAGES)
    assert found["preprocess"] == ("missing", ["never ran"])
    assert found["train"] == ("missing", ["waits for preprocess"])
    assert found["eval"][0] == "missing"
    assert behind(config) == ["preprocess", "train"]
    assert not Path(config.paths.stages).exists()


def test_a_finished_pipeline(config):
    preprocess(config)
    assert table(config)["train"] == ("missing", ["never ran"])
    train(config)
    assert [table(config)[stage] for stage in ("preprocess", "train")] == [("cached", []), ("cached", [])]
    assert behind(config) == []


def test_what_changed(config):
    preprocess(config)
    train(config)
    assert table(changed(config, "trainer.grpo_beta", 0.04))["train"] == (
        "stale",
        ["trainer.grpo_beta: 0.0 -> 0.04"],
    )
    both = changed(changed(config, "trainer.grpo_beta", 0.04), "data.limit", 7)
    assert table(both)["preprocess"] == ("stale", ["data.limit: null -> 7"])
    assert table(both)["train"] == ("stale", ["waits for preprocess", "trainer.grpo_beta: 0.0 -> 0.04"])
    assert behind(both) == ["preprocess", "train"]


def test_missing_inputs_are_told(config):
    preprocess(config)
    train(config)
    gone = changed(config, "data.train_path", "gone.jsonl")
    assert table(gone)["preprocess"] == ("stale", ["data.train_path: there is nothing at gone.jsonl"])
    assert table(gone)["train"] == ("stale", ["waits for preprocess"])
    nowhere = changed(config, "model.model_path", "./gone")
    assert table(nowhere)["train"][0] == "stale"


# Requests: what was asked for is asked again, in the same words.


def test_evaluations_count_once_they_exist(config):
    preprocess(config)
    train(config)
    ask(config, "eval", request={"samples": 4})
    assert table(config)["eval"] == ("cached", [])
    hotter = changed(config, "generation.temperature", 0.5)
    assert table(hotter)["eval"] == ("stale", ["generation.temperature: 1.0 -> 0.5"])
    assert behind(hotter) == ["train", "eval"]


def test_a_new_checkpoint_makes_an_evaluation_of_the_newest_stale(config):
    preprocess(config)
    ask(config, "eval", "last")
    make_checkpoint(config, 10)
    status, reasons = table(config)["eval"]
    assert status == "stale"
    assert any(line.startswith("inputs.checkpoint: (absent) -> ") for line in reasons)


def test_each_model_that_was_asked_has_a_line(config):
    """The starting model, a directory and the best stay what they were when the run goes on; the newest does not."""
    preprocess(config)
    first = make_checkpoint(config, 10, reward=0.9)
    for of in ("last", "base", "best", str(first)):
        ask(config, "eval", of, benchmark="exact_match", request={"limit": 50})
    found = asked(config)
    assert found == dict.fromkeys((f"{of}: exact_match, limit=50" for of in ("last", "base", "best", first)), "cached")
    make_checkpoint(config, 20, reward=0.5)
    assert stale(config) == {"last: exact_match, limit=50"}
    make_checkpoint(config, 30, reward=1.0)
    assert stale(config) == {"last: exact_match, limit=50", "best: exact_match, limit=50"}


def test_of_a_model_and_a_benchmark_the_newest_request_counts(config):
    preprocess(config)
    ask(config, "eval", benchmark="exact_match", request={"limit": 50})
    ask(config, "eval", benchmark="exact_match", request={})
    assert asked(config) == {"last: exact_match": "cached"}
    ask(config, "eval", benchmark="exact_match", request={"limit": 50})  # found, and asked for last
    assert asked(config) == {"last: exact_match, limit=50": "cached"}
    ask(config, "eval", benchmark="other", request={})
    assert set(asked(config)) == {"last: other", "last: exact_match, limit=50"}


def test_one_result_may_answer_several_requests(config):
    """The newest checkpoint by its name is the same result, and no other once there is a newer one."""
    preprocess(config)
    step = make_checkpoint(config, 10)
    entries = {ask(config, "eval", of).directory for of in ("last", str(step))}
    assert len(entries) == 1
    make_checkpoint(config, 20)
    assert asked(config) == {"last": "stale", str(step): "cached"}


def test_a_checkpoint_that_is_gone_is_nothing_to_object_to(config):
    preprocess(config)
    train(config)
    step = make_checkpoint(config, 10)
    ask(config, "eval", str(step))
    shutil.rmtree(step)
    state = pipeline_status(config)[2]
    assert (state.status, state.asked) == ("missing", str(step))
    assert "there is no checkpoint directory" in state.reasons[0]
    assert behind(config) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 1, "requests": [7]}', '{"format": 9}', "7"])
def test_a_lost_note_is_guessed_from_the_result(config, content):
    preprocess(config)
    note = ask(config, "eval", "base").directory / requests.REQUESTS_FILE
    note.unlink() if content is None else note.write_text(content)
    make_checkpoint(config, 10)
    assert asked(config) == {"base": "cached"}
    note = ask(config, "eval", "last").directory / requests.REQUESTS_FILE
    note.unlink()
    assert asked(config) == {"base": "cached", "last": "cached"}


def test_samples_and_inspections(config):
    preprocess(config)
    ask(config, "sample", "base", request={"samples": 2, "rows": 4, "temperature": None})
    ask(config, "sample", "base", request={"prompts": "f" * 64}, rows=False, also=["data.system_prompt"])
    ask(config, "inspect-rewards", "base", request={"source": "gold", "rows": 200}, weights=False)
    ask(config, "inspect-rewards", "base", request={"source": "samples", "samples": 2, "rows": 50})
    make_checkpoint(config, 10)
    assert asked(config, "sample") == {"base: given prompts": "cached"}
    assert asked(config, "inspect-rewards") == {
        "gold, rows=200": "cached",
        "base: samples, rows=50, samples=2": "cached",
    }


def test_settings_of_a_request_are_those_of_today(config):
    """A system prompt goes into prompts that were given, so another one makes their samples stale; and only theirs."""
    preprocess(config)
    ask(config, "sample", "base", request={"prompts": "f" * 64}, rows=False, also=["data.system_prompt"])
    polite = changed(config, "data.system_prompt", "please")
    preprocess(polite)
    assert table(polite)["sample"] == ("stale", ['data.system_prompt: null -> "please"'])
    benchmarked = changed(config, "evaluation", (EvaluationConfig(name="exact_match", config={"limit": 3}),))
    assert table(benchmarked)["sample"] == ("cached", [])


def test_files_of_a_request_count_while_they_are_there(config, tmp_path):
    texts = make_rows(tmp_path / "texts.jsonl")
    ask(config, "inspect-rewards", request={"source": "completions"}, files={"completions": texts}, rows=False)
    assert table(config)["inspect-rewards"] == ("cached", [])
    texts.write_text("other texts")
    status, [line] = table(config)["inspect-rewards"]
    assert (status, line.split(":")[0]) == ("stale", "inputs.file.completions")
    texts.unlink()
    assert table(config)["inspect-rewards"] == ("cached", [])


# What is no reason to do anything again.


def test_other_versions_and_other_code_are_a_note(config):
    directory = preprocess(config).directory
    assert pipeline_status(config)[0].note == ""
    record = read_sealed(directory / "manifest.json")
    record["versions"] |= {"mlx": "0.1", "gone": "7"}
    write_sealed(directory / "manifest.json", record | {"code": "0" * 64})
    state = pipeline_status(config)[0]
    now = manifest.versions()["mlx"]
    assert (state.status, state.reasons) == ("cached", [])
    assert state.note == f"made with mlx 0.1 (now {now}), gone 7 (now absent), other code of grpo"
    assert state.lines == [f"note: {state.note}"]


def test_looking_changes_no_stage(config, tmp_path):
    preprocess(config)
    train(config)
    ask(config, "eval")
    before = tree(tmp_path)
    pipeline_status(config, verify=True)
    assert tree(tmp_path) == before


def test_unused_entries(config):
    preprocess(config)
    ask(config, "eval")
    old, tokens = plan.asked_identity("eval", config), plan.preprocess_identity(config)
    assert unused(config)(old) == []
    assert unused(config)(tokens) == []
    limited = changed(config, "data.limit", 7)
    assert unused(limited)(tokens) == ["data.limit: null -> 7"]
    assert unused(limited)(old) == []  # nobody knows yet whether the tokens change
    preprocess(limited, "fewer tokens")
    assert [line.split(":")[0] for line in unused(limited)(old)] == ["inputs.preprocess"]
    hotter = changed(config, "generation.temperature", 0.5)
    assert unused(hotter)(old) == ["generation.temperature: 1.0 -> 0.5"]
    for key in ("data.train_path", "model.model_path"):
        assert unused(changed(config, key, "./gone.jsonl"))(tokens) == []  # nobody can tell
