"""Settings that were changed and do nothing, since another one switches them off."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import NamedTuple

from pipelines.config.advantage import AdvantageConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.loss import LossConfig
from pipelines.config.model import ModelConfig
from pipelines.config.ppo import PpoConfig
from pipelines.config.section import Section
from pipelines.config.trainer import TrainerConfig

SFT_TERM = ("trainer.sft_mode", "trainer.sft_weight", "trainer.sft_thinking_weight", "trainer.sft_answer_weight")
RANGES = tuple(f"trainer.{region}_layer_{end}" for region in ("thinking", "answer") for end in ("start", "end"))


class Rule(NamedTuple):
    """Dotted keys, whether they do something here, and the end of the sentence that says why not."""

    keys: Iterable[str]
    works: bool
    reason: str


def idle(trainer: TrainerConfig, model: ModelConfig, generation: GenerationConfig) -> Iterator[str]:
    """A sentence for each reason; a key is named once. What stands at its default is nobody's wish."""
    sections = {"trainer": trainer, "model": model, "generation": generation}
    told: set[str] = set()
    for rule in (*_algorithm(trainer), *_regions(trainer), *_loss(trainer), *_others(trainer, model, generation)):
        keys = [key for key in rule.keys if not rule.works and key not in told and _changed(sections, key)]
        if keys:
            yield f"{', '.join(keys)}: no effect {rule.reason}"
        told.update(keys)


def _algorithm(trainer: TrainerConfig) -> Iterator[Rule]:
    """What the algorithms at hand do not read; one of a plugin may read anything."""
    algorithm, advantage = trainer.algorithm, "trainer.advantage"
    samples = ("trainer.grpo_beta", *_keys("trainer.loss", LossConfig), *_keys(advantage, AdvantageConfig))
    yield Rule(
        (*samples, "trainer.num_rollout_samples"),
        algorithm != "sft",
        "with trainer.algorithm sft, which learns from references alone",
    )
    yield Rule(_keys("trainer.ppo", PpoConfig), algorithm not in ("grpo", "sft"), "without trainer.algorithm ppo")
    yield Rule(
        [f"{advantage}.{key}" for key in ("baseline", "scale", "epsilon", "aggregation")],
        algorithm != "ppo",
        "with trainer.algorithm ppo, which compares no completion with another",
    )
    yield Rule(
        ["trainer.loss.kl_bias_correction"],
        algorithm != "ppo",
        "with trainer.algorithm ppo, which pays the KL as a reward",
    )


def _regions(trainer: TrainerConfig) -> Iterator[Rule]:
    dual, supervised = trainer.use_dual_gradients, trainer.use_sft_on_answer
    yield Rule(
        (*RANGES, "trainer.dual_train_other_params"),
        dual or supervised,
        "without trainer.use_dual_gradients or trainer.use_sft_on_answer",
    )
    yield Rule(
        ("trainer.thinking_gradient_weight", "trainer.answer_gradient_weight"),
        dual,
        "without trainer.use_dual_gradients",
    )
    yield Rule(SFT_TERM, supervised, "without trainer.use_sft_on_answer")
    yield Rule(SFT_TERM[2:], trainer.sft_mode == "weighted", f"with trainer.sft_mode {trainer.sft_mode}")
    yield Rule(["trainer.use_sft_on_answer"], trainer.sft_weight > 0, "while trainer.sft_weight is 0")


def _loss(trainer: TrainerConfig) -> Iterator[Rule]:
    loss, advantage = trainer.loss, trainer.advantage
    if trainer.algorithm not in ("grpo", "ppo"):
        return
    kl = ("trainer.loss.kl_estimator", "trainer.loss.kl_bias_correction")
    yield Rule(kl, trainer.grpo_beta > 0, "while trainer.grpo_beta is 0")
    clips, capped = loss.type not in ("cispo", "sapo"), loss.type != "sapo"
    yield Rule(("trainer.loss.epsilon", "trainer.loss.delta"), clips, f"with trainer.loss.type {loss.type}")
    yield Rule(["trainer.loss.epsilon_high"], capped, f"with trainer.loss.type {loss.type}")
    corrected = loss.sampler_correction is not None
    yield Rule(["trainer.loss.sampler_correction_cap"], corrected, "without trainer.loss.sampler_correction")
    summed = advantage.aggregation == "sum_then_normalize"
    yield Rule(["trainer.advantage.scale"], summed, "with trainer.advantage.aggregation normalize_then_sum")
    divided = advantage.scale != "none" or not summed
    yield Rule(["trainer.advantage.epsilon"], divided, "with trainer.advantage.scale none")


def _others(trainer: TrainerConfig, model: ModelConfig, generation: GenerationConfig) -> Iterator[Rule]:
    schedule = trainer.lr_schedule_config
    if schedule is not None:
        yield Rule(["trainer.lr_schedule_config.warmup_init"], schedule.warmup > 0, "without a warm-up")
    adapters = [key for key in _keys("model", ModelConfig) if key.startswith("model.lora_")]
    yield Rule(adapters, model.use_lora, "without model.use_lora")
    close = (
        "bias_close_think",
        "punish_extra_think_end",
        "think_end_early_bias",
        "min_think_tokens",
        "max_think_tokens",
    )
    yield Rule(
        [f"generation.{key}" for key in close],
        bool(generation.think_end_tag),
        "while generation.think_end_tag is empty",
    )
    yield Rule(
        ["generation.punish_reopen_think"],
        bool(generation.think_start_tag),
        "while generation.think_start_tag is empty",
    )
    least, early = generation.min_think_tokens, generation.think_end_early_bias
    yield Rule(["generation.think_end_early_bias"], least > 0, "while generation.min_think_tokens is 0")
    yield Rule(
        ["generation.min_think_tokens"],
        early != generation.bias_close_think,
        "while generation.think_end_early_bias is what generation.bias_close_think is",
    )


def _keys(path: str, section: type[Section]) -> list[str]:
    return [f"{path}.{name}" for name in section.model_fields]


def _changed(sections: Mapping[str, Section], key: str) -> bool:
    """Whether a dotted key has another value than its default."""
    first, *path, name = key.split(".")
    section: Section = reduce(getattr, path, sections[first])
    return getattr(section, name) != type(section).model_fields[name].default
