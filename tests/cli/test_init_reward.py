"""`grpo init-reward` as a user runs it: the files work as written, nothing is overwritten, the lines are YAML."""

import json
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def init(tmp_path):
    def run(*arguments):
        code = "from grpo_cli.app import main; main()"
        command = [sys.executable, "-c", code, "init-reward", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


def test_what_it_writes_passes_and_can_be_configured(init, tmp_path):
    done = init("brevity")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["rewards: [{name: brevity, weight: 1.0}]"]
    assert "pytest rewards/test_brevity.py" in done.stderr
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "rewards/test_brevity.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout
    assert "9 passed" in tested.stdout

    (tmp_path / "config.yaml").write_text(done.stdout)
    inspect = "from grpo_cli.app import main; main(['inspect-rewards', '--rows', '2', '--json', '-q'])"
    shown = subprocess.run([sys.executable, "-c", inspect], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert [json.loads(line)["rewards"] for line in shown.stdout.splitlines()] == [{"brevity": 1.0}] * 2


def test_nothing_is_overwritten(init, tmp_path):
    (tmp_path / "rewards").mkdir()
    test = tmp_path / "rewards" / "test_brevity.py"
    test.write_text("mine")
    again = init("brevity")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.splitlines() == [
        "error: rewards/test_brevity.py exists",
        "hint: it is left as it is; --output names another file",
    ]
    assert test.read_text() == "mine"
    assert not (tmp_path / "rewards" / "brevity.py").exists()


def test_another_file_beside_what_is_configured(init, tmp_path):
    (tmp_path / "config.yaml").write_text("plugins: ['my rules.py']\n")
    done = init("brevity", "--output", "own/short.py", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["plugins"] == ["my rules.py", "own/short.py"]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["short.py", "test_short.py"]

    as_json = init("brevity", "-o", "b.py", "--json", "-q")
    assert json.loads(as_json.stdout) == {
        "file": "b.py",
        "test": "test_b.py",
        "plugins": ["my rules.py", "b.py"],
        "rewards": [{"name": "brevity", "weight": 1.0}],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Brevity"], "error: 'Brevity' cannot name a reward"),
        (["../x"], "error: '../x' cannot name a reward"),
        (["exact_match"], "error: there is a built-in reward called 'exact_match'"),
        (["tag_structure"], "error: there is a built-in reward called 'tag_structure'"),
        (["brevity", "--output", "b.txt"], "error: b.txt is not a Python file"),
        ([], "error: Missing argument 'NAME'."),
    ],
)
def test_refused(init, tmp_path, arguments, message):
    done = init(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == message
    assert list(tmp_path.iterdir()) == []
