"""`model`: which weights, and which of them learn."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Section


class ModelConfig(Section):
    """The model, its reference, and LoRA."""

    model_path: str = Field(default="builtin:tiny", min_length=1)
    """The model to train: a local directory, a hub id such as owner/name, or builtin:tiny."""

    ref_model_path: str | None = Field(default=None, min_length=1)
    """Reference model of the KL term (null = model_path as it was before training).
    With LoRA the reference is always the base with the adapter off, and takes no second copy."""

    use_lora: bool = False
    """Train low-rank adapters instead of all weights."""

    lora_rank: int = Field(default=8, ge=1)
    """Rank of the adapters."""

    lora_alpha: float = Field(default=16.0, gt=0)
    """Adapters are scaled by lora_alpha / lora_rank."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapters while training."""

    lora_target_modules: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Linear layers that get adapters, such as self_attn.q_proj (null = all)."""

    lora_layers: int = Field(default=-1, ge=-1)
    """Number of layers, counted from the last, that get adapters (-1 = all)."""

    quantize_bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    """Quantise the frozen base weights under LoRA to so many bits (null = do not)."""
