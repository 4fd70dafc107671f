"""`data`: where rows come from, which of their fields count, and how long they may be."""

from typing import Any, Literal

from pydantic import Field

from pipelines.config.section import Section


class SyntheticConfig(Section):
    """A generated task, read by `loader_type: synthetic`."""

    task: str = Field(default="arithmetic", min_length=1)
    """Generator of the rows. One of arithmetic, countdown, letter_counting, list_sorting, string_reversal, mcq,
    or the name of a reasoning-gym data set."""

    train_rows: int = Field(default=5000, ge=1)
    """Number of training rows to generate."""

    val_rows: int = Field(default=500, ge=0)
    """Number of validation rows to generate, none of which is a training row."""

    difficulty: int = Field(default=2, ge=1)
    """How hard the rows are; for arithmetic the digits of an operand."""

    seed: int = Field(default=0, ge=0)
    """Seed of the generator: the same one gives the same rows."""

    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further settings of the generator, checked by the generator itself."""


class DataConfig(Section):
    """The data set: source, fields, limits."""

    train_path: str = Field(default="builtin:arithmetic", min_length=1)
    """Training rows: a file, an array prefix (npy), or builtin:arithmetic."""

    val_path: str | None = Field(default=None, min_length=1)
    """Validation rows (null = val_fraction of the training rows). builtin:arithmetic brings its own."""

    val_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the training rows set aside for validation when val_path is null."""

    loader_type: str = Field(default="jsonl", min_length=1)
    """Kind of source: jsonl, npy, hf, synthetic, or one that a plugin registers."""

    prompt_key: str = Field(default="prompt", min_length=1)
    """Field of a row that holds the prompt."""

    completion_key: str = Field(default="completion", min_length=1)
    """Field of a row that holds the reference completion."""

    columns: dict[str, str] = Field(default_factory=dict[str, str])
    """Other names for fields or columns, such as {question: prompt, choices: meta.options}; meta.NAME puts one
    into meta."""

    system_prompt: str | None = None
    """System message in front of each prompt; a row's own system field wins (null = none)."""

    max_prompt_len: int = Field(default=64, ge=1, le=1_048_576)
    """Most tokens of a rendered prompt; long_prompts says what happens to longer ones."""

    max_gen_len: int = Field(default=64, ge=1, le=1_048_576)
    """Most tokens of a completion; longer ones are cut off and count as truncated."""

    long_prompts: Literal["drop", "truncate_left", "error"] = "drop"
    """What to do with prompts longer than max_prompt_len: drop, truncate_left or error."""

    on_bad_row: Literal["error", "skip"] = "error"
    """What to do with a row that cannot be used: stop with an error, or skip and count it."""

    limit: int | None = Field(default=None, ge=1)
    """Read only so many rows of each source (null = all)."""

    shuffle_data: bool = True
    """Visit prompts in a new random order each epoch."""

    hf_name: str | None = Field(default=None, min_length=1)
    """Name of a data set on the Hugging Face hub, for loader_type hf (null = read train_path)."""

    hf_revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit of hf_name, 40 hex digits: what a branch or tag names may change without notice."""

    hf_subset: str | None = Field(default=None, min_length=1)
    """Subset (configuration) of the Hugging Face data set, where it has several."""

    hf_split: str = Field(default="train", min_length=1)
    """Split of the Hugging Face data set to train on."""

    hf_val_split: str | None = Field(default=None, min_length=1)
    """Split with the validation rows (null = val_path or val_fraction)."""

    pad_id: int | None = None
    """Id that fills up rows of rectangular arrays, for loader_type npy (null = the tokenizer's pad token, else EOS)."""

    pad_side: Literal["both", "right", "left"] = "both"
    """Where rows of rectangular arrays are filled up; right keeps a BOS that is the pad id too."""

    synthetic: SyntheticConfig = SyntheticConfig()
    """A generated task, for loader_type synthetic."""
