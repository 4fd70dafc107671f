"""The card of an export says what is recorded about a model, and of everything else that it is not known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from grpo_cli import app
from pipelines.bundled import bundled
from pipelines.cards import page
from pipelines.cards.origin import Origin, front_matter
from pipelines.cards.page import Form
from pipelines.config.loader import resolve
from pipelines.evaluation.targets import STARTING_MODEL, Target, target
from pipelines.monitoring import curves
from pipelines.stages.identity import read_identity

ROWS = Path(__file__).resolve().parents[2] / "data" / "arithmetic" / "train.jsonl"
CONFIG = """\
trainer: {num_training_steps: 3, ppo_batch_size: 4, num_rollout_samples: 4, learning_rate: 1.0e-4, output_dir: run}
model: {model_path: model}
data: {train_path: rows.jsonl, val_path: val.jsonl, max_gen_len: 24}
evaluation: [{name: exact_match, config: {limit: 6}}]
checkpointing: {save_every: 2}
"""
EXACT = Form("A whole model.", "say it", is_exact=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three updates of a licensed base, its checkpoint scored beside the base."""
    place = tmp_path_factory.mktemp("card")
    lines = ROWS.read_text().splitlines(keepends=True)
    (place / "rows.jsonl").write_text("".join(lines[:16]))
    (place / "val.jsonl").write_text("".join(lines[20:30]))
    (place / "config.yaml").write_text(CONFIG)
    shutil.copytree(bundled("tiny-model"), place / "model")
    (place / "model" / "README.md").write_text("---\nlicense: other\nlicense_name: house\n---\n# a base\n")
    (place / "model" / "LICENSE.txt").write_text("the terms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert app.run(["train", "-q"]) == 0
        assert app.run(["eval", "-q", "--baseline"]) == 0
    return place


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def origin(*overrides, given=None):
    config = resolve([Path("config.yaml")], overrides, {}).config
    return Origin(config, target(config, given))


def card(about, form=EXACT):
    return page.text(about, "out", form)


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_an_export_has_its_card_and_its_picture(capsys):
    assert app.run(["export", "--output", "out", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["form"] == "a whole model in float32"
    assert {"README.md", "curves.png", "LICENSE.txt"} <= set(found["files"])
    assert Path("out/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "What `model` became after 3 updates of GRPO. A whole model in float32." in Path("out/README.md").read_text()


def test_the_command_of_the_card_is_one_that_a_shell_understands(capsys):
    assert app.run(["export", "--output", "two words", "-q"]) == 0
    assert "mlx_lm.generate --model 'two words' --prompt" in Path("two words/README.md").read_text()


def test_the_front_matter_is_the_hubs():
    opening, _, rest = card(origin()).partition("---\n")
    found = yaml.safe_load(rest.partition("---\n")[0])
    assert opening == ""
    assert found == {
        "license": "other",
        "license_name": "house",
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "grpo", "reinforcement-learning"],
    }


def test_a_base_of_the_hub_is_named(monkeypatch):
    monkeypatch.setattr("pipelines.cards.origin.local_model", lambda _: Path("model"))
    assert page.metadata(origin("model.model_path=owner/name"))["base_model"] == "owner/name"


def test_digests_are_the_runs():
    inputs = read_identity(Path("run")).inputs
    text = card(origin())
    assert f"| sha256 of the training data as tokens | `{inputs['preprocess']}` |" in rows(text)
    assert f"| sha256 of the files of the base | `{inputs['model']}` |" in rows(text)


def test_training_is_what_the_log_says_up_to_the_checkpoint():
    logged = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    first, second, last = (record["reward"] for record in logged)
    assert f"| `reward` | 1 | {first:.4g} | 3 | {last:.4g} |" in rows(card(origin()))
    earlier = origin(given="run/checkpoints/step_000002")
    assert f"| `reward` | 1 | {first:.4g} | 2 | {second:.4g} |" in rows(card(earlier))


def test_scores_are_of_these_weights_and_of_the_base_on_the_same_items():
    text = card(origin())
    scored = [row for row in rows(text) if row.startswith("| exact_match | limit 6 | ")]
    assert [row.split(" | ")[2] for row in scored] == ["base", "step_000003"]
    assert "exact_match: step_000003 against base" in text
    assert "before its weights were rounded" not in text
    assert "before its weights were rounded" in card(origin(), replace(EXACT, is_exact=False))
    assert "No score of these weights is known." in card(origin(given="run/checkpoints/step_000002"))


def test_settings_are_the_configuration_or_what_the_run_recorded():
    def settings(text):
        return yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])

    assert settings(card(origin())) == resolve([Path("config.yaml")], [], {}).config.model_dump(mode="json")
    recorded = card(origin("trainer.learning_rate=0.5"))
    assert settings(recorded) == read_identity(Path("run")).config
    assert "What the run recorded" in recorded


def test_a_model_that_the_run_did_not_start_from_is_not_the_base(tmp_path):
    shutil.copytree("model", tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").write_text("another one")
    text = card(origin(f"model.model_path={tmp_path}/other"))
    assert "What a base that is not known became after 3 updates" in text
    assert "| base | not known |" in rows(text)
    assert "license" not in text.partition("# out")[0]


def test_what_is_not_known_is_said(tmp_path):
    shutil.copytree("run/checkpoints/step_000003", tmp_path / "moved")
    config = resolve([Path("config.yaml")], [f"paths.stages={tmp_path}/stages"], {}).config
    text = card(Origin(config, Target("moved", tmp_path / "moved")))
    for words in (
        "A checkpoint of a run that is not known.",
        "No metrics of its training are known.",
        "No score of these weights is known.",
        "The settings of its training are not known.",
        "unknown: the files of the base do not say",
    ):
        assert words in text


def test_the_base_itself():
    config = resolve([Path("config.yaml")], [], {}).config
    text = card(Origin(config, STARTING_MODEL))
    assert "`model` before any training." in text
    assert [row.split(" | ")[2] for row in rows(text) if "exact_match" in row] == ["base"]
    assert "reinforcement-learning" not in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\n---\ntext", {"license": "mit"}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("# no front matter\nlicense: mit\n---\n", {}),
        ("---\n[a list]\n---\n", {}),
        ("---\n: : :\n\t-\n---\n", {}),
        ("", {}),
    ],
    ids=["plain", "carriage returns", "none", "list", "broken", "empty"],
)
def test_front_matter_of_others(tmp_path, text, found):
    (tmp_path / "README.md").write_bytes(text.encode())
    assert front_matter(tmp_path / "README.md") == found
    assert front_matter(tmp_path / "gone.md") == {}


def test_curves_leave_out_what_was_not_logged(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "reward": 0.5, "kl": null}\n{"step": 2, "loss": 1}\n{"step": 3, "reward": 1}\ncut o')
    found = curves.series(log, 2)
    assert found == {"reward": ([1], [0.5]), "loss": ([2], [1.0])}
    curves.draw(found, tmp_path / "a.png")
    curves.draw(found, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert curves.series(tmp_path / "gone.jsonl", 2) == {}
