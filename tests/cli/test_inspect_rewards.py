"""grpo inspect-rewards: gold completions, a file, fresh samples; what it prints, warns of and exits with."""

import gzip
import json
import shutil

import pytest

from grpo_cli import app
from pipelines.models.tiny import write_blank

ROWS = [
    {"prompt": "1+1=?", "completion": "<think>1+1=2</think>2", "generated": "<think>1+1=2</think>2"},
    {"prompt": "2+3=?", "completion": "<think>2+3=5</think>5", "generated": "it is 10/3 \u2212 or 五 😀"},
    {"prompt": "2+4=?", "completion": "<think>2+4=6</think>6", "generated": "<think>2+4=6"},
    {"prompt": "2+5=?", "generated": ""},
]
FORMAT = "rewards=[{name: exact_match}, {name: format_structure, weight: 0.25}]"
FAILING = """
from pipelines.rewards import RewardRegistry

@RewardRegistry.register_function("divides_by_length")
def divides_by_length(context):
    return 1 / len(context.answer)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_blank(directory)
    return directory


@pytest.fixture
def inspect(model, tmp_path, monkeypatch, capsys):
    """`grpo inspect-rewards` in an empty directory with a blank model: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = app.run(["inspect-rewards", "-s", f"model.model_path={model}", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def completions(tmp_path):
    return write(tmp_path / "completions.jsonl", ROWS)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_is_one_object_a_row(inspect, completions):
    code, stdout, _ = inspect("--completions", completions, "--json", "-s", FORMAT)
    rows = [json.loads(line) for line in stdout.splitlines()]
    assert code == 0
    assert [set(row) for row in rows] == [{"row", "total", "rewards", "reasons"}] * 4
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["rewards"]["exact_match"] for row in rows] == [1.0, 0.0, 0.0, None]
    assert [row["rewards"]["format_structure"] for row in rows] == [1.0, 0.1, 0.3, 0.0]
    assert [row["total"] for row in rows] == pytest.approx([1.0, 0.02, 0.06, 0.0])
    assert rows[2]["reasons"] == {"format_structure": {"shape": "half a block"}}


def test_people_see_tables_and_stderr_the_rest(inspect, completions):
    code, stdout, stderr = inspect("--completions", completions, "-s", FORMAT)
    assert code == 0
    for expected in ("exact_match", "format_structure", "half a block", "😀", "r(len)", "answer spam"):
        assert expected in stdout
    assert "4 rows (ran: " in stderr
    assert "4 rows (cached: " in inspect("--completions", completions, "-s", FORMAT)[2]


def test_check_is_content_with_sound_rewards(inspect, completions):
    code, _, stderr = inspect("--completions", completions, "--check")
    assert (code, "warning" in stderr) == (0, False)


@pytest.mark.parametrize(
    ("rewards", "warning"),
    [
        ("rewards=[{name: length_penalty}]", "adversarial text scores high: prompt echo"),
        ("rewards=[{name: format_structure}]", "adversarial text scores high: wrong answer"),
        ("rewards=[{name: exact_match}, {name: mcq_accuracy}]", "mcq_accuracy has no value for any completion"),
        ("rewards=[{name: exact_match, config: {require_mark: true}}]", "gold scores below 0.95 on 3 of 3 rows"),
        ("rewards=[{name: exact_match, config: {require_mark: true}}]", "exact_match is constant: 0"),
    ],
)
def test_check_fails_on_rewards_that_are_not(inspect, completions, rewards, warning):
    code, stdout, stderr = inspect("--completions", completions, "--check", "--json", "-s", rewards)
    assert code == 1
    assert warning in stderr
    assert len(stdout.splitlines()) == 4
    assert inspect("--completions", completions, "-s", rewards)[0] == 0


def test_a_plugin_that_fails_is_shown_and_never_a_zero(inspect, completions, tmp_path):
    (tmp_path / "mine.py").write_text(FAILING)
    mine = ("-s", "plugins=[mine.py]", "-s", "rewards=[{name: divides_by_length}]")
    code, stdout, stderr = inspect("--completions", completions, "--json", *mine)
    rows = [json.loads(line) for line in stdout.splitlines()]
    assert code == 0
    assert [row["rewards"]["divides_by_length"] is None for row in rows] == [False, False, True, True]
    assert rows[2]["reasons"]["divides_by_length"] == {"failed": "ZeroDivisionError: division by zero"}
    assert "divides_by_length failed on 2 rows, first on row 2: ZeroDivisionError" in stderr


def test_gzip_and_other_keys(inspect, tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    row = {"question": "1+1=?", "solution": "so\n#### 2", "generated": r"\boxed{2}"}
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    keys = ("-s", "data.prompt_key=question", "-s", "data.completion_key=solution")
    _, stdout, _ = inspect("--completions", path, "--json", *keys)
    assert json.loads(stdout)["total"] == 1.0


def test_gold_rows_of_the_data_set(inspect, tmp_path):
    data = write(tmp_path / "train.jsonl", [{key: row[key] for key in ("prompt", "completion")} for row in ROWS[:3]])
    rows = ("-s", f"data.train_path={data}", "--rows", 2)
    code, stdout, stderr = inspect("--json", "--check", *rows)
    assert code == 0, stderr
    assert [json.loads(line)["total"] for line in stdout.splitlines()] == [1.0, 1.0]
    assert "cached" in inspect("--dry-run", *rows)[1]
    assert "rows: 2 -> 3" in inspect("--explain", *rows[:2], "--rows", 3)[1]


def test_fresh_samples(inspect, tmp_path):
    data = write(tmp_path / "train.jsonl", [{key: row[key] for key in ("prompt", "completion")} for row in ROWS[:3]])
    code, stdout, _ = inspect(
        "--samples", 2, "--json", "-s", f"data.train_path={data}", "-s", "data.max_gen_len=8", "-s", FORMAT
    )
    assert code == 0
    assert [json.loads(line)["row"] for line in stdout.splitlines()] == [0, 1, 2, 3, 4, 5]


def test_a_checkpoint_alone_asks_for_one_sample_a_row(inspect, model, tmp_path):
    data = write(tmp_path / "train.jsonl", [{key: row[key] for key in ("prompt", "completion")} for row in ROWS[:3]])
    rows = ("-s", f"data.train_path={data}", "-s", "data.max_gen_len=8", "-s", FORMAT, "--rows", 2)
    code, _, stderr = inspect("--checkpoint", "base", *rows)
    assert (code, "samples of the starting model" in stderr) == (0, True)
    assert "2 rows (ran: " in stderr
    assert "cached" in inspect("--checkpoint", "base", "--samples", 1, "--dry-run", *rows)[1]
    assert "request.samples: 1 -> 2" in inspect("--samples", 2, "--explain", *rows)[1]
    assert "2 rows (ran: " in inspect("--checkpoint", "base", "--force", *rows)[2]
    copied = tmp_path / "copied"
    shutil.copytree(model, copied)
    assert "2 rows (ran: " in inspect("--checkpoint", copied, *rows)[2]


def test_several_samples_say_where_there_is_nothing_to_learn(inspect, tmp_path):
    data = write(tmp_path / "train.jsonl", [{key: row[key] for key in ("prompt", "completion")} for row in ROWS[:3]])
    code, stdout, _ = inspect("--samples", 3, "-s", f"data.train_path={data}", "-s", "data.max_gen_len=4")
    assert code == 0
    assert "3 of 3 prompts earn the same with all 3 samples: nothing to learn from these" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "rewards=[{name: exact_mach}]"), "there is no reward called 'exact_mach'"),
        (("-s", "rewards=[{name: exact_match, config: {marked: 1}}]"), "--set: rewards.0.config.marked: no such key"),
        (("-s", "plugins=[absent.py]"), "--set: plugins.0: there is no file 'absent.py'"),
        (("--completions", "absent.jsonl"), "there is no file absent.jsonl"),
        (("--completions", "x", "--samples", "2"), "--completions and --samples exclude each other"),
        (("--completions", "x", "--rows", "2"), "--completions and --rows exclude each other"),
        (("--completions", "x", "--checkpoint", "base"), "--completions and --checkpoint exclude each other"),
    ],
)
def test_mistakes_are_told_before_any_work(inspect, tmp_path, arguments, message):
    code, stdout, stderr = inspect(*arguments)
    assert (code, stdout) == (2, "")
    assert f"error: {message}" in stderr or message in stderr.splitlines()[0]
    assert not (tmp_path / ".grpo").exists()


def test_a_row_without_a_text_is_named(inspect, tmp_path):
    path = write(tmp_path / "rows.jsonl", [ROWS[0], {"prompt": "x", "completion": "y"}])
    code, _, stderr = inspect("--completions", path)
    assert code == 2
    assert "rows.jsonl:2: no text in 'generated'" in stderr
