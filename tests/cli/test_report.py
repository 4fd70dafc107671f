"""`grpo report`: its numbers are those that were recorded, its page is safe to open, and no file is lost to it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from report_world import Page, copied, logged, reseal, rewrite, score, train, world
from stage_world import tree

from grpo_cli import app
from grpo_cli.commands import report as command
from pipelines.config import ExperimentConfig
from pipelines.evaluation.records import own
from pipelines.monitoring.charts import number
from pipelines.reports.page import MOST_WARNINGS
from pipelines.reports.runs import read
from pipelines.stages import locks, manifest, store
from pipelines.stages.digest import DigestCache

BLOCKS = {"script", "link", "iframe", "object", "embed", "img", "base", "form", "a", "video", "audio"}
ESCAPES = "\x1b[31mred\x07\x9b\u202egnol\u202c\x7f\r"
MARKUP = '</pre><script>alert(1)</script><img src="http://example.org/x.png" onerror="x()"> & "two" \'one\''
SURROGATE = "\ud800"


@pytest.fixture(autouse=True)
def _here(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(world(tmp_path_factory))


@pytest.fixture
def run(tmp_path):
    return copied("a/run", tmp_path / "run")


@pytest.fixture
def report(tmp_path, capsys):
    """The page of some runs, checked for what no page may have, and what `--json` says beside it."""

    def written(*places):
        output = tmp_path / "page.html"
        assert app.run(["report", *map(str, places), "--output", str(output), "--json"]) == 0
        text = output.read_text(encoding="utf-8")
        page = Page(text)
        assert (page.open, page.wrong, page.references) == ([], [], [])
        assert not page.seen & BLOCKS
        assert "default-src 'none'" in text
        assert not set(text) & set("\x1b\x07\x9b\u202e\u202c\x7f\r\ud800")
        assert "url(" not in text
        assert "@import" not in text
        (line,) = capsys.readouterr().out.splitlines()
        return page, json.loads(line, parse_constant=pytest.fail)

    return written


def refused(capsys, *arguments):
    capsys.readouterr()
    assert app.run(["report", *map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    return lines[0]


def scores_of(run):
    """What the store has of a run's checkpoint, in full."""
    (checkpoint,) = read([Path(run)])[0].checkpoints()
    entries = [manifest.read(entry) for entry in store.entries(".grpo/stages", "eval")]
    sha256 = read([Path(run)])[0].weights(checkpoint, DigestCache(Path(".grpo/stages")))["checkpoint"]
    mine = [entry for entry in entries if entry.identity.inputs.get("checkpoint") == sha256]
    return next(entry.summary for entry in mine if not entry.identity.config["benchmark"]["config"])


def test_one_run_in_numbers(report):
    page, found = report("a/run")
    records, scored = logged("a/run")[1:], scores_of("a/run")
    (one,) = found["runs"]
    assert (one["run"], one["state"], one["step"]) == ("a/run", "finished after 3 updates", 3)
    assert one["reward"] == {"first": records[0]["reward"], "last": records[-1]["reward"]}
    assert one["scores"]["exact_match"] == scored
    assert set(one["scores"]) == {"exact_match", "exact_match, limit 6, seed 1"}
    row = page.row("step_000003")
    assert row[1] == f"{100 * scored['accuracy']:.1f} %"
    assert row[3:5] == [f"{100 * scored['low']:.1f} to {100 * scored['high']:.1f} %", "24"]
    assert own(scored) == {}
    assert f"{number(records[0]['reward'])} → {number(records[-1]['reward'])}" in page.text
    assert f"{number(records[-1]['num_tokens'])} completion tokens" in page.text
    for name in ("reward", "loss", "learning_rate"):
        assert f'"{name}: run {number(records[-1][name])}"' in Path(found["path"]).read_text()
    usual = ExperimentConfig().trainer.num_training_steps
    assert page.row("trainer.num_training_steps") == ["trainer.num_training_steps", "3", str(usual)]
    assert page.row("training rows as tokens")[1] == read([Path("a/run")])[0].identity.inputs["preprocess"]
    assert "3 of 3" in page.text
    assert "Wrong before" in page.text


