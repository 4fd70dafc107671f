"""Odd configurations through `grpo train --dry-run`: accepted, or refused with file, line and dotted key.

Never a traceback, never a hang, and nothing is written.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest

from grpo_cli.app import run
from pipelines.config import ExperimentConfig
from pipelines.config.fields import dotted, inside_list, walk

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
try:
    odd = importlib.import_module("odd_configurations")
finally:
    sys.path.remove(str(FOLDER))

FILE = "c.yaml"
MOST_SECONDS = 60
MOST_CHARACTERS = 2000


def interrupt(*_: object) -> None:
    raise TimeoutError(f"longer than {MOST_SECONDS} s")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and no variables of ours. What hangs is interrupted."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GRPO_")]:
        monkeypatch.delenv(name)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(MOST_SECONDS)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put(content: str | bytes, name: str = FILE) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def words(assignments) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def accepted(capsys, shows: str, *assignments: str, files=(FILE,)) -> None:
    arguments = [word for file in files for word in ("--config", file)]
    code = run(["train", "--dry-run", *arguments, *words(assignments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert shows in captured.out
    assert "first prompt:" in captured.out


def refused(capsys, says: str, *assignments: str, files=(FILE,)) -> str:
    """The hint, after the error, which has to say this; two lines, exit code 2, and nothing written."""
    before = sorted(Path().rglob("*"))
    arguments = [word for file in files for word in ("--config", file)]
    code = run(["train", "--dry-run", *arguments, *words(assignments)])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, ""), captured.err
    assert sorted(Path().rglob("*")) == before
    *warnings, error, hint = captured.err.splitlines()
    assert all(line.startswith("warning: ") for line in warnings), captured.err
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert len(hint) > len("hint: ")
    assert len(captured.err) < MOST_CHARACTERS
    return hint


@pytest.mark.parametrize("name", odd.ACCEPTED)
def test_a_file_that_is_accepted(capsys, name):
    content, shows = odd.ACCEPTED[name]
    put(content)
    accepted(capsys, shows)


@pytest.mark.parametrize("name", odd.REFUSED)
def test_a_file_that_is_refused(capsys, name):
    content, says = odd.REFUSED[name]
    put(content)
    refused(capsys, says if " (" in says.partition(":")[0] else f"{FILE}:{says}" if says[0].isdecimal() else says)


@pytest.mark.parametrize("name", odd.HINTS)
def test_a_hint_that_helps(capsys, name):
    content, says = odd.HINTS[name]
    put(content)
    assert says in refused(capsys, FILE)


def ids(written) -> list[str]:
    return [ascii(word)[1:20] for word in written]


@pytest.mark.parametrize("word", odd.NUMBERS, ids=ids(odd.NUMBERS))
def test_a_whole_number_that_is_none(capsys, word):
    put(odd.seed(word))
    separator = ": " if "should" not in odd.NUMBERS[word] else " "
    refused(capsys, f"{FILE}:2: trainer.seed{separator}{odd.NUMBERS[word]}")


@pytest.mark.parametrize("word", odd.FRACTIONS, ids=ids(odd.FRACTIONS))
def test_a_number_that_is_none(capsys, word):
    put(odd.rate(word))
    refused(capsys, odd.FRACTIONS[word])


@pytest.mark.parametrize("word", odd.BOOLEANS)
def test_only_true_and_false_are_booleans(capsys, word):
    put(f"model:\n  use_lora: {word}\n")
    refused(capsys, f"{FILE}:2: model.use_lora should be true or false, not ")


@pytest.mark.parametrize("word", odd.SPELLINGS, ids=ids(odd.SPELLINGS))
def test_a_misspelt_key(capsys, word):
    put(f"trainer:\n  {word}: 1\n")
    hint = refused(capsys, f"{FILE}:2: trainer.")
    assert odd.SPELLINGS[word] in hint


def bounds():
    """Every bounded key of the schema outside lists, with a value just beyond each of its bounds."""
    for key in walk(ExperimentConfig):
        if key.nested is None and not inside_list(ExperimentConfig, key.path):
            for bound in key.field.metadata:
                for name, step in {"ge": -1, "gt": 0, "le": 1, "lt": 0}.items():
                    if hasattr(bound, name):
                        yield dotted(key.path), getattr(bound, name) + step


@pytest.mark.parametrize(("key", "value"), list(bounds()))
def test_every_bound_holds(capsys, key, value):
    refused(capsys, f"--set: {key} should be ", f"{key}={value}", files=())


def texts():
    """Every key that holds text and may not be empty."""
    for key in walk(ExperimentConfig):
        required = any(getattr(bound, "min_length", 0) for bound in key.field.metadata)
        if required and key.field.annotation is str and not inside_list(ExperimentConfig, key.path):
            yield dotted(key.path)


@pytest.mark.parametrize("key", list(texts()))
def test_a_text_may_not_be_empty(capsys, key):
    refused(capsys, f"--set: {key} should be text that is not empty", f'{key}=""', files=())


ASSIGNMENTS = {
    "trainer.seed": "--set trainer.seed: not of the form key=value",
    "": "--set : not of the form key=value",
    "=": "--set =: not of the form key=value",
    "=1": "--set =1: not of the form key=value",
    ".=1": "not of the form key=value",
    "trainer.=1": "not of the form key=value",
    "trainer..seed=1": "not of the form key=value",
    "trainer.seed=": "--set: trainer.seed has no value",
    "trainer.seed=  ": "--set: trainer.seed has no value",
    "trainer.seed=# 1": "--set: trainer.seed: empty, there is no value in it",
    "trainer.seed==1": "--set: trainer.seed should be a whole number, not '=1'",
    "trainer.seed = one": "--set: trainer.seed should be a whole number, not 'one'",
    "trainer.seed: 1": "not of the form key=value",
    "data.system_prompt=Rate #1": "--set: data.system_prompt: without quotes this is read as 'Rate'",
    "data.system_prompt=one\ntwo": "--set: data.system_prompt: without quotes this is read as 'one two'",
    "trainer.output_dir=~nobody-here/x": "trainer.output_dir (--set): nobody knows the home directory ~nobody-here",
    "Trainer.seed=1": "--set: Trainer: unknown key",
    "TRAINER.SEED=1": "--set: TRAINER: unknown key",
    "trainer/seed=1": "--set: trainer/seed: unknown key",
    "trainer.se ed=1": "--set: trainer.se ed: unknown key",
    "trainer.se\ned=1": r"--set: trainer.'se\ned': unknown key",
    "seed=1": "--set: seed: unknown key",
    "trainer.seed.x=1": "--set: trainer.seed should be a whole number, not {'x': 1}",
    "trainer=1": "--set: trainer should be keys and values, not 1",
    "trainer=null": "--set: trainer should be keys and values, not null",
    "rewards.0.weight=1": "--set rewards.0.weight: an item of a list cannot be set alone",
    "generation.stop.0=x": "--set generation.stop.0: an item of a list cannot be set alone",
    "rewards.weight=1": "--set: rewards should be a list, not {'weight': 1}",
    "rewards=exact_match": "--set: rewards should be a list, not 'exact_match'",
    "generation.stop=x": "--set: generation.stop should be a list, not 'x'",
    "trainer.seed=1: 2": "--set: trainer.seed: a key has to be a word",
    "data.system_prompt=a: b": "--set: data.system_prompt should be text, not {'a': 'b'}",
    "data.system_prompt=a: b: c": "--set: data.system_prompt: mapping values are not allowed",
    "trainer.seed=1\n---\n2": "--set: trainer.seed: a second document starts here",
    "trainer.seed=1\nmodel: {}": "--set: trainer.seed: ",
    "trainer.seed=[1": "--set: trainer.seed: while parsing a flow sequence",
    "trainer.seed=!!int 1": "--set: trainer.seed: tags such as ",
    "trainer.seed=*x": "--set: trainer.seed: found undefined alias",
    "trainer.seed=010": "--set: trainer.seed: 010 is octal",
    "data.system_prompt=\udcff": "--set: data.system_prompt: a character that YAML does not allow (0xdcff)",
    'data.system_prompt="\\0"': "--set: data.system_prompt: the text holds a NUL",
    "model.model_path=~nobody-here/model": "model.model_path (--set): nobody knows the home directory ~nobody-here",
    "trainer.algorithm=gpro": "--set: trainer.algorithm",
    "trainer.loss.type=DAPOO": "--set: trainer.loss.type should be 'grpo', ",
    "model.model_path=./absent": "--set: model.model_path: no model directory at ./absent",
    "model.model_path=.": "--set: model.model_path: . holds no tokenizer",
    "model.model_path=builtin:huge": "--set: model.model_path: no model directory at builtin:huge",
    "model.model_path=a/b/c": "--set: model.model_path: no model directory at a/b/c",
    "data.train_path=absent.jsonl": "--set: data.train_path: there is nothing at absent.jsonl",
    "data.train_path=" + "x" * 300: "--set: data.train_path: there is nothing at xxx",
    "data.train_path=/": "--set: data.train_path: /: a directory",
    "data.train_path=pipe.py": "--set: data.train_path: pipe.py: not a regular file but a pipe",
    "data.train_path=/dev/zero": "--set: data.train_path: /dev/zero: not a regular file but a device",
    "data.columns={question: 3}": "--set: data.columns.question should be text, not 3",
    "data.columns={question: nope}": "data.columns.question (--set): 'nope' is no field of a row",
    "data.val_path=/": "--set: data.val_path: /: a directory",
    "data.loader_type=jsnol": "data.loader_type (--set) and plugins (default): ",
    "plugins=[absent.py]": "--set: plugins.0: there is no file 'absent.py'",
    "plugins=[.]": "--set: plugins.0: there is no file '.'",
    'plugins=["~nobody-here/x.py"]': "--set: plugins.0: there is no file '~nobody-here/x.py'",
    "plugins=[c.txt]": "--set: plugins.0: ",
    "plugins=[broken.py]": "--set: plugins.0: ",
    "plugins=[leaves.py]": "--set: plugins.0: ",
    "plugins=[raises.py]": "--set: plugins.0: ",
    "plugins=[binary.py]": "--set: plugins.0: ",
    "plugins=[pipe.py]": "--set: plugins.0: ",
    'plugins=[""]': "--set: plugins.0 should be text that is not empty",
    "trainer.output_dir=c.txt": "--set: trainer.output_dir: c.txt is there, and no directory",
    "trainer.output_dir=c.txt/run": "--set: trainer.output_dir: Not a directory",
    "paths.stages=/dev/null": "--set: paths.stages: /dev/null is there, and no directory",
    "trainer.output_dir=" + "x" * 300: "--set: trainer.output_dir: File name too long",
    "generation.temperature=0": "--set: generation.temperature: 0 gives every completion",
    "monitoring.use_wandb=yes": "--set: monitoring.use_wandb should be true or false, not 'yes'",
}


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=ids(ASSIGNMENTS))
def test_an_assignment_that_is_refused(capsys, assignment):
    put("", "c.txt")
    put("def f(:\n", "broken.py")
    put("import sys\nsys.exit(0)\n", "leaves.py")
    put("raise RuntimeError('no')\n", "raises.py")
    put(b"\x00\xff\xfe", "binary.py")
    os.mkfifo("pipe.py")
    refused(capsys, ASSIGNMENTS[assignment], assignment, files=())


VARIABLES = {
    ("GRPO_TRAINER__SEED", "one"): "environment GRPO_TRAINER__SEED: trainer.seed should be a whole number, not 'one'",
    ("GRPO_TRAINER__SEED", "1.0"): "environment GRPO_TRAINER__SEED: trainer.seed should be a whole number, not 1.0",
    ("GRPO_TRAINER__SEED", ""): "environment GRPO_TRAINER__SEED: trainer.seed has no value",
    ("GRPO_TRAINER__SEED", "[1"): "environment GRPO_TRAINER__SEED: trainer.seed: while parsing a flow sequence",
    ("GRPO_TRAINER__SEED", "0777"): "environment GRPO_TRAINER__SEED: trainer.seed: 0777 is octal",
    ("GRPO_TRAINER__SEED", "\udcff"): "environment GRPO_TRAINER__SEED: trainer.seed: a character that YAML does not",
    (
        "GRPO_MODEL__USE_LORA",
        "yes",
    ): "environment GRPO_MODEL__USE_LORA: model.use_lora should be true or false, not 'yes'",
    ("GRPO_MODEL__USE_LORA", "1"): "environment GRPO_MODEL__USE_LORA: model.use_lora should be true or false, not 1",
    ("GRPO_TRAINER", "{sed: 1}"): "environment GRPO_TRAINER: trainer.sed: unknown key",
    ("GRPO_TRAINER", "3"): "environment GRPO_TRAINER: trainer should be keys and values, not 3",
    ("GRPO_REWARDS", "exact_match"): "environment GRPO_REWARDS: rewards should be a list, not 'exact_match'",
    ("GRPO_REWARDS", "[{name: exact_mach}]"): "environment GRPO_REWARDS: rewards.0.name: there is no reward called",
    ("GRPO_REWARDS__0__NAME", "x"): "environment GRPO_REWARDS__0__NAME: an item of a list cannot be set alone",
    ("GRPO_TRAINER__SED", "1"): "environment GRPO_TRAINER__SED: trainer.sed is not a key",
    ("GRPO_TRAINER_SEED", "1"): "environment GRPO_TRAINER_SEED: trainer_seed is not a key",
    ("GRPO_SEED", "1"): "environment GRPO_SEED: seed is not a key",
    ("GRPO_TRAINER__SEED__X", "1"): "environment GRPO_TRAINER__SEED__X: trainer.seed should be a whole",
    ("GRPO_TRAINER__", "1"): "environment GRPO_TRAINER__: trainer.'' is not a key",
    ("GRPO___SEED", "1"): "environment GRPO___SEED: ''.seed is not a key",
    ("GRPO_", "1"): "environment GRPO_: '' is not a key",
    ("GRPO_HOME", "/x"): "environment GRPO_HOME: home is not a key",
}


@pytest.mark.parametrize(("name", "text"), VARIABLES, ids=[f"{name}={text!a}" for name, text in VARIABLES])
def test_a_variable_that_is_refused(capsys, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    refused(capsys, VARIABLES[name, text], files=())


def test_what_a_variable_may_hold(capsys, monkeypatch):
    monkeypatch.setenv("GRPO_TRAINER__SEED", " 7 # as always")
    monkeypatch.setenv("GRPO_GENERATION__STOP", "[a, 'b: c']")
    accepted(capsys, "trainer.seed = 7  (environment GRPO_TRAINER__SEED)", files=())
    put(SEED_OF_NINE)
    accepted(capsys, "trainer.seed = 7  (environment GRPO_TRAINER__SEED)")
    accepted(capsys, "trainer.seed = 8  (--set)", "trainer.seed=8")


SEED_OF_NINE = "trainer:\n  seed: 9\n"
NO_FILES = {
    "absent.yaml": "absent.yaml: no such file",
    "": ".: a directory",
    ".": ".: a directory",
    "pipe": "pipe: not a regular file",
    "to-pipe": "to-pipe: not a regular file",
    "/dev/zero": "/dev/zero: not a regular file",
    "/dev/null": "/dev/null: not a regular file",
    "loop": "loop: Too many levels of symbolic links",
    "dangling": "dangling: no such file",
    "c.yaml/x": "c.yaml/x: Not a directory",
    "x" * 300: ": File name too long",
    "a\0b": ": ",
    "large.yaml": "large.yaml: 10.0 MiB are no configuration",
    "http://localhost/c.yaml": "c.yaml: no such file",
}


@pytest.mark.parametrize("path", NO_FILES, ids=ids(NO_FILES))
def test_a_path_without_a_configuration(capsys, path):
    put(SEED_OF_NINE)
    put("# x\n" * (10 << 18), "large.yaml")
    os.mkfifo("pipe")
    for link, target in {"loop": "loop", "dangling": "nowhere", "to-pipe": "pipe"}.items():
        Path(link).symlink_to(target)
    refused(capsys, NO_FILES[path], files=(path,))
    refused(capsys, NO_FILES[path], files=(FILE, path))


def test_a_configuration_that_may_not_be_read(capsys, folder):
    put(SEED_OF_NINE)
    accepted(capsys, "trainer.seed = 9")
    Path(FILE).chmod(0)
    folder.chmod(0o777)
    ours = os.geteuid()
    if ours == 0:
        os.seteuid(65534)
    try:
        refused(capsys, f"{FILE}: Permission denied")
    finally:
        os.seteuid(ours)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere"), os.mkfifo])
def test_config_yaml_is_not_passed_over_in_silence(capsys, make):
    make(Path("config.yaml"))
    refused(capsys, "config.yaml: ", files=())


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/status"])
def test_a_configuration_that_the_system_makes_up(capsys, path):
    if not Path(path).exists():
        pytest.skip("no such file on this system")
    refused(capsys, f"{path}:1: empty, there is no value in it", files=(path,))


def test_directories_of_our_own_begin_at_home(capsys, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder))
    accepted(capsys, f"trainer.output_dir = {folder}/runs  (--set)", "trainer.output_dir=~/runs", files=())
    accepted(capsys, f"paths.stages = {folder}/stages  (--set)", "paths.stages=~/stages", files=())


def test_a_plugin_that_raises_a_class_of_its_own(capsys):
    put("class Own(Exception):\n    pass\n\nraise Own('x')\n", "own.py")
    put("plugins: [own.py]")
    refused(capsys, f"plugins: {Path('own.py').resolve()}:4: Own: x")
    refused(capsys, f"plugins: {Path('own.py').resolve()}:4: Own: x")


def test_a_store_that_can_be_no_directory(capsys):
    put("not a directory")
    for command in (["train", "--dry-run"], ["preprocess"]):
        assert run([*command, "--set", f"paths.stages={FILE}"]) == 2
        assert f"--set: paths.stages: {FILE} is there, and no directory" in capsys.readouterr().err


def test_two_files_and_names_that_are_odd(capsys):
    put(SEED_OF_NINE)
    put("trainer: {grpo_beta: x}", "second: [file].yaml")
    refused(capsys, "second: [file].yaml:1: trainer.grpo_beta", files=(FILE, "second: [file].yaml"))
    put(SEED_OF_NINE.replace("9", "8"), "\u65e5\u672c \U0001f600")
    accepted(capsys, "trainer.seed = 8  (\u65e5\u672c \U0001f600:2)", files=(FILE, "\u65e5\u672c \U0001f600"))


def test_settings_that_exclude_each_other_name_both_places(capsys):
    put("trainer:\n  thinking_layer_start: 7\n  use_dual_gradients: true\n")
    refused(capsys, f"{FILE}:2: trainer.thinking_layer_start is 7, but model.model_path has ")
    put("generation:\n  min_think_tokens: 70\n")
    says = f"generation.min_think_tokens ({FILE}:2) and data.max_gen_len (--set): "
    refused(capsys, says, "data.max_gen_len=64")
