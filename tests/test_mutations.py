"""The tests of the mathematics notice every mistake of a long list: each is made in a copy, and something must fail."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipelines.config import AdvantageConfig

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "pipelines" / "algorithms"
FILES = ["entropy", "importance", "kl", "loss_metrics", "surrogates", "losses", "advantages"]
"""In order of import, so that each copy is made of the copies it uses."""


def load(path):
    """A file of tests as a module of its own; what it imports is what `sys.modules` says at this moment."""
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MUTANTS = load(TESTS / "mutants.py").MUTANTS


def put_in_place(monkeypatch, mutant=None):
    """Copies of the files under test, one of them mutated, where imports will find them until the test ends."""
    for file in FILES:
        source = (SOURCES / f"{file}.py").read_text(encoding="utf-8")
        if mutant and mutant.file == file:
            source = source.replace(mutant.old, mutant.new)
        module = ModuleType(f"pipelines.algorithms.{file}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(source, f"<copy of {file}.py>", "exec"), vars(module))


def check_golden_numbers():
    losses = load(TESTS / "golden" / "test_loss_cases.py")
    for name in losses.SETTINGS:
        losses.test_golden_loss(name)
    advantages = load(TESTS / "golden" / "test_advantage_cases.py")
    for case in advantages.CASES:
        advantages.test_golden_advantages(case)


def check_against_the_twin():
    """Fixed updates through the comparison with finite differences: estimators, levels, corrections."""
    twin = load(TESTS / "property" / "test_losses_twin.py")
    for type_ in twin.OFFERED:
        for estimator in ("k1", "k2", "k3"):
            twin.test_each_estimator_with_each_type(type_, estimator, corrected=True, on_policy=True)
            twin.test_each_estimator_with_each_type(type_, estimator, corrected=False, on_policy=False)
    filtered = twin.config_of("dapo", top_entropy_quantile=0.6, entropy_coef=0.3)
    twin.agree(*twin.update_of(0), filtered)
    for mode in twin.MODES:
        twin.agree(*twin.update_of(1, mode=mode), twin.config_of("dapo"))


def check_laws_of_losses():
    laws = load(TESTS / "property" / "test_losses_laws.py")
    laws.test_clip_metrics_count_the_tokens_that_the_clip_stops()
    drawn(laws.test_padding_garbage_changes_nothing, type_="dapo", seed=1, garbage=float("nan"), level="token")
    splits = load(TESTS / "property" / "test_losses_micro_batches.py")
    splits.test_bnpo_averages_within_the_micro_batch()
    drawn(
        splits.test_the_sum_over_micro_batches_is_the_update,
        type_="dapo",
        level="token",
        seed=3,
        cuts=[1, 4],
        quantile=0.4,
    )
    corrections = load(TESTS / "property" / "test_losses_corrections.py")
    for seed in range(4):  # with an odd number of tokens the median is one of them
        drawn(
            corrections.test_the_entropy_filter_keeps_the_most_uncertain_tokens_and_every_denominator,
            type_="dapo",
            seed=seed,
            quantile=0.5,
        )
    corrections.test_the_token_at_the_threshold_stays(0.4, 51)
    corrections.test_a_ratio_per_row_takes_no_advantage_per_token({"type": "gspo"})
    corrections.test_the_configured_correction(
        {"sampler_correction": "token_mask"}, corrections.SamplerCorrection("token_mask", None, 3.0)
    )


def check_laws_of_advantages():
    laws = load(TESTS / "property" / "test_advantages_laws.py")
    rewards = np.array([[0.0, 1.0, 0.5, np.nan], [2.0, 2.0, 2.0, 3.0]], dtype=np.float32)
    for scale in laws.SCALES:
        laws.test_ten_times_2_7_has_no_advantage(scale)
        drawn(laws.test_auto_is_the_group_from_two_completions_on, rewards=rewards, scale=scale)
    laws.test_one_unit_in_the_last_place_is_no_signal_but_a_ten_thousandth_is(0.7)
    drawn(laws.test_leave_one_out_is_its_definition, rewards=rewards)
    drawn(laws.test_unscored_rows_get_zero_and_nothing_is_nan, rewards=rewards, config=AdvantageConfig())
    laws.test_where_a_reward_abstained_the_others_speak_for_it_when_normalised_first()
    laws.test_when_normalised_first_a_group_is_flat_only_if_every_reward_is()
    laws.test_kept_rows_are_those_of_groups_that_differ()


CHECKS = [check_golden_numbers, check_laws_of_advantages, check_laws_of_losses, check_against_the_twin]


def fails(check):
    try:
        check()
    except (AssertionError, pytest.fail.Exception):  # the latter where an exception was expected
        return True
    return False


def drawn(test, **arguments):
    """A hypothesis test with arguments that are given, not drawn."""
    test.hypothesis.inner_test(**arguments)


def test_the_list_fits_the_sources():
    assert len(MUTANTS) >= 30
    assert len(set(MUTANTS)) == len(MUTANTS)
    for mutant in MUTANTS:
        source = (SOURCES / f"{mutant.file}.py").read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, mutant
        assert mutant.old != mutant.new
    assert {mutant.file for mutant in MUTANTS} == set(FILES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_fails_on_faithful_copies(monkeypatch, check):
    put_in_place(monkeypatch)
    check()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{mutant.file}: {mutant.why}" for mutant in MUTANTS])
def test_every_mistake_is_noticed(monkeypatch, mutant):
    """By an assertion: a copy that merely breaks would prove nothing."""
    put_in_place(monkeypatch, mutant)
    if not any(fails(check) for check in CHECKS):
        pytest.fail(f"{mutant.file}: {mutant.old!r} -> {mutant.new!r} goes unnoticed ({mutant.why})")
