"""The supervised term beside a policy loss: teacher forcing on the references of an update's prompts.

L_SFT = w_think CE_think + w_answer CE_answer with CE_r = -(1/M_r) sum_it [t in r] log p(y_it | x_i, y_i<t), M_r all the
update's reference tokens in region r. The mode says which regions count: the answer alone (w_answer = 1), or both with
`sft_thinking_weight` and `sft_answer_weight`. It joins the update's loss times `sft_weight`; which layers it trains is
said by `training.passes`.
"""

import mlx.core as mx

from pipelines.algorithms.base import Batch
from pipelines.algorithms.losses import LossOutput


class SftTerm:
    """The loss of one update's references; `thinking_tokens` and `answer_tokens` are its M."""

    def __init__(self, thinking_tokens: int, answer_tokens: int) -> None:
        self.thinking_tokens = thinking_tokens
        self.answer_tokens = answer_tokens

    def loss(self, logprobs: mx.array, batch: Batch) -> LossOutput:
        """The micro-batch's share of CE_think + CE_answer over the mask; the passes weigh the regions' gradients."""
        regions = {"thinking": (batch.thinking, self.thinking_tokens), "answer": (~batch.thinking, self.answer_tokens)}
        found = {
            name: -mx.where(batch.mask & region, logprobs, 0.0).sum() / max(tokens, 1)
            for name, (region, tokens) in regions.items()
        }
        metrics = {f"sft_loss/{name}": mx.stop_gradient(loss) for name, loss in found.items()}
        return LossOutput(found["thinking"] + found["answer"], metrics)
