"""Every setting of the schema, changed in turn: exactly the stages that depend on it get another key.

The walk finds new fields by itself and makes another valid value from their type and range; what they should change is
`AFFECTS`, written by hand and not read from `RECIPES`.
"""

import itertools
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel
from stage_world import changed, make_config, make_model, make_rows, preprocess

from pipelines import plan
from pipelines.config import EvaluationConfig, ExperimentConfig, RewardConfig
from pipelines.stages.digest import DigestCache

ASKED = {"eval", "sample", "inspect-rewards"}
EVERY_STAGE = {"preprocess", "train", *ASKED}
AFFECTS: dict[str, set[str]] = {
    "trainer": {"train"},
    "trainer.seed": {"train", *ASKED},
    "trainer.output_dir": set(),
    "trainer.micro_batch_tokens": set(),
    "trainer.grad_checkpoint": set(),
    "trainer.eval_every": set(),
    "trainer.abort_after_dead_updates": set(),
    "model": {"train"},
    "model.model_path": set(),  # its content counts
    "model.ref_model_path": set(),  # its content counts, if there is a KL term
    "model.quantize_bits": {"train", *ASKED},
    "generation": {"train", *ASKED},
    "generation.think_start_tag": EVERY_STAGE,
    "generation.think_end_tag": EVERY_STAGE,
    "generation.rollout_batch_size": set(),
    "data": {"preprocess"},
    "data.train_path": set(),  # its content counts
    "data.val_path": {"preprocess"},  # other rows are set aside than without it
    "data.shuffle_data": {"train"},
    "data.max_gen_len": {"train", *ASKED},
    "rewards": {"train", "sample", "inspect-rewards"},
    "evaluation": {"eval"},
    "plugins": {"train", *ASKED},
    "monitoring": set(),
    "checkpointing": set(),
    "paths": set(),
}
"""Which stages a setting changes while preprocess writes the same; the longest prefix counts.

A new section has to be entered here. A setting counts even where another one switches it off.
"""

VALUES: dict[str, Any] = {
    "trainer.algorithm": "sft",
    "trainer.output_dir": "./outputs/elsewhere",
    "trainer.lr_schedule_config": {"name": "constant", "arguments": [1e-4]},
    "model.model_path": "{place}/copied",
    "model.ref_model_path": "{place}/copied",
    "data.train_path": "{place}/copied.jsonl",
    "data.val_path": "{place}/copied.jsonl",
    "data.loader_type": "synthetic",
    "data.columns": {"question": "prompt"},
    "data.hf_revision": "b" * 40,
    "rewards": [{"name": "exact_match"}, {"name": "length_penalty"}],
    "evaluation": [{"name": "exact_match", "config": {"limit": 7}}],
    "plugins": ["{place}/plugin.py"],
    "paths.stages": "{place}/other/stages",
}
"""Values for what a type alone cannot tell."""

COMPANIONS: dict[str, dict[str, Any]] = {
    "trainer.early_stop_after": {"trainer.eval_every": 5},
    "model.quantize_bits": {"model.use_lora": True},
    "data.hf_name": {"data.loader_type": "hf", "data.hf_revision": "a" * 40},
    "data.hf_revision": {"data.loader_type": "hf", "data.hf_revision": "a" * 40, "data.hf_name": "owner/name"},
    "data.hf_val_split": {"data.loader_type": "hf"},
}
"""What has to be set, before and after, for a setting to be allowed."""


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, list[Any]]]:
    """Every dotted key of the schema with its annotation and limits."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation, field.metadata


LEAVES = {key: (kind, limits) for key, kind, limits in leaves(ExperimentConfig)}


def values(kind: Any, limits: list[Any]) -> Iterator[Any]:
    """Values of a type within its limits, as YAML would give them."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *more = get_args(kind)
        yield from values(inner, [*limits, *more])
    elif origin in (Union, UnionType):
        yield from itertools.chain.from_iterable(values(option, limits) for option in get_args(kind))
    elif origin is Literal:
        yield from get_args(kind)
    elif kind is bool:
        yield from (False, True)
    elif kind in (int, float):
        numbers = [kind(n) for n in (2, 3, 7)] if kind is int else [0.5, 0.25, 1.5, 2.5]
        yield from (number for number in numbers if all(allows(limit, number) for limit in limits))
    elif kind is str:
        yield from ("word", "another")
    elif (origin or kind) is dict:
        yield {"some": "thing"}
    elif origin is tuple:
        yield [next(values(get_args(kind)[0], []))]


