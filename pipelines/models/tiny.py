"""The blank of the built-in model: a small llama with a character tokenizer, before any training.

`python -m pipelines.models.tiny DIR` writes it; `make tiny-model` then trains it with `algorithm: sft`.
"""

import json
import string
import sys
from pathlib import Path

import mlx.core as mx

from pipelines.models.leaves import leaves
from pipelines.models.save import save_weights

SPECIAL = ["<|pad|>", "<|end|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>"]
TAGS = ["<think>", "</think>"]
CHARACTERS = ["\n", *(c for c in string.printable if c.isprintable())]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def config() -> dict[str, object]:
    """config.json: 3 layers, width 96, about a third of a million parameters.

    Heads are 32 wide: with 24, `mx.fast.rope` with an offset per row fails on CUDA (MLX 0.32.4,
    "cudaGraphAddKernelNode invalid argument").
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": len(SPECIAL) + len(TAGS) + len(CHARACTERS),
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": SPECIAL.index("<|end|>"),
        "pad_token_id": SPECIAL.index("<|pad|>"),
    }


def write_tokenizer(directory: Path) -> None:
    """One token per printable ASCII character, the two tags and the chat marks; anything else is unknown."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *TAGS, *CHARACTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<|unknown|>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    ).save_pretrained(str(directory))


def write_blank(directory: Path, seed: int = 0) -> None:
    """Write config, tokenizer and random weights (normal, standard deviation 0.05; norms 1)."""
    from mlx_lm.models.llama import Model, ModelArgs

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config(), indent=2) + "\n")
    write_tokenizer(directory)
    model = Model(ModelArgs.from_dict(config()))
    blank = sorted(leaves(model.parameters()).items())
    keys = mx.random.split(mx.random.key(seed), len(blank))
    weights = [
        (name, mx.ones(leaf.shape) if leaf.ndim == 1 else 0.05 * mx.random.normal(leaf.shape, key=key))
        for key, (name, leaf) in zip(keys, blank, strict=True)
    ]
    model.load_weights(weights)
    save_weights(directory / "model.safetensors", dict(weights))


if __name__ == "__main__":
    write_blank(Path(sys.argv[1]))
