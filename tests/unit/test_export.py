"""Exports answer as their checkpoints do, in mlx-lm and in transformers; what cannot be is told before any work."""

import json
import shutil
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from pipelines import export, preprocess, train
from pipelines.bundled import bundled
from pipelines.config import ExperimentConfig, ModelConfig
from pipelines.errors import CheckpointError, ConfigError, ModelError
from pipelines.evaluation.completions import complete
from pipelines.evaluation.questions import rendered
from pipelines.evaluation.targets import STARTING_MODEL, target
from pipelines.export import Request
from pipelines.models.fuse import GGUF_FILE
from pipelines.models.load import load
from pipelines.models.lora import apply_lora, lora_modules
from pipelines.models.save import copy_companions, save_adapter
from pipelines.rows.records import Row
from pipelines.training.options import Options

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
QUESTIONS = ("12+34=?", "70-18=?", "6*7=?")
MOST_TOKENS = 40


def settings(folder, *, lora=False, **model):
    return ExperimentConfig.model_validate(
        {
            "trainer": {
                "output_dir": str(folder / ("lora" if lora else "full")),
                "num_training_steps": 2,
                "ppo_batch_size": 4,
                "learning_rate": 1e-3 if lora else 1e-4,
                "algorithm": "sft",
            },
            "model": {"use_lora": lora, **model},
            "data": {"train_path": str(folder / "rows.jsonl"), "max_gen_len": MOST_TOKENS},
            "paths": {"stages": str(folder / "stages")},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two short runs, one of all weights and one of adapters."""
    place = tmp_path_factory.mktemp("export")
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:16]))
    for lora in (False, True):
        config = settings(place, lora=lora)
        preprocess.run(config)
        train.run(config, options=Options(quiet=True))
    return place


@pytest.fixture(params=["full", "lora"])
def trained(request, folder):
    config = settings(folder, lora=request.param == "lora")
    return config, target(config)


@cache
def _answers(place, lora):
    """What our engine says greedily of a run's newest checkpoint, and the tokens it was asked with."""
    config = settings(place, lora=lora)
    loaded = target(config).load(config)
    asked = rendered(loaded.tokenizer, [Row(question) for question in QUESTIONS], config)
    greedy = config.generation.model_copy(update={"temperature": 0.0})
    batches = complete(loaded, asked, greedy, group_size=1, max_tokens=MOST_TOKENS, seed=0, purpose="eval")
    said = [context.generated_text for batch in batches for context in batch.contexts]
    return said, [prompt.tokens.tolist() for prompt in asked]


def answers(config):
    return _answers(Path(config.trainer.output_dir).parent, config.model.use_lora)


def said_by_mlx(model, tokenizer, asked):
    return [mlx_lm.generate(model, tokenizer, tokens, max_tokens=MOST_TOKENS) for tokens in asked]


def test_mlx_lm_says_the_same(trained, tmp_path):
    config, model = trained
    said, asked = answers(config)
    export.run(config, tmp_path / "out", target=model)
    assert said_by_mlx(*mlx_lm.load(str(tmp_path / "out")), asked) == said


def test_a_run_without_a_checkpoint_is_not_exported_as_its_base(folder, tmp_path):
    """A mistyped output_dir would ship the untrained model."""
    config = settings(tmp_path)
    with pytest.raises(CheckpointError, match="full holds no checkpoint"):
        export.run(config, tmp_path / "out", target=target(config))
    with pytest.raises(CheckpointError, match="full holds no checkpoint"):
        export.run(config, tmp_path / "out", target=target(config), request=Request(adapter_only=True))
    assert not (tmp_path / "out").exists()
    export.run(config, tmp_path / "out", target=target(config, "base"))


def test_the_runs_say_something_else_than_the_base(folder):
    """Otherwise fusing nothing would pass."""
    base = said_by_mlx(*mlx_lm.load(str(bundled("tiny-model"))), answers(settings(folder))[1])
    for lora in (False, True):
        assert answers(settings(folder, lora=lora))[0] != base


def test_transformers_says_the_same(trained, tmp_path):
    torch = pytest.importorskip("torch", reason="transformers needs torch to run a model, and nothing else here does")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, model = trained
    said, asked = answers(config)
    export.run(config, tmp_path / "out", target=model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for text, tokens in zip(said, asked, strict=True):
        ids = torch.tensor([tokens])
        made = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MOST_TOKENS)
        assert tokenizer.decode(made[0, len(tokens) :], skip_special_tokens=True) == text
    assert "<|assistant|>" in tokenizer.chat_template


def test_adapters_alone_say_the_same(folder, tmp_path):
    config = settings(folder, lora=True)
    said, asked = answers(config)
    found = export.run(config, tmp_path / "out", target=target(config), request=Request(adapter_only=True))
    assert {"adapters.safetensors", "adapter_config.json", "README.md"} <= set(found.files)
    assert "model.safetensors" not in found.files
    loaded = mlx_lm.load(str(bundled("tiny-model")), adapter_path=str(tmp_path / "out"))
    assert said_by_mlx(*loaded, asked) == said


def test_nothing_else_is_needed(trained, tmp_path):
    config, model = trained
    found = export.run(config, tmp_path / "new" / "out", target=model)
    needed = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"}
    assert needed <= set(found.files)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert json.loads((tmp_path / "new" / "out" / "generation_config.json").read_text())["eos_token_id"] == [1]


def test_another_type_is_in_weights_and_configuration(folder, tmp_path):
    config = settings(folder)
    export.run(config, tmp_path / "out", target=target(config), request=Request(dtype="bfloat16"))
    weights = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {leaf.dtype for leaf in weights.values()} == {mx.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_quantised_by_mlx_lm(folder, tmp_path):
    config = settings(folder)
    export.run(config, tmp_path / "out", target=target(config), request=Request(bits=8, group_size=32))
    said, asked = answers(config)
    model, tokenizer = mlx_lm.load(str(tmp_path / "out"))
    assert (model.layers[0].mlp.up_proj.bits, model.layers[0].mlp.up_proj.group_size) == (8, 32)
    assert said_by_mlx(model, tokenizer, asked)[0] == said[0]
    assert "before its weights were rounded" not in (tmp_path / "out" / "README.md").read_text()  # there is no score


def test_layers_that_groups_do_not_fit_are_told_of(folder, tmp_path, caplog):
    config = settings(folder)
    export.run(config, tmp_path / "out", target=STARTING_MODEL, request=Request(bits=4, group_size=64))
    assert (
        "19 of 22 matrices are no multiple of 64 wide and stay as they are; groups of 32 fit all of them" in caplog.text
    )


def test_groups_that_fit_no_layer(folder, tmp_path):
    narrow = tmp_path / "narrow"
    shutil.copytree(bundled("tiny-model"), narrow)
    config = settings(folder, model_path=str(narrow))
    described = json.loads((narrow / "config.json").read_text()) | {"intermediate_size": 96}
    (narrow / "config.json").write_text(json.dumps(described))
    weights = mx.load(str(narrow / "model.safetensors"))
    cut = {name: leaf[:, :96] if "down_proj" in name else leaf[:96] for name, leaf in weights.items() if "mlp" in name}
    mx.eval(cut)
    mx.save_safetensors(str(narrow / "model.safetensors"), weights | cut)
    with pytest.raises(ModelError, match="no layer is a multiple of 128"):
        export.run(config, tmp_path / "out", target=STARTING_MODEL, request=Request(bits=4, group_size=128))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """The built-in model in bfloat16 and 4 bits, and adapters on it that hold more numbers than all else."""
    base, adapters = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("adapters")
    model, config = load_model(bundled("tiny-model"))
    model.set_dtype(mx.bfloat16)
    model, config = quantize_model(model, config, 32, 4)
    copy_companions(base, bundled("tiny-model"))
    save_model(base, model)
    save_config(config, base / "config.json")
    lora = ModelConfig(use_lora=True, lora_rank=48)
    adapted = load(str(base)).model
    apply_lora(adapted, lora, 0)
    for number, (_, module) in enumerate(lora_modules(adapted)):
        module.lora_b = 0.02 * mx.random.normal(module.lora_b.shape, key=mx.random.key(number))
    save_adapter(adapters, adapted, lora, str(base))
    return base, adapters


def test_a_quantised_base_stays_quantised_in_its_own_type(folder, quantised, tmp_path):
    base, adapters = quantised
    config = settings(folder, lora=True, model_path=str(base))
    export.run(config, tmp_path / "out", target=target(config, adapters))
    weights = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {leaf.dtype for leaf in weights.values()} == {mx.uint32, mx.bfloat16}
    assert "model.layers.0.self_attn.q_proj.scales" in weights
    assert not [name for name in weights if "lora" in name]
    mlx_lm.load(str(tmp_path / "out"))
    with pytest.raises(ModelError, match="quantised already"):
        export.run(config, tmp_path / "again", target=STARTING_MODEL, request=Request(bits=4))


def test_adapters_on_another_base_are_warned_of(folder, tmp_path, caplog):
    shutil.copytree(bundled("tiny-model"), tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").write_text("another one")
    for base, warned in (("builtin:tiny", False), (str(tmp_path / "other"), True)):
        config = settings(folder, lora=True, model_path=base)
        export.run(config, tmp_path / f"out{warned}", target=target(config), request=Request(adapter_only=True))
        assert ("is not the model that these adapters were trained on" in caplog.text) == warned


def test_gguf_of_a_llama(folder, tmp_path):
    config = settings(folder, lora=True)
    export.run(config, tmp_path / "out", target=target(config), request=Request(gguf=True))
    arrays, metadata = mx.load(str(tmp_path / "out" / GGUF_FILE), return_metadata=True)
    fused = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert mx.array_equal(arrays["blk.0.ffn_up.weight"], fused["model.layers.0.mlp.up_proj.weight"].astype(mx.float16))
    assert arrays["output_norm.weight"].dtype == mx.float32
    assert metadata["general.architecture"] == "llama"
    assert len(metadata["tokenizer.ggml.tokens"]) == 104


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "qwen3"}, "not qwen3"),
        ({"quantization": {"bits": 4, "group_size": 32}}, "weights are quantised"),
        ({"head_dim": 64}, "heads are not"),
        ({"attention_bias": True}, "biases"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "not linear"),
    ],
)
def test_gguf_is_refused_before_any_work(folder, tmp_path, changes, reason):
    model = tmp_path / "model"
    shutil.copytree(bundled("tiny-model"), model)
    described = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(described))
    (model / "model.safetensors").write_bytes(b"not read")
    config = settings(folder, model_path=str(model))
    with pytest.raises(ModelError, match=reason):
        export.run(config, tmp_path / "out", target=STARTING_MODEL, request=Request(gguf=True))
    assert not (tmp_path / "out").exists()


