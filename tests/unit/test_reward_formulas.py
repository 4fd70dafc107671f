"""Formulas that differ as texts: which may be computed with at all, and what math-verify says of them."""

import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError

import pytest
from stage_world import changed, make_config

from pipelines import installed, plan
from pipelines.config import RewardConfig
from pipelines.errors import ConfigError
from pipelines.evaluation.exact_match import ExactMatch
from pipelines.rewards import RewardContext, RewardRegistry, equivalence
from pipelines.rewards.equivalence import JUDGE, is_installed, same_formula
from pipelines.rewards.formulas import formula, is_worked

needs_package = pytest.mark.skipif(not is_installed(), reason="needs the extra `math`")


@pytest.fixture(autouse=True, scope="module")
def end():
    yield
    JUDGE.close()


SAME = (
    (r"\frac{1}{2}x", "0.5x"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x^2+2x+1", r"So it is \boxed{(x + 1)^2}."),
    (r"$\boxed{x^2-1}$", "The answer is $(x-1)(x+1)$."),
    (r"\{1,2\}", "{2,1}"),
    ("(1,2]", r"\left(1, \frac{4}{2}\right]"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}"),
    ("\u03c0/2", r"\frac{\pi}{2}"),
    ("x=3", "3"),
    (r"x\ge 2", r"2 \leq x"),
    (r"\sin^2 x+\cos^2 x+x", "1+x"),
)
DIFFERENT = (
    ("x+1", "y+1"),
    ("x^2+1", "x^2-1"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    (r"\sqrt{2}", r"\pm\sqrt{2}"),
    ("x=3", "x=3,x=4"),
    ("x=3", "0=0"),
    ("x^2+2x+1", ", ".join(f"x^2+{number}x+1" for number in range(12))),
    ("x^2+2x+1", "it is (x+1)^2, I think"),
    (r"\frac{x}{2}", r"\frac{0}{0}"),
    ("x+1", "{}"),
    ("x+1", r"\boxed{}"),
    ("x+1", "__import__('os').getpid()+x"),
)
NOT_ASKED = (("4", "2+2"), ("3-2", "2-1"), ("2024-5-1", "2022-3-1"), ("no", "on"), ("AB", "BA"), ("A, B", "B, A"))
REFUSED = (
    "",
    "x!",
    "10^10^10",
    "10^{10^{10}}",
    "9^{99999}",
    "(x+y)^{25}",
    "((x+1)^5)^5",
    r"x^\frac{9}{2}",
    "x" * 201,
    "x" * 5_000_000,
    "x+1" + " " * 5_000_000 + "and more",
    "(" * 7 + "x" + ")" * 7,
    "1" * 13,
    "a+b+c+d+f+g+h",
    "the sum is x",
    "f(x).real + __class__",
    "x['a']",
    '"x"',
    r"\int x",
    r"\sum_{n=1}^{20} n",
    r"\binom{99}{50}",
    r"\begin{matrix}x\end{matrix}",
    "x\x00",
    "\u0663x",
)
SLOW = r"\exp(\exp(\exp(\exp(\exp(20)))))"


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_may_not_be_computed_with(text):
    started = time.process_time()
    assert formula(text) is None
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "text", [text for pair in SAME for text in pair if "answer" not in text and "boxed" not in text]
)
def test_what_may(text):
    assert formula(text)
    assert formula(f"$${text}$$.") == formula(text)


@pytest.mark.parametrize(("reference", "answer"), NOT_ASKED)
def test_words_numbers_and_dates_are_no_formulas(reference, answer, monkeypatch):
    monkeypatch.setattr(JUDGE, "ask", lambda *_: True)
    equivalence.remembered.cache_clear()
    assert not same_formula(answer, reference)
    assert not is_worked(reference)


@needs_package
@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_the_same(reference, answer):
    context = RewardContext(generated_text=answer, answer=answer, reference_answer=reference)
    found = RewardRegistry.create("exact_match").compute(context)
    assert found in ({"reward": 1.0, "reason": "the same formula, says math-verify"}, 1.0)
    assert ExactMatch().verdict(context).correct
    assert RewardRegistry.create("exact_match", {"math_verify": "never"}).compute(context) in (0.0, 1.0)


@needs_package
@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different(reference, answer):
    context = RewardContext(generated_text=answer, answer=answer, reference_answer=reference)
    assert RewardRegistry.create("exact_match").compute(context) == 0.0
    assert not ExactMatch().verdict(context).correct


REFUSES = """
import os, sys
from pipelines.rewards import equivalence_process as process
sys.addaudithook(process.refuse)
for text in sys.argv[1:]:
    try:
        eval(text)
    except PermissionError:
        print("refused")
    except NameError as error:
        print(error.name)
try:
    os.system("true")
except PermissionError:
    print("refused")
"""


def test_no_text_is_evaluated_as_python_and_no_program_started():
    texts = ["1+1", "__import__('os')", "Integer(os.getpid())", "Integer (12 )"]
    told = subprocess.run([sys.executable, "-c", REFUSES, *texts], capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == ["refused", "refused", "refused", "Integer", "refused"]


@needs_package
def test_repeating_the_prompt_is_no_answer():
    assert same_formula("(x+1)^2", "x^2+2x+1", "Square x + 1.")
    assert not same_formula("(x+1)^2", "x^2+2x+1", "Expand $(x + 1)^2$.")
    assert same_formula("3", "x=3", "Solve 3x = 9.")


@needs_package
def test_what_takes_too_long_is_wrong_and_the_next_is_answered():
    assert formula(SLOW)
    started = time.monotonic()
    assert not same_formula(SLOW, SLOW.replace("20", "19"))
    assert time.monotonic() - started < equivalence.ANSWER_SECONDS / 2
    assert same_formula("1+x", "x+1")


def test_a_setting_says_whether_it_is_asked(monkeypatch):
    context = RewardContext(generated_text="(x+1)^2", answer="(x+1)^2", reference_answer="x^2+2x+1")
    monkeypatch.setattr(equivalence, "is_installed", lambda: False)
    assert RewardRegistry.create("exact_match").compute(context) == 0.0
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.config\.math_verify: .*not installed: `pip install math"):
        RewardRegistry.create("exact_match", {"math_verify": "always"}, where="rewards[0]")
    monkeypatch.setattr(equivalence, "is_installed", lambda: True)
    monkeypatch.setattr("pipelines.rewards.content.same_formula", lambda *_: pytest.fail("asked"))
    assert RewardRegistry.create("exact_match", {"math_verify": "never"}).compute(context) == 0.0


@pytest.mark.parametrize("there", [True, False])
def test_it_is_an_input_of_what_it_decides(there, tmp_path, monkeypatch):
    def version(package: str) -> str:
        if not there:
            raise PackageNotFoundError(package)
        return "1.2"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installed, "version", version)
    packages = {"package.math-verify": "installed"} if there else {}
    config = make_config(tmp_path)
    never = changed(config, "rewards", (RewardConfig(name="exact_match", config={"math_verify": "never"}),))

    def inputs(config, **asked):
        found = plan.asked_identity("eval", config, rows=False, **asked).inputs
        return {name: value for name, value in found.items() if name.startswith(installed.PREFIX)}

    assert inputs(config) == inputs(never, benchmark="exact_match") == packages
    assert inputs(never) == {}
    assert plan.train_identity(never, tokens="0").inputs.keys() == {"preprocess", "model"}
    assert plan.train_identity(config, tokens="0").inputs.keys() == {"preprocess", "model", *packages}
    foreign = changed(changed(config, "data.loader_type", "synthetic"), "data.synthetic.task", "leg_counting")
    assert plan.preprocess_identity(foreign).inputs.get("package.reasoning-gym") == ("1.2" if there else None)
    assert "package.reasoning-gym" not in plan.preprocess_identity(config).inputs
