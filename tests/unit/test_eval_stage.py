"""`grpo eval` on a real (blank) model: scored once, compared item by item, and the document's example."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
import yaml

from grpo_cli.app import run
from pipelines import evaluate, plan, preprocess
from pipelines.config import CheckpointingConfig, ModelConfig, load
from pipelines.errors import CheckpointError, ConfigError, DataError, ModelError, StageError
from pipelines.evaluation.base import Sources
from pipelines.evaluation.registry import EvaluatorRegistry
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.models.load import load as load_model
from pipelines.models.load import load_tokenizer
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.save import save_adapter
from pipelines.models.tiny import write_blank
from pipelines.stages.identity import write_identity
from pipelines.status import pipeline_status
from pipelines.training.checkpoint_files import seal

ROWS = 24
DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-an-evaluator.md"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two blank models: the one a run starts from, and a checkpoint that differs."""
    directory = tmp_path_factory.mktemp("models")
    write_blank(directory / "start", seed=0)
    write_blank(directory / "trained", seed=1)
    return directory


@pytest.fixture
def workplace(tmp_path, monkeypatch, models):
    """An empty working directory with data and a configuration."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i}+1=?", "completion": f"<think>{i}</think>{i + 1}"} for i in range(2 * ROWS)]
    for name, part in {"train": rows[ROWS:], "val": rows[:ROWS]}.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    settings = {
        "model": {"model_path": str(models / "start")},
        "data": {"train_path": "train.jsonl", "val_path": "val.jsonl", "max_gen_len": 6},
    }
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.fixture
def config(workplace):
    loaded = load().config
    preprocess.run(loaded)
    return loaded


def grpo(*arguments):
    command = [Path(sys.executable).with_name("grpo"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})


def test_a_score_is_computed_once(config):
    (first,) = evaluate.run(config)
    assert first.score.result.status == "ran"
    assert first.score.metrics["n"] == ROWS
    (again,) = evaluate.run(config)
    assert again.score.result.status == "cached"
    assert again.score.metrics == first.score.metrics
    (forced,) = evaluate.run(config, force=True)
    assert forced.score.result.status == "ran"
    assert forced.score.metrics == first.score.metrics


def test_items_hold_what_happened(config):
    (found,) = evaluate.run(config)
    lines = (found.score.result.directory / "items.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["item"] for record in records] == list(range(ROWS))
    assert records[3]["prompt"] == "3+1=?"
    assert records[3]["expected"] == "4"
    assert found.score.metrics["accuracy"] == sum(record["correct"] for record in records) / ROWS


def test_settings_and_models_have_scores_of_their_own(config, models):
    trained = Target("trained", models / "trained")
    requests = [{}, {"settings": {"limit": 5}}, {"settings": {"samples": 2}}, {"target": trained}]
    directories = {evaluate.run(config, **request)[0].score.result.directory for request in requests}
    assert len(directories) == len(requests)
    assert evaluate.run(config, settings={"limit": 5})[0].score.metrics["n"] == 5


def test_the_baseline_is_the_earlier_score_of_the_starting_model(config, models):
    (before,) = evaluate.run(config)
    trained = Target("trained", models / "trained")
    (found,) = evaluate.run(config, target=trained, baseline=True)
    assert found.baseline.result.status == "cached"
    assert found.baseline.metrics == before.score.metrics
    difference = found.difference
    assert difference.difference == pytest.approx(found.score.metrics["accuracy"] - before.score.metrics["accuracy"])
    assert difference.wins + difference.losses + difference.ties == ROWS
    (alone,) = evaluate.run(config, target=STARTING_MODEL, baseline=True)
    assert alone.baseline is None


def test_states_say_what_would_happen(config):
    ((name, model, state),) = evaluate.states(config)
    assert (name, model, state.status) == ("exact_match", "base", "missing")
    evaluate.run(config)
    assert evaluate.states(config)[0][2].status == "cached"


def test_without_preprocessed_rows_it_says_so(workplace):
    with pytest.raises(StageError, match="preprocess"):
        evaluate.run(load().config)


def test_a_benchmark_named_twice_in_the_configuration_is_refused(config):
    twice = config.model_copy(update={"evaluation": config.evaluation * 2})
    with pytest.raises(ConfigError, match="twice"):
        evaluate.run(twice)


def test_the_documents_example_runs(workplace):
    python, settings, measuring = re.findall(r"```(?:python|yaml)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    Path("capitals.py").write_text(python)
    Path("surprise.py").write_text(measuring)
    entries = "  - {name: surprise, config: {path: capitals.jsonl}}\n"
    Path("evaluators.yaml").write_text(settings.replace("[capitals.py]", "[capitals.py, surprise.py]") + entries)
    Path("capitals.jsonl").write_text(
        '{"prompt": "France?", "completion": "Paris"}\n{"prompt": "Peru?", "completion": "Lima"}\n'
    )
    loaded = load(["config.yaml", "evaluators.yaml"]).config
    preprocess.run(loaded)
    found = {each.score.benchmark: each.score for each in evaluate.run(loaded)}
    assert found["capitals"].metrics["n"] == 2
    assert found["exact_match"].metrics["n"] == ROWS
    assert found["surprise"].metrics["log_likelihood"] < 0
    Path("capitals.jsonl").write_text('{"prompt": "France?", "completion": "Paris"}\n')
    (again,) = evaluate.run(loaded, benchmarks=["capitals"])
    assert (again.score.result.status, again.score.metrics["n"]) == ("ran", 1)


def test_the_command_prints_a_table_or_json_and_says_which_model(config, models):
    told = grpo("eval", "--checkpoint", str(models / "trained"), "--baseline")
    assert told.returncode == 0, told.stderr
    assert f"checkpoint {models / 'trained'}" in told.stderr
    assert [line.split()[1] for line in told.stdout.splitlines()[1:3]] == ["base", "trained"]
    assert "trained against base" in told.stdout
    read = grpo("eval", "--checkpoint", str(models / "trained"), "--baseline", "--json")
    record = json.loads(read.stdout)
    assert record["status"] == record["baseline"]["status"] == "cached"
    assert {"difference", "low", "high", "wins", "losses", "ties"} == record["difference"].keys()
    assert record["n"] == record["baseline"]["n"] == ROWS


def test_the_command_refuses_with_two_lines(config):
    unknown = grpo("eval", "--benchmark", "exact_mach")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "did you mean 'exact_match'?" in unknown.stderr
    assert grpo("eval", "--checkpoint", "nowhere").returncode == 2
    none = grpo("eval", "--limit", "0")
    assert none.returncode == 2
    assert none.stderr.startswith("error: Invalid value for '--limit'")


def test_a_checkpoint_whose_content_changed_is_not_scored(config, models):
    """One bit of the weights: no size tells it, the digest does; without `verify` nobody looks."""
    directory = Path(shutil.copytree(models / "trained", "step_000001"))
    seal(directory, 1, {}, "reward", None)
    assert evaluate.run(config, target=Target("intact", directory))
    weights = directory / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="step_000001 is damaged: model"):
        evaluate.run(config, target=Target("flipped", directory))
    trusting = config.model_copy(update={"checkpointing": CheckpointingConfig(verify=False)})
    assert evaluate.run(trusting, target=Target("flipped", directory))


def test_a_benchmark_that_cannot_be_run_leaves_the_others_their_scores(config, capsys):
    """The one in the middle fails: what stands before and behind it is scored, printed and kept."""
    Path("rows.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    entries = [{"name": "exact_match"}, {"name": "mcq", "config": {"path": "nowhere.jsonl"}}]
    entries += [{"name": "gsm8k", "config": {"path": "rows.jsonl"}}, {"name": "perplexity"}]
    with pytest.raises(DataError, match="nowhere"):
        evaluate.run(load(overrides=[f"evaluation={json.dumps(entries)}"]).config)
    asked = ["eval", "--batch", "5", "--set", f"evaluation={json.dumps(entries)}"]
    assert run([*asked, "-q"]) == 2
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:4]] == ["exact_match", "gsm8k", "perplexity"]
    assert "gsm8k, base: lenient 0 (0 to " in told.out
    assert "perplexity, base: perplexity " in told.out
    assert told.err.splitlines()[0] == "error: mcq: there is no file nowhere.jsonl"
    assert run([*asked, "--json"]) == 2
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["status"] for record in records] == ["cached"] * 3


def test_of_several_failures_each_is_told(config, capsys):
    entries = [{"name": name, "config": {"path": f"{name}.jsonl"}} for name in ("mcq", "gsm8k")]
    assert run(["eval", "-q", "--set", f"evaluation={json.dumps(entries)}"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [line for line in told.err.splitlines() if line.startswith("error:")] == [
        "error: mcq: there is no file mcq.jsonl",
        "error: gsm8k: there is no file gsm8k.jsonl",
    ]


def test_what_an_option_does_not_concern_is_told(config, capsys):
    assert run(["eval", "-q", "--benchmark", "perplexity", "--benchmark", "exact_match", "--samples", "2"]) == 0
    told = capsys.readouterr()
    assert told.err == "warning: perplexity decodes no completions: --samples changes nothing there\n"
    assert [line.split()[0] for line in told.out.splitlines()[1:3]] == ["perplexity", "exact_match"]


def test_a_perplexity_is_compared_by_log_probabilities(config, models, capsys):
    assert run(["eval", "-q", "--benchmark", "perplexity", "--checkpoint", str(models / "trained"), "--baseline"]) == 0
    assert "perplexity: trained against base " in capsys.readouterr().out
    trained = Target("trained", models / "trained")
    (found,) = evaluate.run(config, target=trained, benchmarks=["perplexity"], baseline=True)
    scores = [found.baseline.by_item(), found.score.by_item()]
    assert found.difference.difference == pytest.approx(sum(scores[1].values()) / ROWS - sum(scores[0].values()) / ROWS)


def test_a_checkpoint_of_the_run_is_found_and_other_settings_are_told(config, models):
    checkpoint = Path(config.trainer.output_dir) / config.checkpointing.checkpoint_dir / "step_000003"
    shutil.copytree(models / "trained", checkpoint)
    (checkpoint / "manifest.json").write_text('{"files": []}')
    write_identity(plan.train_identity(config), Path(config.trainer.output_dir))
    assert evaluate.trained_otherwise(config) == []
    told = grpo("eval", "--limit", "2", "--set", "trainer.grpo_beta=0.5")
    assert told.returncode == 0, told.stderr
    assert "eval: checkpoint outputs/run/checkpoints/step_000003" in told.stderr
    assert "trainer.grpo_beta: 0.0 -> 0.5" in told.stderr
    assert "step_000003" in told.stdout
    base = grpo("eval", "--limit", "2", "--checkpoint", "base")
    assert f"the starting model, {models / 'start'}" in base.stderr


def test_damaged_weights_are_told_and_leave_no_score(config, models, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(models / "trained", damaged)
    os.truncate(damaged / "model.safetensors", 5_000)
    with pytest.raises(ModelError, match="cannot be loaded"):
        evaluate.run(config, target=Target("damaged", damaged))
    assert evaluate.states(config, target=Target("damaged", damaged))[0][2].status == "partial"


def test_dry_run_names_what_would_run(workplace):
    waiting = grpo("eval", "--dry-run", "--json")
    first, score = map(json.loads, waiting.stdout.splitlines())
    assert (first["stage"], score["stage"], score["reasons"]) == ("preprocess", "eval", ["waits for preprocess"])
    preprocess.run(load().config)
    ready = [json.loads(line) for line in grpo("eval", "--dry-run", "--json").stdout.splitlines()]
    assert [(each["stage"], each["status"]) for each in ready] == [("preprocess", "cached"), ("eval", "missing")]


def test_adapters_are_scored_on_the_model_below_them(config, models, tmp_path):
    settings = ModelConfig(use_lora=True, lora_rank=2)
    loaded = load_model(str(models / "start"))
    apply_lora(loaded.model, settings, seed=0)
    for _, module in lora_modules(loaded.model):
        module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(1))
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", loaded.model, settings, str(models / "start"))
    adapted = Target("adapter", tmp_path / "adapter")
    tokens = mx.array([[4, 9, 10, 5]])
    loaded.model.eval()
    again = adapted.load(config)
    assert mx.allclose(again.model(tokens), loaded.model(tokens), atol=1e-5).item()
    assert not mx.allclose(again.model(tokens), STARTING_MODEL.load(config).model(tokens), atol=1e-2).item()
    (found,) = evaluate.run(config, target=adapted, baseline=True)
    assert found.score.result.directory != found.baseline.result.directory


CACHED = """
import sys
from grpo_cli.app import run
code = run(["eval", "--json"])
print([name for name in ("mlx", "mlx.core", "mlx_lm", "transformers", "datasets") if name in sys.modules])
sys.exit(code)
"""


def test_a_cached_score_is_found_without_importing_mlx(config):
    evaluate.run(config)
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert found.returncode == 0, found.stderr
    score, imported = found.stdout.splitlines()
    assert json.loads(score)["status"] == "cached"
    assert imported == "[]"
    assert seconds < 6  # about 1 on an idle machine


def test_a_score_by_rewards_is_keyed_by_them(config):
    """And by nothing of them where they do not judge; `status` asks again in the same words."""
    shorter = load(overrides=["rewards=[{name: exact_match}, {name: length_penalty, weight: 0.5}]"]).config
    names = ["rewards", "exact_match"]
    first, second = (evaluate.run(each, benchmarks=names) for each in (config, shorter))
    assert first[0].score.result.directory != second[0].score.result.directory
    assert first[1].score.result.directory == second[1].score.result.directory
    assert {"accuracy", "reward", "reward_low", "reward_high", "n"} <= first[0].score.metrics.keys()
    assert "reward_length_penalty" in second[0].score.metrics
    states = {each.asked: each.status for each in pipeline_status(shorter) if each.stage == "eval"}
    assert states == {"base: rewards": "cached", "base: exact_match": "cached"}


def test_what_isolates_programs_is_recorded_with_a_score_of_programs(config, capsys):
    row = {"task_id": 1, "text": "Double a number.", "code": "def double(n): return 2 * n"}
    Path("tasks.jsonl").write_text(json.dumps(row | {"test_list": ["assert double(2) == 4"]}) + "\n")
    entries = [{"name": "mbpp", "config": {"path": "tasks.jsonl"}}, {"name": "exact_match", "config": {"limit": 1}}]
    assert run(["eval", "--json", "--set", f"evaluation={json.dumps(entries)}"]) == 0
    programs, plain = map(json.loads, capsys.readouterr().out.splitlines())
    assert programs["sandbox"]["level"] in ("basic", "medium", "strong")
    assert "limits" in programs["sandbox"]
    assert "sandbox" not in plain
    assert run(["eval", "--set", f"evaluation={json.dumps(entries)}", "-q"]) == 0
    assert "sandbox" not in capsys.readouterr().out


def test_rewards_that_run_programs_record_it_too(config):
    programs = load(overrides=["rewards=[{name: code_execution}, {name: exact_match}]"]).config
    (found,) = evaluate.run(programs, benchmarks=["rewards"])
    assert "level" in found.score.result.summary["sandbox"]


@pytest.mark.parametrize("name", ["exact_match", "perplexity"])
def test_rows_of_a_file_are_keyed_by_the_fields_that_are_read(config, name):
    """Under other keys the same lines are other items."""
    row = {"prompt": "1+1=?", "completion": "2", "question": "2+2=?", "answer": "so 4"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    entry = json.dumps({"name": name, "config": {"path": "rows.jsonl"}})
    prompts = []
    for keys in ([], ["data.prompt_key=question", "data.completion_key=answer"]):
        (found,) = evaluate.run(load(overrides=[f"evaluation=[{entry}]", *keys]).config)
        assert found.score.result.status == "ran"
        prompts += [json.loads(line)["prompt"] for line in _lines(found.score)]
    assert prompts == ["1+1=?", "2+2=?"]


def _lines(score):
    return (score.result.directory / "items.jsonl").read_text().splitlines()


def test_exact_match_of_a_file_leaves_rows_without_a_reference_out(config):
    rows = [{"prompt": f"{n}+1=?", "completion": str(n + 1) if n % 2 else None} for n in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluator = EvaluatorRegistry.create("exact_match", {"path": "rows.jsonl"})
    sources = Sources(load_tokenizer("builtin:tiny"), config, lambda: pytest.fail("items come from a file"))
    assert [(prompt.row.prompt, prompt.row.completion) for prompt in evaluator.items(sources)] == [
        ("1+1=?", "2"),
        ("3+1=?", "4"),
    ]
    Path("rows.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(DataError, match=r"rows\.jsonl: no row has a completion to compare with"):
        evaluator.items(sources)
