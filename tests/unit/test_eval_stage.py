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

from pipelines import evaluate, plan, preprocess
from pipelines.config import ModelConfig, load
from pipelines.errors import ConfigError, ModelError, StageError
from pipelines.evaluation.targets import STARTING_MODEL, Target
from pipelines.models.load import load as load_model
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.save import save_adapter
from pipelines.models.tiny import write_blank
from pipelines.stages.identity import write_identity

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
    python, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    Path("capitals.py").write_text(python)
    Path("evaluators.yaml").write_text(settings)
    Path("capitals.jsonl").write_text(
        '{"prompt": "France?", "completion": "Paris"}\n{"prompt": "Peru?", "completion": "Lima"}\n'
    )
    loaded = load(["config.yaml", "evaluators.yaml"]).config
    preprocess.run(loaded)
    found = {each.score.benchmark: each.score for each in evaluate.run(loaded)}
    assert found["capitals"].metrics["n"] == 2
    assert found["exact_match"].metrics["n"] == ROWS
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
    assert grpo("eval", "--benchmark", "gsm8k", "exact_match").returncode == 2
    assert grpo("eval", "--checkpoint", "nowhere").returncode == 1


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
    assert [json.loads(line)["stage"] for line in waiting.stdout.splitlines()] == ["preprocess"]
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