def test_three_runs_beside_one_another(report):
    page, found = report("a/run", "b/run", "lora")
    assert [one["run"] for one in found["runs"]] == ["a/run", "b/run", "lora"]
    assert page.row("trainer.seed") == ["trainer.seed", "1", "2", "0"]
    assert page.row("model.use_lora") == ["model.use_lora", "false", "false", "true"]
    assert [one["settings"]["trainer.seed"] for one in found["runs"]] == [1, 2, 0]
    assert page.row("lora")[1:3] == ["GRPO, LoRA of rank 8", "finished after 3 updates"]
    first, second = scores_of("a/run"), scores_of("b/run")
    points = 100 * (second["accuracy"] - first["accuracy"])
    assert f"b/run against a/run: {points:+.1f} points, 95 %" in page.text
    assert "What lora was made with" in page.text
    assert page.text.count("What the runs do not share") == 1


def test_several_runs_stand_side_by_side_on_the_terminal(tmp_path, capsys):
    assert app.run(["report", "a/run", "b/run", "lora", "-o", str(tmp_path / "page.html")]) == 0
    header, *lines, path = capsys.readouterr().out.splitlines()
    assert path == str(tmp_path / "page.html")
    names = re.split("  +", header)
    rows = {(row := dict(zip(names, line.split(), strict=True)))["run"]: row for line in lines}
    assert [(row["trainer.seed"], row["model.use_lora"]) for row in rows.values()] == [
        ("1", "no"),
        ("2", "no"),
        ("0", "yes"),
    ]
    last = logged("b/run")[-1]
    assert rows["b/run"]["updates"] == "3"
    assert float(rows["b/run"]["last"]) == pytest.approx(last["reward"], abs=1e-3)
    assert float(rows["b/run"]["exact_match"]) == pytest.approx(scores_of("b/run")["accuracy"], abs=1e-3)
    evaluated = "eval/exact_match/accuracy"
    assert float(rows["b/run"][evaluated]) == pytest.approx(last[evaluated], abs=1e-3)
    assert rows["lora"]["exact_match, limit 6, seed 1"] == "-"


