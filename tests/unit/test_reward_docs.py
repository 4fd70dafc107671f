"""The guide to adding a reward and the README's example: their code runs, their claims hold, the table is complete."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.config import RewardConfig, load
from pipelines.errors import ConfigError
from pipelines.plugins import load_plugins
from pipelines.rewards import RewardComposer, RewardContext, RewardRegistry
from pipelines.rewards.reference import reference

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "adding-a-reward.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
FILES = {block.partition("\n")[0].removeprefix("# "): block for block in BLOCKS}
BUILT_IN = set(RewardRegistry.names())


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(RewardRegistry, "_classes", dict(RewardRegistry._classes))
    monkeypatch.setattr(RewardRegistry, "_canonical", dict(RewardRegistry._canonical))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The guide's files in the working directory."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_configuration_of_the_guide_works(folder):
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)[1])
    load_plugins(settings["plugins"])
    composer = RewardComposer([RewardConfig(**entry) for entry in settings["rewards"]])
    scores = composer.score([RewardContext(generated_text=" ".join(["word"] * 80), reference_answer="12")])
    assert scores.values.tolist() == [[0.0, 0.5]]
    assert scores.details == ({"response_length_penalty": {"words": 80}},)


def test_the_test_of_the_guide_passes(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    scope = {}
    exec(FILES["test_brevity.py"], scope)
    scope["test_long_answers_earn_less"]()
    sys.modules.pop("brevity")


def test_checked_keys(folder):
    load_plugins(["checked_brevity.py"])
    assert RewardRegistry.create("brevity", {"max_words": 1}).compute(RewardContext(generated_text="a b")) == 0.0
    rewards = "rewards:\n  - {name: exact_match}\n  - {name: brevity, config: {max_word: 1}}\n"
    Path("config.yaml").write_text(f"plugins: [checked_brevity.py]\n{rewards}")
    loaded = load()
    with pytest.raises(ConfigError) as caught, loaded.placing():
        RewardComposer(loaded.config.rewards)
    told = f"(`{caught.value.message}`, and the hint `{caught.value.hint.partition('? ')[0]}?`)"
    assert told in " ".join(DOCUMENT.split())


def test_the_function(folder):
    load_plugins(["polite.py"])
    assert RewardRegistry.create("says_please").compute(RewardContext(generated_text="Yes, Please")) == 1.0


def test_the_table_names_every_reward():
    table = DOCUMENT.partition("## The built-in rewards")[2]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) | set(re.findall(r"also `(\w+)`", table))
    assert named == BUILT_IN


def test_the_reference_is_current():
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m pipelines.rewards.reference > docs/rewards.md"
    assert set(re.findall(r"^## `(\w+)`", page, re.MULTILINE)) == {RewardRegistry.canonical(name) for name in BUILT_IN}


def test_the_ten_lines_of_the_readme(tmp_path, monkeypatch):
    code = re.search(r"```python\n# rewards/brief\.py\n(.*?)```", README, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "brief.py").write_text(code)
    (tmp_path / "config.yaml").write_text(re.search(r"```yaml\n(rewards:\n.*?brief.*?)```", README, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    config = load().config
    load_plugins(config.plugin_files)
    composer = RewardComposer(config.rewards)
    texts = ["12", " ".join(["12"] * 60), ""]
    scores = composer.score([RewardContext(generated_text=text, reference_answer="12") for text in texts])
    assert scores.values[:, 1].tolist() == [1.0, 0.5, 0.0]
    assert scores.totals[0] == 1.0