def test_gguf_has_no_byte_level_tokenizers(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(bundled("tiny-model"), model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="byte-level"):
        export.run(
            settings(folder, model_path=str(model)), tmp_path / "out", target=STARTING_MODEL, request=Request(gguf=True)
        )


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(adapter_only=True), "has no adapters"),
        (Request(bits=4, gguf=True), "--gguf excludes --quantize"),
        (Request(bits=7), "--quantize: 7"),
        (Request(bits=4, group_size=48), "--group-size: 48"),
        (Request(dtype="int8"), "--dtype: int8"),
    ],
    ids=["adapters of a model", "gguf and bits", "bits", "group size", "dtype"],
)
def test_requests_that_cannot_be(folder, tmp_path, request_, message):
    with pytest.raises(ConfigError, match=message):
        export.run(settings(folder), tmp_path / "out", target=STARTING_MODEL, request=request_)
    assert not list(tmp_path.iterdir())


def test_adapters_are_copied_as_they_are(folder, tmp_path):
    config = settings(folder, lora=True)
    with pytest.raises(ConfigError, match="--adapter-only excludes --dtype"):
        export.run(config, tmp_path, target=target(config), request=Request(adapter_only=True, dtype="float16"))


def test_nothing_is_overwritten(folder, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for output, reason in ((tmp_path, "not empty"), (tmp_path / "note.txt", "is a file")):
        with pytest.raises(ConfigError, match=reason):
            export.run(settings(folder), output, target=STARTING_MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    export.run(settings(folder), tmp_path / "link", target=STARTING_MODEL)
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_a_damaged_checkpoint_is_not_exported(folder, tmp_path):
    config = settings(folder)
    copy = tmp_path / target(config).name
    shutil.copytree(target(config).directory, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: content changed"):
        export.run(config, tmp_path / "out", target=target(config, copy))
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*_args, **_keys):
        raise RuntimeError("[save_safetensors] Failed to write")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(ModelError, match="cannot be written"):
        export.run(settings(folder), tmp_path / "out", target=STARTING_MODEL)
    assert not list(tmp_path.iterdir())