def allows(limit: Any, number: float) -> bool:
    """Whether a number keeps to a limit of annotated_types; other metadata limit nothing."""
    checks = {
        annotated_types.Ge: lambda: number >= limit.ge,
        annotated_types.Gt: lambda: number > limit.gt,
        annotated_types.Le: lambda: number <= limit.le,
        annotated_types.Lt: lambda: number < limit.lt,
    }
    return checks.get(type(limit), lambda: True)()


def with_values(config: ExperimentConfig, settings: dict[str, Any]) -> ExperimentConfig:
    """The configuration with dotted keys set, checked like any other."""
    document = config.model_dump(mode="json")
    for key, value in settings.items():
        *sections, name = key.split(".")
        part = document
        for section in sections:
            part = part[section]
        part[name] = value
    return ExperimentConfig.model_validate(document)


def another(config: ExperimentConfig, key: str, place: Path) -> Any:
    """A valid value that the setting does not have."""
    document: Any = config.model_dump(mode="json")
    for part in key.split("."):
        document = document[part]
    found = [VALUES[key]] if key in VALUES else [value for value in values(*LEAVES[key]) if value != document]
    assert found, f"{key} needs a value in VALUES"
    return placed(found[0], place)


def placed(value: Any, place: Path) -> Any:
    if isinstance(value, list):
        return [placed(item, place) for item in value]
    return value.format(place=place) if isinstance(value, str) else value


def expected(key: str) -> set[str]:
    prefix = max((name for name in AFFECTS if f"{key}.".startswith(f"{name}.")), key=len)
    return AFFECTS[prefix]


class World:
    """Keys of every stage with what was read remembered, so that a change costs no second reading."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.config = make_config(place)
        make_model(place / "copied")
        make_rows(place / "copied.jsonl")
        (place / "plugin.py").write_text("")

    def keys(self, config: ExperimentConfig, content: str = "tokens") -> dict[str, str]:
        """The key of every stage, after preprocess wrote the same tokens as ever."""
        preprocess(config, content)
        cache = DigestCache(self.place)
        identities = (
            plan.preprocess_identity(config, cache),
            plan.train_identity(config, cache),
            plan.asked_identity("eval", config, benchmark="exact_match", cache=cache),
            plan.asked_identity("sample", config, cache=cache),
            plan.asked_identity("inspect-rewards", config, cache=cache),
        )
        return {identity.stage: identity.key for identity in identities}

    def moved(self, before: ExperimentConfig, after: ExperimentConfig) -> set[str]:
        return differing(self.keys(before), self.keys(after))

    @cached_property
    def own_keys(self) -> dict[str, str]:
        return self.keys(self.config)


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {stage for stage in plan.STAGES if before[stage] != after[stage]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For what changes nothing on the disk."""
    return World(tmp_path_factory.mktemp("mutations"))


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


@pytest.mark.parametrize("key", LEAVES)
def test_each_setting_changes_exactly_its_stages(shared, key):
    companions = COMPANIONS.get(key, {})
    before = with_values(shared.config, companions)
    after = with_values(before, {key: another(before, key, shared.place)})
    assert differing(shared.keys(before) if companions else shared.own_keys, shared.keys(after)) == expected(key)


@pytest.mark.parametrize("table", [AFFECTS, VALUES, COMPANIONS], ids=["affects", "values", "companions"])
def test_the_tables_name_what_there_is(table):
    known = {prefix for key in LEAVES for prefix in itertools.accumulate(key.split("."), "{}.{}".format)}
    assert set(table) <= known


