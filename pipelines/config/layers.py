"""Layer ranges against the depth of a model: an end that overshoots is clipped, a start that does is an error."""

from dataclasses import dataclass

from pipelines.config.experiment import ExperimentConfig
from pipelines.config.trainer import TrainerConfig
from pipelines.errors import ConfigError


@dataclass(frozen=True)
class LayerRanges:
    """The layers, counted from 0, that each region trains, and what had to be clipped."""

    thinking: range
    answer: range
    warnings: tuple[str, ...]


def layer_ranges(trainer: TrainerConfig, num_layers: int) -> LayerRanges:
    """Both regions' ranges in a model of `num_layers`; null ends mean the first and the last layer.

    Raises ConfigError for a range that starts beyond the last layer.
    """
    warnings: list[str] = []
    thinking = _range("thinking", trainer.thinking_layer_start, trainer.thinking_layer_end, num_layers, warnings)
    answer = _range("answer", trainer.answer_layer_start, trainer.answer_layer_end, num_layers, warnings)
    return LayerRanges(thinking, answer, tuple(warnings))


def check_layer_ranges(config: ExperimentConfig, num_layers: int) -> list[str]:
    """Warnings about clipped ranges; nothing is checked while no setting reads the ranges."""
    if not (config.trainer.use_dual_gradients or config.trainer.use_sft_on_answer):
        return []
    return list(layer_ranges(config.trainer, num_layers).warnings)


def _range(region: str, start: int | None, end: int | None, num_layers: int, warnings: list[str]) -> range:
    first, last = start or 0, num_layers - 1 if end is None else end
    start_key, end_key = f"trainer.{region}_layer_start", f"trainer.{region}_layer_end"
    if first >= num_layers:
        raise ConfigError(
            f"{start_key} is {first}, but model.model_path has {num_layers} layers, 0 to {num_layers - 1}",
            hint=f"lower {start_key} and {end_key}, or set them to null for all layers",
        )
    if last >= num_layers:
        warnings.append(
            f"{end_key} is {last}, but model.model_path has {num_layers} layers: clipped to {num_layers - 1}"
        )
    return range(first, min(last, num_layers - 1) + 1)
