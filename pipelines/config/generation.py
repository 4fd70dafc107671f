"""`generation`: how completions are sampled, and how tags steer thinking and answer.

The biases are added to the raw logits of response tokens, at a tag's next token if it is several tokens long. They are
part of the policy: the recorded log-probabilities and those of the update are those of the biased distribution.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Section


class GenerationConfig(Section):
    """Sampling, tags and tag biases."""

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature of rollouts (0 = greedy)."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the smallest set of tokens with this probability together (1.0 = off)."""

    top_k: int = Field(default=0, ge=0)
    """Sample from the k likeliest tokens (0 = off)."""

    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens less likely than this fraction of the likeliest one (0 = off)."""

    repetition_penalty: float | None = Field(default=None, gt=0)
    """Divide the logits of the last 20 tokens by this, or multiply negative ones (null = off)."""

    think_start_tag: str = "<think>"
    """Tag that opens thinking."""

    think_end_tag: str = "</think>"
    """Tag that closes thinking; the answer is what follows the last one."""

    answer_start_tag: str = ""
    """Tag that opens the answer ("" = none)."""

    answer_end_tag: str = ""
    """Tag that closes the answer: rewards see what stands between the two ("" = none)."""

    bias_close_think: float = 0.0
    """Added to the close tag's logit while thinking is open; negative lengthens thinking."""

    bias_answer_start: float = 0.0
    """Added to the answer tag's logit after thinking, until it appears there. Needs answer_start_tag."""

    punish_extra_think_end: float = 0.0
    """Added to the close tag's logit after thinking; negative discourages a second one."""

    punish_reopen_think: float = 0.0
    """Added to the open tag's logit after thinking; negative discourages a second one."""

    min_think_tokens: int = Field(default=0, ge=0)
    """Thinking tokens below which think_end_early_bias replaces bias_close_think."""

    think_end_early_bias: float = 0.0
    """Added to the close tag's logit below min_think_tokens. Negative delays closing, positive pushes it."""

    max_think_tokens: int | None = Field(default=None, ge=1)
    """Hard budget of thinking tokens; then the close tag is forced, without loss (null = none)."""

    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Texts that end a completion and stay in it, besides the model's end-of-sequence tokens."""

    rollout_batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Completions decoded side by side: a matter of memory and speed only."""