def test_runs_that_differ_in_much_are_told_apart_on_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "MOST_SETTINGS", 1)
    assert app.run(["report", "a/run", "lora", "-o", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr()
    assert "trainer." not in told.out
    assert "they differ in 2 settings, which the page lists" in told.err


def test_runs_that_share_all_settings_are_repetitions(report, run):
    page, _ = report("a/run", run)
    assert "None: they are repetitions." in page.text


def test_supervised_fine_tuning_has_no_reward_no_score_and_no_sample(report):
    page, found = report("sft")
    assert (found["runs"][0]["reward"], found["runs"][0]["scores"]) == (None, {})
    for words in ("supervised fine-tuning, all weights", "No samples were logged.", "loss "):
        assert words in page.text
    assert "reward " not in page.text.partition("Settings that")[0]


def test_texts_that_were_not_logged_leave_numbers(report):
    page, found = report("ppo")
    assert found["runs"][0]["step"] == 2
    assert "PPO, all weights" in page.text
    assert "critic/vf_explained_var" in page.text
    assert "redacted" not in page.text
    assert " · advantage " in page.text


def test_a_run_that_goes_on_or_was_interrupted(report, run):
    (run / "manifest.json").unlink()
    with locks.hold(run, "train"):
        page, found = report(run)
    assert found["runs"][0]["state"].startswith("running (process")
    assert found["runs"][0]["state"] in page.text
    page, _ = report(run)
    assert "not finished: 3 of 3 updates done" in page.text
    assert "Checkpoints: none" in page.text


def test_hostile_texts_everywhere(report, tmp_path):
    run = copied("a/run", tmp_path / "<script>x()<script>\u202e")
    name = f"mine{MARKUP}{ESCAPES}"
    rewrite(run, lambda record: record.update({f"rewards/{name}/mean": 0.25, f"custom/{SURROGATE}{MARKUP}": 1}))
    texts = [ESCAPES, MARKUP, SURROGATE, "", "x" * 1_000_000, None, 7, ["a"], "\u4e94" * 5000]
    keys = ("prompt", "completion", "thinking", "answer", "reference", "finish_reason", "length_tokens")
    samples = [dict.fromkeys(keys, text) | {"reward": i, "rewards": {name: text}} for i, text in enumerate(texts)]
    samples += [{"reward": "a", "rewards": [1], "advantage": None}, {}]
    lines = [json.dumps(sample | {"step": i + 1}) for i, sample in enumerate(samples)]
    (run / "samples.jsonl").write_text("".join(line + "\n" for line in lines))
    (run / "train.log").write_text(f"1  warning: {MARKUP}{ESCAPES.strip()}\n2  warning: {'y' * 1_000_000}\n")
    reseal(run, lambda record: record["config"]["rewards"][0].update(name=name + SURROGATE))
    page, found = report(run, "a/run")
    assert "<script>x()<script>\\u202e" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert Path(found["path"]).stat().st_size < 300_000
    for step in range(1, len(samples) + 1):
        (run / "samples.jsonl").write_text(lines[step - 1])
        page, _ = report(run)
        assert f"Update {step}" in page.text
    assert "more characters" in page.text


def test_an_empty_completion_and_a_long_one(report, run):
    sample = {"prompt": "few shots " * 1000 + "the question?", "completion": "begin " + "so " * 5000 + "the end"}
    empty = {"prompt": "p", "completion": ""}
    lines = [json.dumps(record | {"step": 1, "reward": 1}) + "\n" for record in (sample, empty)]
    (run / "samples.jsonl").write_text("".join(lines))
    page, _ = report(run)
    for words in ("few shots", "the question?", "begin so", "the end", "(an empty completion)"):
        assert words in page.text


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([0, 0, 1, 0], [1, 1, 0, 0], ["Wrong before, right now: 2 items", "Right before, wrong now: 1 item "]),
        ([0.25, 0], [0.5, 0], ["More often right than before: 1 item ", "No more often right than before: 1 item "]),
        ([1, 1], [1, 1], ["None: all of them were right"]),
    ],
    ids=["right or wrong", "several samples", "all right"],
)
def test_answers_that_changed(tmp_path, capsys, before, after, words):
    found = read([Path("a/run")])[0]
    (checkpoint,) = found.checkpoints()
    for weights, scores in ((found.base, before), (found.weights(checkpoint, DigestCache(tmp_path)), after)):
        score(tmp_path, weights, scores, accuracy=sum(scores) / len(scores), low=0, high=1, n=len(scores))
    output = tmp_path / "page.html"
    assert app.run(["report", "a/run", "-s", f"paths.stages={tmp_path}", "--output", str(output), "-q"]) == 0
    assert all(some in Page(output.read_text()).text for some in words)


def test_many_warnings_are_counted(report, run):
    (run / "train.log").write_text("".join(f"1  warning: number {i}.\n" for i in range(MOST_WARNINGS + 3)))
    page, found = report(run)
    assert len(found["runs"][0]["warnings"]) == MOST_WARNINGS + 3
    assert f"number {MOST_WARNINGS - 1}." in page.text
    assert f"number {MOST_WARNINGS}." not in page.text
    assert "and 3 more in train.log" in page.text


def test_settings_of_another_version_are_shown_as_far_as_they_go(report, run):
    reseal(run, lambda record: record.update(config={"trainer": {"algorithm": "grpo"}, "gone": {"text": "a\nb"}}))
    page, _ = report(run)
    assert page.row("gone.text")[1] == yaml.safe_dump("a\nb", default_flow_style=True).strip()


