"""What is allowed and probably not meant."""

from collections.abc import Iterator

from pipelines.config.checks import ARGUMENTS, LEARN_ALONE, SCHEDULE
from pipelines.config.data import DataConfig
from pipelines.config.generation import GenerationConfig
from pipelines.config.idle import idle
from pipelines.config.model import ModelConfig
from pipelines.config.trainer import TrainerConfig


def remarks(
    trainer: TrainerConfig,
    model: ModelConfig,
    generation: GenerationConfig,
    data: DataConfig,
) -> list[str]:
    """A sentence for each setting, or pair of settings, that is worth a second look."""
    return [
        *_trainer(trainer),
        *_sampler(trainer, generation),
        *_reference(trainer, model),
        *_tags(generation, data),
        *idle(trainer, model, generation),
    ]


def _trainer(trainer: TrainerConfig) -> Iterator[str]:
    reinforcement = trainer.algorithm != "sft"
    compared = trainer.algorithm not in LEARN_ALONE
    if compared and trainer.num_rollout_samples == 1 and trainer.advantage.baseline == "auto":
        yield (
            "trainer.num_rollout_samples is 1, so trainer.advantage.baseline auto compares completions of different"
            f" prompts (the {trainer.completions_per_update} of one update): a weak signal"
        )
    schedule = trainer.lr_schedule_config
    if schedule is not None and schedule.arguments[0] != trainer.learning_rate:
        yield (
            f"trainer.learning_rate is {trainer.learning_rate:g} but {SCHEDULE}.arguments start at"
            f" {schedule.arguments[0]:g}: the schedule decides"
        )
    yield from _schedule_at_rest(trainer)
    if reinforcement and trainer.loss.type == "cispo" and trainer.loss.epsilon_high < 1:
        yield (
            f"trainer.loss.epsilon_high is {trainer.loss.epsilon_high:g}, which trainer.loss.type cispo takes as the"
            " absolute cap of the ratio, so every on-policy token is capped: 5.0 or so is usual"
        )
    if trainer.algorithm == "ppo" and trainer.grpo_beta > 0 and trainer.loss.kl_estimator != "k1":
        yield (
            f"trainer.loss.kl_estimator is {trainer.loss.kl_estimator}, and trainer.algorithm ppo pays the KL as a"
            " reward, where only k1 pulls towards the reference as it should"
        )


def _schedule_at_rest(trainer: TrainerConfig) -> Iterator[str]:
    """A schedule that comes to 0 before the run is over."""
    schedule, steps = trainer.lr_schedule_config, trainer.num_training_steps * trainer.num_iterations
    if schedule is None or schedule.name not in ("cosine_decay", "linear_schedule"):
        return
    end = schedule.arguments[1] if schedule.name == "linear_schedule" else [*schedule.arguments, 0.0][2]
    last = schedule.warmup + int(schedule.arguments[ARGUMENTS[schedule.name][2] or 0]) + 1
    if not end and last < steps:
        yield f"{SCHEDULE} is at 0 after {last} of {steps} optimizer steps: {steps - last} of them teach nothing"


def _sampler(trainer: TrainerConfig, generation: GenerationConfig) -> Iterator[str]:
    if trainer.algorithm == "sft" or generation.temperature == 0:
        return
    limits = {"top_p": generation.top_p < 1, "top_k": generation.top_k > 0, "min_p": generation.min_p > 0}
    narrowed = [f"generation.{key}" for key, set_ in limits.items() if set_]
    correction = trainer.loss.sampler_correction
    if narrowed and correction is None:
        yield (
            f"{' and '.join(narrowed)}: completions are drawn from a narrowed distribution and scored by the full one,"
            " which biases gradients slightly; trainer.loss.sampler_correction: token_truncate weighs them"
        )
    elif correction and not narrowed:
        yield (
            f"trainer.loss.sampler_correction is {correction}, but neither generation.top_p, generation.top_k nor"
            " generation.min_p narrows sampling, so it does next to nothing"
        )


def _reference(trainer: TrainerConfig, model: ModelConfig) -> Iterator[str]:
    reference = model.ref_model_path
    if reference is None or reference == model.model_path:
        return
    if trainer.grpo_beta == 0:
        yield "model.ref_model_path is never loaded while trainer.grpo_beta is 0"
    elif model.use_lora:
        yield (
            "model.ref_model_path is not used with model.use_lora:"
            " the reference is model.model_path with the adapter off"
        )


def _tags(generation: GenerationConfig, data: DataConfig) -> Iterator[str]:
    if generation.bias_answer_start and not generation.answer_start_tag:
        yield (
            f"generation.bias_answer_start is {generation.bias_answer_start:g} but generation.answer_start_tag"
            " is empty, so it does nothing"
        )
    if generation.think_end_early_bias > 0 and generation.min_think_tokens:
        yield (
            f"generation.think_end_early_bias is {generation.think_end_early_bias:g}: a positive bias pushes"
            f" thinking to close before generation.min_think_tokens ({generation.min_think_tokens}) are reached"
        )
    if generation.max_think_tokens is not None and generation.max_think_tokens >= data.max_gen_len:
        yield (
            f"generation.max_think_tokens ({generation.max_think_tokens}) is never reached within data.max_gen_len"
            f" ({data.max_gen_len})"
        )