def test_rewards_and_their_settings(world):
    [reward] = world.config.rewards
    longer = (reward, RewardConfig(name="length_penalty"))
    heavier = (reward.model_copy(update={"weight": 0.5}),)
    tuned = (reward.model_copy(update={"config": {"strict": True}}),)
    for rewards in (longer, heavier, tuned):
        assert world.moved(world.config, changed(world.config, "rewards", rewards)) == expected("rewards")


def test_of_benchmarks_only_the_settings_of_the_scored_one_count(world):
    besides = changed(world.config, "evaluation", (*world.config.evaluation, EvaluationConfig(name="gsm8k")))
    assert world.moved(world.config, besides) == set()


def test_a_drawn_seed_is_seed_0_to_whoever_compares(world):
    """`seed: -1` draws one for the run; evaluations and samples take 0, and find what was done with 0."""
    assert world.moved(world.config, changed(world.config, "trainer.seed", -1)) == {"train"}


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
def test_content_of_the_model(world, name, stages):
    before = world.keys(world.config)
    path = Path(world.config.model.model_path) / name
    path.write_text(path.read_text().upper() + "!")
    assert differing(before, world.keys(world.config)) == stages


def test_content_of_the_rows_and_the_early_cut_off(world):
    before = world.keys(world.config)
    rows = Path(world.config.data.train_path)
    rows.write_text(rows.read_text() + "\n")
    same_tokens = world.keys(world.config)
    assert differing(before, same_tokens) == {"preprocess"}
    rows.write_text(rows.read_text() + '{"prompt": "2 + 2", "completion": "4"}\n')
    assert differing(same_tokens, world.keys(world.config, content="more tokens")) == EVERY_STAGE


def test_gold_completions_are_judged_without_weights(world):
    """Only a tokenizer is read, so other weights make no inspection stale."""
    preprocess(world.config)
    gold = {"config": world.config, "request": {"source": "gold"}, "weights": False}
    before = plan.asked_identity("inspect-rewards", **gold)
    (Path(world.config.model.model_path) / "model.safetensors").write_text("other weights")
    assert plan.asked_identity("inspect-rewards", **gold) == before
    (Path(world.config.model.model_path) / "tokenizer.json").write_text("other tokens")
    preprocess(world.config)
    assert plan.asked_identity("inspect-rewards", **gold) != before


def test_a_reference_counts_by_content_where_it_is_used(world):
    reference = world.place / "copied"
    with_kl = changed(world.config, "trainer.grpo_beta", 0.1)
    referred = changed(with_kl, "model.ref_model_path", str(reference))
    assert world.moved(with_kl, referred) == {"train"}
    before = world.keys(referred)
    (reference / "model.safetensors").write_text("other weights")
    assert differing(before, world.keys(referred)) == {"train"}


def test_plugins_count_by_content(world):
    plugin, copy = world.place / "mine.py", world.place / "copy.py"
    plugin.write_text("x = 1\n")
    copy.write_text("x = 1\n")
    with_plugin = changed(world.config, "plugins", (str(plugin),))
    assert world.moved(with_plugin, changed(world.config, "plugins", (str(copy),))) == set()
    before = world.keys(with_plugin)
    plugin.write_text("x = 2\n")
    assert differing(before, world.keys(with_plugin)) == expected("plugins")


def test_a_move_of_everything_changes_nothing(world, monkeypatch):
    before = world.keys(world.config)
    elsewhere = world.place / "elsewhere"
    elsewhere.mkdir()
    for name in ("model", "train.jsonl"):
        (world.place / name).rename(elsewhere / name)
    monkeypatch.chdir(elsewhere)
    moved = changed(changed(world.config, "model.model_path", "./model"), "data.train_path", "train.jsonl")
    assert differing(before, world.keys(changed(moved, "paths.stages", "here"))) == set()


def test_the_environment_changes_nothing(world, monkeypatch):
    before = world.keys(world.config)
    settings = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "HOME": str(world.place), "HF_HUB_OFFLINE": "1", "GRPO_X": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for path in (Path(world.config.model.model_path), Path(world.config.data.train_path)):
        os.utime(path, (0, 0))
    assert world.keys(world.config) == before