def test_long_runs_make_small_pages(report, run):
    records = logged(run)[1:]
    with (run / "metrics.jsonl").open("w") as log:
        for step in range(1, 3001):
            log.write(json.dumps(records[step % len(records)] | {"step": step, "reward": step / 3000}) + "\n")
    _, found = report(run)
    assert found["runs"][0]["step"] == 3000
    assert Path(found["path"]).stat().st_size < 1_000_000


def test_a_page_is_replaced_and_nothing_else_is(tmp_path, capsys, run):
    output = tmp_path / "new" / "page.html"
    assert app.run(["report", str(run), "--output", str(output), "-q"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    rewrite(run, lambda record: record.update(reward=0.987))
    assert app.run(["report", str(run), "--output", str(output), "-q"]) == 0
    assert "0.987" in output.read_text()
    foreign = tmp_path / "thesis.html"
    foreign.write_text("<html>" + " " * 3000 + 'content="grpo report"')
    for wrong, words in ((foreign, "is there, and no report"), (tmp_path, "is a directory")):
        before = tree(wrong)
        assert f"{wrong} {words}" in refused(capsys, run, "--output", wrong)
        assert tree(wrong) == before
    assert "no report" in refused(capsys, run, "--output", "/dev/null")
    assert app.run(["report", str(run), "--output", str(foreign / "page.html")]) == 1
    assert f"error: File exists: {foreign}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*.html")) == ["page.html", "thesis.html"]
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]


def test_where_a_page_goes_without_being_told(tmp_path, monkeypatch, capsys, run):
    other = copied("b/run", tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    for arguments, place in (
        ([run], run / "report.html"),
        (["-s", "trainer.output_dir=other"], Path("other/report.html")),
        ([run, other], Path("report.html")),
        ([run, tmp_path / "." / "run"], run / "report.html"),
    ):
        capsys.readouterr()
        assert app.run(["report", *map(str, arguments), "-q"]) == 0
        assert capsys.readouterr().out == f"{place}\n"
        assert place.is_file()
        place.unlink()


def test_what_cannot_be_reported_is_refused(tmp_path, capsys):
    many = [copied("sft", tmp_path / f"{index}") for index in range(17)]
    assert "17 runs are too many for one page" in refused(capsys, *many)
    assert f"{tmp_path / 'gone'} is not there" in refused(capsys, many[0], tmp_path / "gone")
    assert "outputs/tiny" in refused(capsys, "-s", "trainer.output_dir=outputs/tiny")
    assert not Path("report.html").exists()


def test_the_ninth_run_of_a_sweep_has_a_look_of_its_own(tmp_path, capsys):
    sweep = [copied("sft", tmp_path / f"seed{index}") for index in range(10)]
    assert app.run(["report", *map(str, sweep), "-o", str(tmp_path / "all.html"), "-q"]) == 0
    page = (tmp_path / "all.html").read_text()
    assert '<span class="c0">● </span>seed0' in page
    assert '<span class="c0 dashed">- - </span>seed8' in page
    assert 'class="c1 dashed"' in page.partition("<svg")[2]


def test_a_report_leaves_a_run_complete(tmp_path, capsys):
    """Also one that was written before the run was finished, and is written again."""

    def status():
        capsys.readouterr()
        assert app.run(["status", "--json", "-s", f"trainer.output_dir={run}", "-s", "model.use_lora=true"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return next(stage["status"] for stage in found if stage["stage"] == "train")

    run = copied("lora", tmp_path / "run", whole=True)
    assert app.run(["report", str(run), "-q"]) == 0
    assert status() == "cached"
    (run / "manifest.json").unlink()
    assert status() == "partial"
    train(str(run), "model.use_lora=true")
    assert status() == "cached"
    before = (run / "report.html").read_text()
    (run / "train.log").write_text("1  warning: there is more to say now\n")
    assert app.run(["report", str(run), "-q"]) == 0
    assert len((run / "report.html").read_text()) > len(before)
    assert status() == "cached"
