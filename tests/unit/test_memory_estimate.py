"""The memory of a run: the estimate from shapes beside what MLX counts when the same shapes are computed."""

import gc
import json
import shutil
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
import train_world
from mlx_lm.models.cache import CacheList, ConcatenateKVCache, KVCache
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import _get_classes, save_config, save_model
from stage_world import tree
from train_world import checkpoint, make_folder, quiet

from pipelines import backend, preprocess, train
from pipelines.bundled import bundled
from pipelines.models import logprobs
from pipelines.models.replay import peak_bytes
from pipelines.training import algorithms
from pipelines.training.assembly import make_updater
from pipelines.training.estimate import estimate
from pipelines.training.forecast import duration
from pipelines.training.probe import probe
from pipelines.training.sequences import Sequences
from pipelines.training.worst import longest, worst

PLUGIN = "from pipelines.rewards import RewardRegistry\n"
DEFAULTS = {"trainer": {"num_training_steps": 2, "ppo_batch_size": 4, "num_rollout_samples": 4}, "plugins": []}
settings = partial(train_world.settings, defaults=DEFAULTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = make_folder(tmp_path_factory.mktemp("memory"), 40, PLUGIN)
    preprocess.run(settings(place, "none"))
    return place


def arrays(config):
    return preprocess.state(config).directory


def foreseen(config):
    from pipelines.tokens.dataset import TokenDataset

    return estimate(config, worst(config, TokenDataset(arrays(config), "train"), algorithms.create(config.trainer)))


# What a graph takes.


def test_an_input_costs_nothing_and_an_output_its_size():
    given = mx.zeros((256, 256))
    assert peak_bytes(lambda a: [[a @ a]], [given]) == given.nbytes


def test_a_view_costs_nothing():
    given = mx.zeros((256, 256))
    assert peak_bytes(lambda a: [[(a.T @ a).reshape(-1)[:5]]], [given]) == given.nbytes


def test_an_input_that_is_given_up_is_written_into():
    given = mx.zeros((256, 256))
    assert peak_bytes(lambda a: [[mx.exp(a)]], [given]) == given.nbytes
    assert peak_bytes(lambda a: [[mx.exp(a)]], [given], given_up=1) == 0


def test_what_a_stage_leaves_counts_and_its_making_does_not_if_so_asked():
    given = mx.zeros((256, 256))

    def stages(a):
        first = (a @ a) @ (a @ mx.exp(a))
        return [[first], [first.sum(axis=0)]]

    assert peak_bytes(stages, [given], uncounted=1) == given.nbytes + 4 * 256
    assert peak_bytes(stages, [given]) >= 3 * given.nbytes


def test_a_chain_takes_what_mlx_counts():
    weights = [mx.full((256, 256), 0.01) for _ in range(12)]
    given = mx.full((512, 256), 0.01)
    mx.eval(weights, given)

    def loss(given, *weights):
        for weight in weights:
            given = given + mx.sigmoid(given @ weight)
        return given.square().sum()

    def stages(given, *weights):
        return [list(mx.grad(loss, argnums=list(range(13)))(given, *weights))]

    found = peak_bytes(stages, [given, *weights])
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(stages(given, *weights))
    assert found == pytest.approx(mx.get_peak_memory() - before, rel=0.1)


def test_nothing_of_the_weights_is_read_but_the_embedding(folder):
    gc.collect()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    found = foreseen(settings(folder, "unread"))
    assert mx.get_peak_memory() - before < found.weights / 5


# What a run takes.

CONFIGURATIONS = {
    "full": {},
    "lora": {"model": {"use_lora": True}},
    "wide": {"trainer": {"num_rollout_samples": 8}, "data": {"max_gen_len": 12}},
    "long": {"trainer": {"ppo_batch_size": 2, "num_rollout_samples": 2}, "data": {"max_gen_len": 80}},
    "in-parts": {"generation": {"rollout_batch_size": 8}, "trainer": {"micro_batch_tokens": 128}},
    "reference": {"trainer": {"grpo_beta": 0.1}},
    "checkpointed": {"trainer": {"grad_checkpoint": True}},
    "quantised": {"model": {"use_lora": True, "quantize_bits": 4}},
    "dual": {"trainer": {"use_dual_gradients": True, "thinking_layer_end": 1, "answer_layer_start": 1}},
    "cut-off-unheard": {
        "trainer": {
            "loss": {"mask_truncated_completions": True},
            "use_dual_gradients": True,
            "thinking_gradient_weight": 0,
        }
    },
    "biased": {"generation": {"punish_reopen_think": -1.0, "repetition_penalty": 1.1}},
    "ppo": {"trainer": {"algorithm": "ppo"}},
    "sft": {"trainer": {"algorithm": "sft", "ppo_batch_size": 24}},
    "supervised-term": {"trainer": {"use_sft_on_answer": True, "num_iterations": 2}},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_estimate_is_near_what_the_longest_update_takes(folder, name):
    config = settings(folder, name, **CONFIGURATIONS[name])
    found = foreseen(config)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    measured = probe(config, arrays(config)).peak - before
    assert found.peak == pytest.approx(measured, rel=0.2)


SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "intermediate_size": 288,
    "num_attention_heads": 16,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 8,
    "tie_word_embeddings": True,
}
GEMMA2 = SIZES | {"model_type": "gemma2"}
GEMMA3 = SIZES | {"model_type": "gemma3_text", "sliding_window": 64, "sliding_window_pattern": 2}
OF_OTHER_ARCHITECTURES = {
    "gemma2": (GEMMA2 | {"num_key_value_heads": 16}, {}),
    "gemma2-key-heads-shared": (GEMMA2 | {"num_key_value_heads": 2}, {}),
    "gemma2-as-many-key-heads-as-rows": (
        GEMMA2 | {"num_key_value_heads": 8},
        {"trainer": {"ppo_batch_size": 1, "num_rollout_samples": 8}, "data": {"max_gen_len": 12}},
    ),
    "gemma3": (GEMMA3 | {"num_key_value_heads": 4}, {}),
}


def with_random_weights(place, sizes):
    """A model with the built-in one's tokenizer; the path of its directory."""
    shutil.copytree(bundled("tiny-model"), place)
    config = json.loads((place / "config.json").read_text()) | sizes
    save_config(config, place / "config.json")
    architecture, arguments = _get_classes(config)
    save_model(place, architecture(arguments.from_dict(config)))
    return str(place)


@pytest.mark.parametrize("name", OF_OTHER_ARCHITECTURES)
def test_other_architectures_have_an_estimate_too(folder, tmp_path, name):
    """gemma2 takes the rows of a mask for key heads: whether a run can share is a matter of shapes there."""
    sizes, changes = OF_OTHER_ARCHITECTURES[name]
    path = with_random_weights(tmp_path / "model", sizes)
    config = settings(folder, name, model={"model_path": path}, **changes)
    preprocess.run(config)
    found = foreseen(config)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    measured = probe(config, arrays(config)).peak - before
    assert found.peak == pytest.approx(measured, rel=0.2)


def test_a_run_logs_the_peak_that_was_estimated(folder):
    """Every completion of the built-in model is cut off at so few tokens, and all of them are learnt from."""
    trainer = {"num_rollout_samples": 8, "advantage": {"drop_zero_variance_groups": False}}
    config = settings(folder, "logged", data={"max_gen_len": 8}, trainer=trainer)
    found = foreseen(config)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    train.run(config, options=quiet())
    lines = (folder / "logged" / "metrics.jsonl").read_text().splitlines()
    assert found.peak == pytest.approx(json.loads(lines[-1])["memory/peak_gb"] * 1e9 - before, rel=0.2)


def test_without_arrays_the_limits_of_the_configuration_count(folder):
    config = settings(folder, "limits", data={"max_prompt_len": 64})
    rows = worst(config, None, algorithms.create(config.trainer))
    assert [len(prompt) for prompt in rows.prompts] == [64] * 4
    assert len({prompt.tobytes() for prompt in rows.prompts}) == 4, "equal prompts would count as one group"
    assert not rows.seen
    assert estimate(config, rows).peak > foreseen(config).peak


class Listed(CacheList):
    """A list of one cache, for layers that know nothing of lists."""

    def __init__(self):
        super().__init__(KVCache())

    offset = property(lambda self: self[0].offset)

    def update_and_fetch(self, keys, values):
        return self[0].update_and_fetch(keys, values)

    def make_mask(self, *args, **kwargs):
        return self[0].make_mask(*args, **kwargs)


@pytest.mark.parametrize("kind", [ConcatenateKVCache, Listed])
def test_a_model_whose_rows_cannot_share_a_batch_has_an_estimate(folder, monkeypatch, kind):
    config = settings(folder, "alone")
    together = foreseen(config).rollouts
    monkeypatch.setattr(Model, "make_cache", lambda self: [kind() for _ in self.layers], raising=False)
    assert 0 < foreseen(config).rollouts < together


def test_the_longest_rows_begin_again_where_there_are_too_few(folder):
    from pipelines.tokens.dataset import TokenDataset

    dataset = TokenDataset(arrays(settings(folder, "none")), "train")
    rows = longest(dataset, 50)
    assert sorted(rows[:40]) == list(range(40))
    assert rows[40:] == rows[:10]
    lengths = dataset.prompts.lengths()[rows[:40]]
    assert (np.diff(lengths) <= 0).all()


def test_a_probe_leaves_no_trace(folder):
    """Not in a folder, and not in the bits of a run that begins after it in the same process."""
    plain, probed = (settings(folder, name, model={"use_lora": True}) for name in ("plain", "probed"))
    train.run(plain, options=quiet())
    before = tree(folder)
    found = train.probe(probed)
    assert tree(folder) == before
    assert found["measured"]["peak_gb"] > 0
    train.run(probed, options=quiet())
    weights = [mx.load(str(checkpoint(config) / "adapters.safetensors")) for config in (plain, probed)]
    assert all(mx.array_equal(leaf, weights[1][name]).item() for name, leaf in weights[0].items())


def test_the_time_is_that_of_the_last_updates(folder):
    config = settings(folder, "timed", trainer={"num_training_steps": 10})
    log = folder / "times.jsonl"
    assert "no update of this run" in duration(config, log)["unknown"]
    log.write_text("".join(json.dumps({"step": n, "time/step_seconds": n}) + "\n" for n in (1, 2, 3, 4, 90)))
    log.write_text(log.read_text().replace("90,", "5,"))
    found = duration(config, log)
    assert (found["update_seconds"], found["left_updates"], found["left_seconds"]) == (3, 5, 15)


# What an update may not take.

VOCABULARY, ROWS, LENGTH = 16_384, 8, 128


def update_bytes():
    """The peak of an update of a model that is little more than its head, beyond its weights."""
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=1,
            intermediate_size=32,
            num_attention_heads=1,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
        )
    )
    mx.eval(model.parameters())
    config = train_world.ExperimentConfig().trainer
    updater = make_updater(
        model,
        algorithms.create(config),
        None,
        full_finetuning=True,
        temperature=1.0,
        micro_batch_tokens=ROWS * LENGTH,
        budget_tokens=LENGTH - 2,
    )
    updater.check.agreed = True  # the log-probabilities below are nobody's
    rows = Sequences(
        prompts=[np.array([1, 2], np.int32)] * ROWS,
        completions=[np.arange(LENGTH - 2, dtype=np.int32)] * ROWS,
        advantages=np.resize(np.array([1, -1], np.float32), ROWS),
        silent=np.zeros(ROWS, bool),
        sampler_logprobs=[np.zeros(LENGTH - 2, np.float32)] * ROWS,
    )
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    updater.update(rows)
    return mx.get_peak_memory() - before


@pytest.mark.skipif(backend.compute_dtype(mx.float32) != mx.float32, reason="of a float32 model")
def test_an_update_never_holds_the_logits_of_all_positions(monkeypatch):
    logits = 4 * ROWS * LENGTH * VOCABULARY
    assert update_bytes() > logits, "the test would not notice"
    monkeypatch.setattr(logprobs, "PART_BYTES", {"cpu": 2**20, "gpu": 2**20})
    assert update_bytes() < logits
