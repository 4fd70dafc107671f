"""`grpo train` with layer ranges: what is trained, what is remarked upon, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
CONFIG = """\
trainer:
  num_training_steps: 2
  ppo_batch_size: 8
  use_dual_gradients: true
  thinking_layer_end: 1
  answer_layer_start: 1
  use_sft_on_answer: true
  sft_mode: answer_only
generation: {max_think_tokens: 12, bias_close_think: -1.0}
data: {train_path: rows.jsonl, max_gen_len: 24}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli_regions")
    (place / "rows.jsonl").write_text("".join(ROWS.read_text().splitlines(keepends=True)[:40]))
    (place / "config.yaml").write_text(CONFIG)
    return place


def grpo_train(folder, *words):
    command = [sys.executable, "-m", "grpo_cli", "train", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_regions_train_and_a_range_beyond_the_model_is_clipped_with_a_warning(folder):
    result = grpo_train(folder, "-s", "trainer.answer_layer_end=32", "-s", "trainer.output_dir=clipped")
    assert result.returncode == 0, result.stderr
    (warning,) = (line for line in result.stderr.splitlines() if "answer_layer_end" in line)
    assert warning.startswith("warning: ")
    assert "32" in warning
    assert "332,352 trainable parameters" in result.stderr  # embeddings and the last norm are frozen
    lines = [json.loads(line) for line in (folder / "clipped" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["sft_loss"] > 0 for line in lines)
    compared = [line for line in lines if line["frac_reward_zero_std"] < 1]
    assert compared
    for line in compared:
        assert {"loss/thinking", "loss/answer"} <= line.keys()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trainer.thinking_layer_start=5", "trainer.thinking_layer_end=6"), "trainer.thinking_layer_start is 5"),
        (("model.use_lora=true", "model.lora_layers=1"), "hold no layer with trainable leaves"),
        (("trainer.algorithm=sft",), "trainer.use_sft_on_answer"),
    ],
)
def test_ranges_that_train_nothing_are_refused(folder, words, told):
    settings = [part for word in words for part in ("-s", word)]
    result = grpo_train(folder, "-q", "-s", "trainer.output_dir=refused", *settings)
    assert (result.returncode, result.stdout) == (2, "")
    error, hint = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert told in error
    assert hint.startswith("hint: ")
    assert not (folder / "refused").exists()
