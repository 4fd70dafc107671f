"""Models of random weights in the shape of real ones: speed and memory depend on the shape alone."""

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.llama import Model, ModelArgs  # noqa: TID253 - for scripts, which are started for this

from pipelines import backend

SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
}
"""HuggingFaceTB/SmolLM2-135M's config.json."""

PROMPT_TOKENS = 47


def random_llama(dtype: mx.Dtype | None = None, **shape: int) -> Model:
    """A llama with tied embeddings; SmolLM2-135M's shape where `shape` says nothing else. None: the device's dtype."""
    model = Model(
        ModelArgs(model_type="llama", rms_norm_eps=1e-5, tie_word_embeddings=True, **{**SMOLLM2_135M, **shape})
    )
    dtype = dtype or backend.compute_dtype(mx.bfloat16)
    model.update(tree_map(lambda leaf: leaf.astype(dtype), model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model
