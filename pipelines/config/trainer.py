"""`trainer`: how many prompts an update sees, how far it steps, and what the loss is made of.

Batch arithmetic in one line: an update learns from B = ppo_batch_size * grad_accum_steps prompts,
each with G = num_rollout_samples completions, so N = B * G completions, and takes num_iterations
optimizer steps from them, one by default.
How many of them pass through memory at a time is `micro_batch_tokens`, which never changes the result.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.advantage import AdvantageConfig
from pipelines.config.loss import LossConfig
from pipelines.config.ppo import PpoConfig
from pipelines.config.schedule import LrScheduleConfig
from pipelines.config.section import Directory, Section


class TrainerConfig(Section):
    """The training loop: batch, optimizer, algorithm, loss."""

    algorithm: str = Field(default="grpo", min_length=1)
    """Algorithm to train with: grpo, ppo, sft, or one that a plugin registers."""

    output_dir: Directory = "./outputs/run"
    """Directory of the run: checkpoints, metrics, samples and log."""

    num_training_steps: int = Field(default=110, ge=1)
    """Number of updates; each learns from fresh rollouts, in num_iterations optimizer steps. A run goes on if it is
    raised."""

    learning_rate: float = Field(default=3e-4, ge=0)
    """Step size of AdamW when lr_schedule_config is null, which otherwise decides."""

    optimizer_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the mean gradient."""

    optimizer_beta2: float = Field(default=0.99, ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""

    optimizer_weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay (0 = none)."""

    lr_schedule_config: LrScheduleConfig | None = None
    """Learning rate schedule with warm-up (null = constant learning_rate)."""

    ppo_batch_size: int = Field(default=64, ge=1)
    """Prompts per accumulation step; times grad_accum_steps = prompts per update.
    Completions per update are that times num_rollout_samples. It is no memory setting: see micro_batch_tokens."""

    num_rollout_samples: int = Field(default=4, ge=1)
    """Completions per prompt: the group whose rewards are compared with each other."""

    grad_accum_steps: int = Field(default=1, ge=1)
    """Accumulation steps per update; times ppo_batch_size = prompts per update."""

    num_iterations: int = Field(default=1, ge=1)
    """Optimizer steps made from each batch of rollouts (1 = on-policy).
    The learning rate schedule counts all of them."""

    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Tokens that pass through the model at a time; memory only, never the result."""

    grad_clip_norm: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; longer ones are scaled down to it (0 = no clipping)."""

    grad_checkpoint: bool = False
    """Recompute activations in the backward pass, to trade time for memory. On a GPU that is done anyway."""

    master_weights: Literal["auto", "float32", "none"] = "auto"
    """Whether to step a float32 copy of the weights; auto = if all of a 16-bit model is trained."""

    grpo_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the reference model (0 = off, and no reference is loaded)."""

    seed: int = Field(default=0, ge=-1, le=2**32 - 1)
    """Seed of everything random in the run (-1 = drawn once and recorded).
    Evaluations and samples never draw one: -1 is 0 to them, so that two of them compare the same."""

    loss: LossConfig = LossConfig()
    """The policy loss."""

    advantage: AdvantageConfig = AdvantageConfig()
    """The advantage of each completion over its baseline."""

    ppo: PpoConfig = PpoConfig()
    """Settings of algorithm ppo."""

    use_dual_gradients: bool = False
    """Train thinking and answer tokens on layer ranges of their own."""

    thinking_layer_start: int | None = Field(default=None, ge=0)
    """First layer, counted from 0, that learns from thinking tokens (null = the first)."""

    thinking_layer_end: int | None = Field(default=None, ge=0)
    """Last layer, itself included, that learns from thinking tokens (null = the last)."""

    answer_layer_start: int | None = Field(default=None, ge=0)
    """First layer, counted from 0, that learns from answer tokens (null = the first)."""

    answer_layer_end: int | None = Field(default=None, ge=0)
    """Last layer, itself included, that learns from answer tokens (null = the last)."""

    thinking_gradient_weight: float = Field(default=1.0, ge=0)
    """Weight of the thinking tokens' gradient under dual gradients."""

    answer_gradient_weight: float = Field(default=1.0, ge=0)
    """Weight of the answer tokens' gradient under dual gradients."""

    dual_train_other_params: bool = False
    """With dual gradients, also train what is in no layer: embeddings, norm, head."""

    use_sft_on_answer: bool = False
    """Add a supervised term on the reference completion to each update."""

    sft_mode: Literal["all", "answer_only", "exclude_thinking", "weighted"] = "all"
    """Layers the supervised term trains. all = every layer; answer_only = the answer range;
    exclude_thinking = all but the thinking range; weighted = each range on its own region of the reference."""

    sft_weight: float = Field(default=0.2, ge=0)
    """Weight of the supervised term in the loss."""

    sft_thinking_weight: float = Field(default=0.0, ge=0)
    """Weight of the reference's thinking tokens in sft_mode weighted."""

    sft_answer_weight: float = Field(default=1.0, ge=0)
    """Weight of the reference's answer tokens in sft_mode weighted."""

    eval_every: int = Field(default=0, ge=0)
    """Updates between evaluations during training (0 = never).
    The benchmarks are those of the evaluation section. The starting model and the last update are evaluated too.
    Training is the same to the bit with or without."""

    early_stop_after: int = Field(default=0, ge=0)
    """End the run after so many evaluations in a row that did not better checkpointing.best_metric (0 = never)."""

    abort_after_dead_updates: int = Field(default=50, ge=0)
    """End the run after so many updates in a row that taught nothing (0 = never)."""

    @property
    def evaluation_seed(self) -> int:
        """Seed of evaluations and samples, which is fixed even where the run draws its own."""
        return max(0, self.seed)

    @property
    def prompts_per_update(self) -> int:
        """B, the prompts behind one update."""
        return self.ppo_batch_size * self.grad_accum_steps

    @property
    def full_learning_rate(self) -> float:
        """The learning rate after the warm-up, from which a schedule may go down."""
        return self.learning_rate if self.lr_schedule_config is None else float(self.lr_schedule_config.arguments[0])

    @property
    def completions_per_update(self) -> int:
        """N = B * G, the completions behind one update."""
        return self.prompts_per_update * self.num_rollout_samples
