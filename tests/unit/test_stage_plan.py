"""What each stage reads, by content: files, prefixes, checkpoints, plugins; and errors that name what is not there."""

import subprocess
import sys

import pytest
from stage_world import changed, make_config, make_model, make_rows, preprocess

from pipelines import plan
from pipelines.config import ExperimentConfig, RewardConfig
from pipelines.errors import ConfigError, DataError, ModelError, StageError
from pipelines.rows.loaders.registry import LoaderRegistry


@pytest.fixture
def config(tmp_path, monkeypatch) -> ExperimentConfig:
    monkeypatch.chdir(tmp_path)
    return make_config(tmp_path)


def test_validation_rows_are_an_input(config, tmp_path):
    first, second = make_rows(tmp_path / "val.jsonl"), tmp_path / "val2.jsonl"
    second.write_text('{"prompt": "3 + 3", "completion": "6"}\n')
    with_first = changed(config, "data.val_path", str(first))
    keys = [plan.preprocess_identity(each).key for each in (with_first, changed(config, "data.val_path", str(second)))]
    assert len({plan.preprocess_identity(config).key, *keys}) == 3


LOADER = """
from pathlib import Path
from pipelines.rows.loaders.base import BaseLoader
from pipelines.rows.loaders.registry import LoaderRegistry

@LoaderRegistry.register("served")
class Served(BaseLoader):
    def files(self, path):
        return {"rows": Path("served.bin")} if path == "mine://rows" else {}
"""


def test_a_plugins_loader_is_an_input_of_preprocess_and_says_what_it_reads(config, tmp_path, monkeypatch):
    """Nobody has to import it before: status and the stage itself must agree."""
    monkeypatch.setattr(LoaderRegistry, "_classes", dict(LoaderRegistry._classes))
    plugin, served = tmp_path / "loader.py", tmp_path / "served.bin"
    plugin.write_text(LOADER)
    served.write_text("rows")
    custom = changed(changed(config, "plugins", (str(plugin),)), "data.loader_type", "served")
    custom = changed(custom, "data.train_path", "mine://rows")
    before = plan.preprocess_identity(custom)
    assert set(before.inputs) == {"train_data", "tokenizer", "plugins"}
    served.write_text("other rows")
    assert plan.preprocess_identity(custom) != before
    words = [plan.preprocess_identity(changed(custom, "data.train_path", f"mine://{n}")) for n in range(2)]
    assert words[0] != words[1]
    before = plan.preprocess_identity(custom)
    plugin.write_text(LOADER + "# changed")
    assert plan.preprocess_identity(custom) != before


def test_a_reward_of_ones_own_is_no_input_of_preprocess(config, tmp_path, monkeypatch):
    """Though rewards/NAME.py is found without being listed."""
    monkeypatch.setattr(LoaderRegistry, "_classes", dict(LoaderRegistry._classes))
    plugin = tmp_path / "loader.py"
    plugin.write_text(LOADER)
    custom = changed(changed(config, "plugins", (str(plugin),)), "data.loader_type", "served")
    custom = changed(changed(custom, "data.train_path", "mine://0"), "rewards", (RewardConfig(name="mine"),))
    before = plan.preprocess_identity(custom)
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "mine.py").write_text("")
    assert plan.preprocess_identity(custom) == before
    preprocess(custom)
    inputs = plan.train_identity(custom).inputs
    (tmp_path / "rewards" / "mine.py").write_text("# changed")
    assert plan.train_identity(custom).inputs != inputs


def test_generated_rows_have_no_files(config):
    generated = changed(changed(config, "data.loader_type", "synthetic"), "data.train_path", "nowhere.jsonl")
    assert set(plan.preprocess_identity(generated).inputs) == {"tokenizer"}


def test_array_prefixes_are_read_by_prefix(config, tmp_path):
    for name in ("mine_prompts.npy", "mine_completions.npy", "other_prompts.npy"):
        (tmp_path / name).write_text(name)
    arrays = changed(changed(config, "data.loader_type", "npy"), "data.train_path", str(tmp_path / "mine"))
    before = plan.preprocess_identity(arrays)
    (tmp_path / "other_prompts.npy").write_text("changed")
    assert plan.preprocess_identity(arrays) == before
    (tmp_path / "mine_prompts.npy").write_text("changed")
    assert plan.preprocess_identity(arrays) != before


def test_checkpoints_count_by_content_and_adapters_with_their_base(config, tmp_path):
    preprocess(config)
    whole, adapter = make_model(tmp_path / "step_000010"), tmp_path / "step_000020"
    adapter.mkdir()
    for name in ("adapters.safetensors", "adapter_config.json", "state.json", "tokenizer.json"):
        (adapter / name).write_text(name)
    assert {"checkpoint", "model"} & set(plan.asked_identity("eval", config).inputs) == {"model"}
    assert {"checkpoint", "model"} & set(plan.asked_identity("eval", config, whole).inputs) == {"checkpoint"}
    assert {"checkpoint", "model"} & set(plan.asked_identity("eval", config, adapter).inputs) == {"checkpoint", "model"}
    before = plan.asked_identity("eval", config, adapter)
    (adapter / "state.json").write_text("later")
    assert plan.asked_identity("eval", config, adapter) == before
    (adapter / "adapters.safetensors").write_text("later")
    assert plan.asked_identity("eval", config, adapter) != before


def test_a_request_is_part_of_the_key(config, tmp_path):
    prompts = make_rows(tmp_path / "prompts.jsonl")
    preprocess(config)
    identities = [
        plan.asked_identity("sample", config),
        plan.asked_identity("sample", config, request={"samples": 2}),
        plan.asked_identity("sample", config, files={"prompts": prompts}, rows=False),
        plan.asked_identity("eval", config, benchmark="gsm8k"),
        plan.asked_identity("eval", config, benchmark="mbpp"),
    ]
    assert len({identity.key for identity in identities}) == len(identities)
    assert "preprocess" not in identities[2].inputs


@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("data.train_path", "gone.jsonl", DataError, "data.train_path: there is nothing at gone.jsonl"),
        ("data.val_path", "gone.jsonl", DataError, "data.val_path"),
        ("data.train_path", "builtin:nothing", DataError, "nothing"),
        ("model.model_path", "./gone", ModelError, "model.model_path"),
    ],
)
def test_what_is_not_there_is_named(config, key, value, error, words):
    with pytest.raises(error, match=words):
        plan.preprocess_identity(changed(config, key, value))


def test_missing_plugin_and_empty_model_are_named(config, tmp_path):
    preprocess(config)
    with pytest.raises(ConfigError, match=r"plugins\[0\]"):
        plan.train_identity(changed(config, "plugins", ("gone.py",)))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        plan.train_identity(config)


def test_train_waits_for_preprocess(config):
    with pytest.raises(StageError, match="waits for preprocess"):
        plan.train_identity(config)


def test_chosen_refuses_keys_that_do_not_exist():
    with pytest.raises(KeyError):
        plan.chosen({"trainer": {"seed": 0}}, ("trainer",), ("trainer.sead",))
    with pytest.raises(KeyError):
        plan.chosen({"trainer": {"seed": 0}}, ("trainer.sead",))


def test_planning_imports_nothing_heavy():
    heavy = ("mlx", "numpy", "datasets", "sklearn", "transformers", "mlx_lm", "huggingface_hub")
    script = f"import sys, pipelines.plan, pipelines.status\nprint([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
