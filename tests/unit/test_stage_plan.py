"""Every setting, changed in turn: which stages get another key, and which must not. And what status makes of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from pipelines import plan
from pipelines.config import EvaluationConfig, ExperimentConfig, LrScheduleConfig, RewardConfig
from pipelines.errors import ConfigError, DataError, ModelError, StageError
from pipelines.stages import store

ASKED = {"eval", "sample", "inspect-rewards"}
EVERY_STAGE = {"preprocess", "train", *ASKED}
AFFECTS: dict[str, set[str]] = {
    "trainer": {"train"},
    "trainer.output_dir": set(),
    "trainer.micro_batch_tokens": set(),
    "trainer.grad_checkpoint": set(),
    "trainer.eval_every": set(),
    "trainer.abort_after_dead_updates": set(),
    "trainer.seed": {"train", *ASKED},
    "model": {"train"},
    "model.model_path": set(),
    "model.ref_model_path": set(),  # at grpo_beta 0, where no reference is loaded
    "model.quantize_bits": {"train", *ASKED},
    "generation": {"train", *ASKED},
    "generation.think_start_tag": EVERY_STAGE,
    "generation.think_end_tag": EVERY_STAGE,
    "generation.rollout_batch_size": set(),
    "data": {"preprocess"},
    "data.train_path": set(),
    "data.shuffle_data": {"train"},
    "data.max_gen_len": {"train", *ASKED},
    "rewards": {"train", "sample", "inspect-rewards"},
    "evaluation": {"eval"},
    "plugins": {"train", *ASKED},
    "monitoring": set(),
    "checkpointing": set(),
    "paths": set(),
}
"""Which keys a setting changes; the longest prefix counts. A new section has to be entered here."""


def make_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors", "README.md"):
        (directory / name).write_text(name)
    return directory


def make_rows(path: Path) -> Path:
    path.write_text('{"prompt": "1 + 1", "completion": "2"}\n')
    return path


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ExperimentConfig.model_validate(
        {
            "model": {"model_path": str(make_model(tmp_path / "model"))},
            "data": {"train_path": str(make_rows(tmp_path / "train.jsonl"))},
        }
    )


def changed(config: ExperimentConfig, key: str, value: Any) -> Any:
    """A copy with one dotted key set, unchecked: rules between settings are not the point here."""
    name, _, rest = key.partition(".")
    return config.model_copy(update={name: changed(getattr(config, name), rest, value) if rest else value})


def preprocess(config: ExperimentConfig, content: str = "tokens") -> None:
    identity = plan.preprocess_identity(config)
    directory = plan.stage_directory(config, "preprocess", identity)
    store.run_stage(identity, directory, lambda place: (place / "train_prompts.npy").write_text(content) and None)


def keys(config: ExperimentConfig, content: str = "tokens") -> dict[str, str]:
    """The key of every stage, after preprocess wrote the same tokens as ever."""
    preprocess(config, content)
    identities = (
        plan.preprocess_identity(config),
        plan.train_identity(config),
        plan.eval_identity(config),
        plan.sample_identity(config),
        plan.inspect_identity(config),
    )
    return {identity.stage: identity.key for identity in identities}


def moved(config: ExperimentConfig, other: ExperimentConfig) -> set[str]:
    before, after = keys(config), keys(other)
    return {stage for stage in plan.STAGES if before[stage] != after[stage]}


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of the schema with its annotation."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def another(kind: Any, value: Any) -> Any:
    """Some other value of this type."""
    if get_origin(kind) in (Union, UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        return next(new for option in options if (new := another(option, value)) != value)
    if get_origin(kind) is Literal:
        return next((word for word in get_args(kind) if word != value), value)
    if kind is LrScheduleConfig:
        return LrScheduleConfig(name="constant", arguments=(1e-4,))
    examples = {bool: value is not True, int: 7, float: 0.125, str: f"{value}x", dict: {"some": "thing"}}
    plain = get_origin(kind) or kind
    return (
        ("more",) if plain is tuple else examples.get(plain, value) if plain in examples else another_inner(kind, value)
    )


def another_inner(kind: Any, value: Any) -> Any:
    """`Annotated[int, ...]` is an int for our purposes."""
    return another(get_args(kind)[0], value)


SPECIAL = {"trainer.output_dir", "model.model_path", "model.ref_model_path", "data.train_path", "data.val_path"} | {
    "rewards",
    "evaluation",
    "plugins",
}
PLAIN = [(key, kind) for key, kind in leaves(ExperimentConfig) if key not in SPECIAL]


def expected(key: str) -> set[str]:
    prefix = max((name for name in AFFECTS if f"{key}.".startswith(f"{name}.")), key=len)
    return AFFECTS[prefix]


@pytest.mark.parametrize(("key", "kind"), PLAIN, ids=[key for key, _ in PLAIN])
def test_each_setting_moves_exactly_its_stages(config, key, kind):
    value = config
    for part in key.split("."):
        value = getattr(value, part)
    new = another(kind, value)
    assert new != value
    assert moved(config, changed(config, key, new)) == expected(key)


def test_rewards_and_their_settings(config):
    longer = (*config.rewards, RewardConfig(name="length_penalty"))
    heavier = (config.rewards[0].model_copy(update={"weight": 0.5}),)
    tuned = (config.rewards[0].model_copy(update={"config": {"strict": True}}),)
    for rewards in (longer, heavier, tuned):
        assert moved(config, changed(config, "rewards", rewards)) == expected("rewards")


def test_only_the_settings_of_the_scored_benchmark_count(config):
    tuned = changed(config, "evaluation", (EvaluationConfig(name="exact_match", config={"limit": 7}),))
    besides = changed(config, "evaluation", (*config.evaluation, EvaluationConfig(name="gsm8k")))
    assert moved(config, tuned) == expected("evaluation")
    assert moved(config, besides) == set()


def test_places_are_in_no_key(config, tmp_path):
    there = make_model(tmp_path / "elsewhere")
    rows = make_rows(tmp_path / "copy.jsonl")
    assert moved(config, changed(config, "model.model_path", str(there))) == set()
    assert moved(config, changed(config, "data.train_path", str(rows))) == set()
    assert moved(config, changed(config, "trainer.output_dir", "somewhere/else")) == set()
    assert moved(config, changed(config, "model.ref_model_path", str(there))) == set()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("model.safetensors", {"train", *ASKED}),
        ("config.json", EVERY_STAGE),
        ("tokenizer.json", EVERY_STAGE),
        ("optimizer.safetensors", set()),
        ("README.md", set()),
    ],
)
def test_content_of_the_model(config, name, stages):
    before = keys(config)
    path = Path(config.model.model_path) / name
    path.write_text(path.read_text().upper() + "!")
    after = keys(config)
    assert {stage for stage in plan.STAGES if before[stage] != after[stage]} == stages


def test_content_of_the_rows_and_the_early_cut_off(config):
    before = keys(config)
    rows = Path(config.data.train_path)
    rows.write_text(rows.read_text() + "\n")
    same_tokens = keys(config)
    assert {stage for stage in plan.STAGES if before[stage] != same_tokens[stage]} == {"preprocess"}
    rows.write_text(rows.read_text() + '{"prompt": "2 + 2", "completion": "4"}\n')
    other_tokens = keys(config, content="more tokens")
    assert {stage for stage in plan.STAGES if same_tokens[stage] != other_tokens[stage]} == EVERY_STAGE


def test_validation_rows_are_an_input(config, tmp_path):
    first, second = make_rows(tmp_path / "val.jsonl"), tmp_path / "val2.jsonl"
    second.write_text('{"prompt": "3 + 3", "completion": "6"}\n')
    with_first = changed(config, "data.val_path", str(first))
    assert moved(config, with_first) == {"preprocess"}
    assert moved(with_first, changed(config, "data.val_path", str(second))) == {"preprocess"}


def test_reference_counts_when_it_is_used(config, tmp_path):
    reference = make_model(tmp_path / "reference")
    with_kl = changed(config, "trainer.grpo_beta", 0.1)
    referred = changed(with_kl, "model.ref_model_path", str(reference))
    assert moved(with_kl, referred) == {"train"}
    before = plan.train_identity(referred)
    (reference / "model.safetensors").write_text("other weights")
    assert before.inputs["ref_model"] != plan.train_identity(referred).inputs["ref_model"]


def test_plugins_count_by_content(config, tmp_path):
    plugin, copy = tmp_path / "mine.py", tmp_path / "copy.py"
    plugin.write_text("x = 1\n")
    copy.write_text("x = 1\n")
    with_plugin = changed(config, "plugins", (str(plugin),))
    assert moved(config, with_plugin) == expected("plugins")
    assert moved(with_plugin, changed(config, "plugins", (str(copy),))) == set()
    before = plan.train_identity(with_plugin).key
    plugin.write_text("x = 2\n")
    assert plan.train_identity(with_plugin).key != before


def test_a_plugins_loader_is_an_input_of_preprocess(config, tmp_path):
    plugin = tmp_path / "loader.py"
    plugin.write_text("x = 1\n")
    custom = changed(changed(config, "plugins", (str(plugin),)), "data.loader_type", "mine")
    custom = changed(custom, "data.train_path", "mine://rows")
    before = plan.preprocess_identity(custom)
    assert set(before.inputs) == {"train_data", "tokenizer", "plugins"}
    assert plan.preprocess_identity(changed(custom, "data.train_path", "mine://others")).key != before.key


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
    assert {"checkpoint", "model"} & set(plan.eval_identity(config).inputs) == {"model"}
    assert {"checkpoint", "model"} & set(plan.eval_identity(config, whole).inputs) == {"checkpoint"}
    assert {"checkpoint", "model"} & set(plan.eval_identity(config, adapter).inputs) == {"checkpoint", "model"}
    before = plan.eval_identity(config, adapter)
    (adapter / "state.json").write_text("later")
    assert plan.eval_identity(config, adapter) == before
    (adapter / "adapters.safetensors").write_text("later")
    assert plan.eval_identity(config, adapter) != before


def test_a_request_is_part_of_the_key(config, tmp_path):
    prompts = make_rows(tmp_path / "prompts.jsonl")
    preprocess(config)
    identities = [
        plan.sample_identity(config),
        plan.sample_identity(config, request={"samples": 2}),
        plan.sample_identity(config, files={"prompts": prompts}, rows=False),
        plan.eval_identity(config, benchmark="gsm8k"),
        plan.eval_identity(config, benchmark="mbpp"),
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
    script = f"import sys, pipelines.plan\nprint([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
