"""What the advanced template switches on, and why: values that suit the model's depth and the lengths asked for."""

from collections.abc import Callable
from typing import Any

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.fields import Path

ADAPTER_FACTOR = 10
"""Adapters want about ten times the learning rate of full fine-tuning."""

EVALUATIONS = 5
"""Evaluations during a run."""

VALIDATION = 0.05
"""Fraction of somebody's own rows that is set aside, so that there is something to evaluate on."""

Settings = dict[str, Any]
"""Values by dotted key."""


def advanced_settings(config: ExperimentConfig, num_layers: int | None, *, adapters: bool) -> Settings:
    """Dual gradients, the supervised term, LoRA, several rewards, a budget of thinking, evaluation on the way.

    Without the number of layers both regions train all of them; `adapters` says whether LoRA it will be.
    """
    longest = config.data.max_gen_len
    faster = ADAPTER_FACTOR if adapters else 1
    own_rows = config.data.val_path is None and not config.data.train_path.startswith("builtin:")
    settings: Settings = {
        "trainer.learning_rate": float(f"{faster * config.trainer.learning_rate:.6g}"),
        "trainer.use_dual_gradients": True,
        "trainer.eval_every": max(1, config.trainer.num_training_steps // EVALUATIONS),
        "model.use_lora": True,
        "data.val_fraction": VALIDATION if own_rows else 0.0,
        "generation.punish_extra_think_end": -2.0,
        "generation.punish_reopen_think": -2.0,
        "generation.max_think_tokens": max(1, config.generation.min_think_tokens, 3 * longest // 4),
        "rewards": _rewards(longest),
    }
    if config.trainer.algorithm != "sft":
        settings |= {
            "trainer.use_sft_on_answer": True,
            "trainer.sft_mode": "exclude_thinking",
            "trainer.sft_weight": 0.1,
        }
    if _own_model(config):
        settings["data.system_prompt"] = f"Think between {_tags(config)}, then write the answer."
    return settings | (layer_settings(num_layers) if num_layers else {})


def layer_settings(num_layers: int) -> Settings:
    """Thinking: from a quarter to three quarters of the depth. Answer: the upper half."""
    first = num_layers // 4
    return {
        "trainer.thinking_layer_start": first,
        "trainer.thinking_layer_end": max(first, 3 * num_layers // 4 - 1),
        "trainer.answer_layer_start": num_layers // 2,
        "trainer.answer_layer_end": num_layers - 1,
    }


def _own_model(config: ExperimentConfig) -> bool:
    return not config.model.model_path.startswith("builtin:")


def _tags(config: ExperimentConfig) -> str:
    return f"{config.generation.think_start_tag} and {config.generation.think_end_tag}"


def _rewards(longest: int) -> list[Settings]:
    """The right answer decides, since the others together weigh half of it. Lengths are in tokens."""
    shortest = max(1, longest // 16)
    most = max(shortest, longest // 2)
    thinking = {
        "target_length_min": shortest,
        "target_length_max": most,
        "excessive_length_threshold": max(most + 1, 3 * longest // 4),
    }
    return [
        {"name": "exact_match", "weight": 1.0},
        {"name": "format_structure", "weight": 0.2, "config": {"min_think_length": shortest}},
        {"name": "thinking_quality", "weight": 0.1, "config": thinking},
        {"name": "repetition_penalty", "weight": 0.1, "config": {"ngram_size": 3}},
        {
            "name": "soft_overlong",
            "weight": 0.1,
            "config": {"max_length": longest, "cache_length": max(1, longest // 4)},
        },
    ]


def advanced_headings(config: ExperimentConfig, num_layers: int | None) -> Callable[[Path], str]:
    """Lines above the keys that are switched on."""
    ranges = (
        "Each region teaches layers of its own, embeddings and head stay. Of the layers 0 to {last} thinking teaches\n"
        "those from a quarter to three quarters of the depth, the answer those of the upper half."
        if num_layers
        else "Each region can teach layers of its own. The model is not here to be counted, so both teach all (null).\n"
        "A start: thinking from a quarter to three quarters of the depth, the answer the upper half."
    )
    texts = {
        "trainer.learning_rate": "Adapters (model.use_lora) want about ten times the rate of full fine-tuning.",
        "trainer.use_dual_gradients": ranges.format(last=(num_layers or 1) - 1),
        "trainer.use_sft_on_answer": (
            "The references' answers are imitated beside the rewards, by the layers that thinking does not teach.\n"
            "Every row needs a reference completion."
        ),
        "trainer.eval_every": "Evaluation needs validation rows: data.val_path, or data.val_fraction.",
        "generation.punish_extra_think_end": (
            "One block of thinking: a second one is made unlikely, and thinking ends after three quarters of\n"
            "data.max_gen_len tokens, so that there is room for an answer."
        ),
        "rewards": (
            "The right answer decides, since all others together weigh half as much. Those tell completions apart\n"
            "that are equally right: one block of thinking, of sensible length, without repetitions, not cut off."
        ),
    }
    if _own_model(config):
        texts["data.system_prompt"] = "A model that never thinks has one region only: this asks for the other."
    return lambda path: texts.get(".".join(map(str, path)), "")
