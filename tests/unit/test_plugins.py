"""Users' files: imported once, errors with file and line."""

import pytest

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardContext, RewardRegistry

GOOD = """
from pipelines.rewards import BaseReward, RewardRegistry

@RewardRegistry.register("shouting")
class Shouting(BaseReward):
    def compute(self, context):
        return float(context.generated_text.isupper())
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))


def write(folder, text):
    path = folder / "rewards.py"
    path.write_text(text)
    return path


def test_a_file_registers_a_reward_once(tmp_path):
    path = write(tmp_path, GOOD)
    load_plugins([path])
    load_plugins([str(path)])
    assert RewardRegistry.create("shouting").compute(RewardContext(generated_text="YES")) == 1.0


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"plugins\[0\]: there is no file"):
        load_plugins([tmp_path / "absent.py"])


def test_a_file_that_is_not_python(tmp_path):
    for name in ("notes.txt", "native.so", "compiled.pyc"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ConfigError, match="is not a Python file"):
            load_plugins([tmp_path / name])


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\n\nimport no_such_module_here\n", 3, "ModuleNotFoundError"),
        ("x = 1\ndef broken(:\n", 2, "SyntaxError"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError"),
        ("from pipelines.rewards import Nothing\n", 1, "ImportError"),
        ("raise SystemExit\n", 1, "SystemExit"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, text, line, reason):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"rewards\.py:{line}: {reason}"):
        load_plugins([path])


def test_a_mended_file_can_be_loaded_again(tmp_path):
    path = write(tmp_path, "raise ValueError('not yet')")
    with pytest.raises(ConfigError, match="not yet"):
        load_plugins([path])
    write(tmp_path, GOOD + "# mended\n")
    load_plugins([path])
    assert "shouting" in RewardRegistry.names()


def test_a_taken_name_is_reported_as_it_is(tmp_path):
    path = write(tmp_path, GOOD.replace("shouting", "exact_match"))
    with pytest.raises(ConfigError, match="two rewards want the name 'exact_match'"):
        load_plugins([path])


def test_a_plugin_cannot_take_the_name_of_another_algorithm(tmp_path):
    (tmp_path / "usurper.py").write_text(
        "from pipelines.algorithms.base import AlgorithmRegistry, BaseAlgorithm\n"
        "import pipelines.algorithms.grpo\n"
        '@AlgorithmRegistry.register("grpo")\n'
        "class Mine(BaseAlgorithm): ...\n"
    )
    with pytest.raises(ConfigError, match="two algorithms want the name 'grpo'") as told:
        load_plugins([tmp_path / "usurper.py"])
    assert "another name" in told.value.hint


def test_a_reward_is_found_by_the_name_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "shouting.py").write_text(GOOD)
    (tmp_path / "rewards" / "unnamed.py").write_text("raise AssertionError('nobody asked for it')")
    (tmp_path / "listed.py").write_text("x = 1")
    asked = ["rewards=[{name: exact_match}, {name: shouting}, {name: ../listed}]", "plugins=[listed.py]"]
    files = load([], asked).config.plugin_files
    assert files == ("listed.py", "rewards/shouting.py")
    load_plugins(files)
    assert "shouting" in RewardRegistry.names()
    listed = load([], ["rewards=[{name: shouting}]", "plugins=[rewards/shouting.py]"]).config.plugin_files
    assert listed == ("rewards/shouting.py",)


def test_a_file_with_a_built_in_rewards_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "exact_match.py").write_text(GOOD.replace("shouting", "exact_match"))
    with pytest.raises(ConfigError, match="two rewards want the name 'exact_match'"):
        load_plugins(load([], ["rewards=[{name: exact_match}]"]).config.plugin_files)
