"""Which tokens teach which leaves: the layer table of both regions and of every SFT mode, on paper."""

import pytest

from pipelines.config import TrainerConfig
from pipelines.config.layers import layer_ranges
from pipelines.errors import ConfigError
from pipelines.training.passes import plan_passes, policy_passes, sft_passes

LAYERS = 36
LEAVES = {f"model.layers.{n}.{part}": n for n in range(LAYERS) for part in ("attention", "mlp")}
LEAVES |= {"model.embed_tokens.weight": None, "model.norm.weight": None}
SEED_RANGES = {
    "use_dual_gradients": True,
    "thinking_layer_start": 18,
    "thinking_layer_end": 30,
    "answer_layer_start": 24,
    "answer_layer_end": 32,
}


def trainer(**changes):
    return TrainerConfig(**(SEED_RANGES | changes))


def passes(config, leaves=LEAVES, layers=LAYERS):
    return plan_passes(config, leaves, layer_ranges(config, layers))


def numbers(one):
    """The layers that a pass trains, and whether it trains what is in none."""
    found = {LEAVES[name] for name in one.leaves}
    assert len(one.leaves) == 2 * len(found)  # both leaves of each layer, both of the others
    return found - {None}, None in found


def test_one_pass_over_everything_without_dual_gradients():
    (only,) = passes(trainer(use_dual_gradients=False)).policy
    assert (only.thinking, only.answer, only.lowest) == (1, 1, 0)
    assert only.leaves == LEAVES.keys()


def test_the_seed_ranges():
    thinking, answer = passes(trainer(answer_gradient_weight=2.5)).policy
    assert (thinking.thinking, thinking.answer, thinking.lowest) == (1, 0, 18)
    assert numbers(thinking) == (set(range(18, 31)), False)
    assert (answer.thinking, answer.answer, answer.lowest) == (0, 2.5, 24)
    assert numbers(answer) == (set(range(24, 33)), False)


def test_the_lower_range_goes_first_so_that_the_other_can_begin_inside_it():
    swapped = trainer(thinking_layer_start=24, thinking_layer_end=32, answer_layer_start=18, answer_layer_end=30)
    assert [one.lowest for one in passes(swapped).policy] == [18, 24]
    assert [one.answer for one in passes(swapped).policy] == [1, 0]


def test_other_parameters_join_both_regions_when_asked():
    found = passes(trainer(dual_train_other_params=True)).policy
    assert [numbers(one)[1] for one in found] == [True, True]
    assert [one.lowest for one in found] == [0, 0]


def test_open_ranges_are_all_layers_and_one_pass_does_for_equal_ones():
    whole = dict.fromkeys(set(SEED_RANGES) - {"use_dual_gradients"})
    (only,) = passes(trainer(**whole, thinking_gradient_weight=0.5)).policy
    assert (only.thinking, only.answer) == (0.5, 1)
    assert numbers(only) == (set(range(LAYERS)), False)


def test_a_region_of_weight_zero_has_no_pass_and_its_own_layers_are_not_trained():
    (answer,) = passes(trainer(thinking_gradient_weight=0)).policy
    assert numbers(answer)[0] == set(range(24, 33))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("all", set(range(LAYERS))),
        ("answer_only", set(range(24, 33))),
        ("exclude_thinking", {*range(18), *range(31, LAYERS)}),
    ],
)
@pytest.mark.parametrize("others", [False, True])
def test_modes_that_teach_the_answer(mode, expected, others):
    config = trainer(use_sft_on_answer=True, sft_mode=mode, sft_weight=0.3, dual_train_other_params=others)
    (only,) = passes(config).sft
    assert (only.thinking, only.answer) == (0, 0.3)
    assert numbers(only) == (expected, others)


def test_weighted_teaches_each_region_to_its_own_layers():
    config = trainer(
        use_sft_on_answer=True, sft_mode="weighted", sft_weight=0.5, sft_thinking_weight=0.2, sft_answer_weight=3
    )
    thinking, answer = passes(config).sft
    assert (thinking.thinking, thinking.answer) == (0.1, 0)
    assert numbers(thinking)[0] == set(range(18, 31))
    assert (answer.thinking, answer.answer) == (0, 1.5)
    assert numbers(answer)[0] == set(range(24, 33))


def test_weighted_as_it_comes_is_answer_only():
    ranges = layer_ranges(trainer(), LAYERS)
    weighted, answer_only = (
        sft_passes(trainer(use_sft_on_answer=True, sft_mode=mode), LEAVES, ranges)
        for mode in ("weighted", "answer_only")
    )
    assert weighted == answer_only


@pytest.mark.parametrize("off", [{}, {"use_sft_on_answer": True, "sft_weight": 0}])
def test_no_supervised_pass_unless_it_counts(off):
    assert passes(trainer(**off)).sft == ()


def test_the_supervised_term_has_its_layers_without_dual_gradients_too():
    found = passes(trainer(use_dual_gradients=False, use_sft_on_answer=True, sft_mode="answer_only"))
    assert numbers(found.sft[0]) == (set(range(24, 33)), False)
    assert found.policy[0].leaves == LEAVES.keys()


def test_an_adapter_outside_a_range_is_an_error_that_names_the_keys():
    adapters = {f"layers.{n}.lora_a": n for n in range(31, LAYERS)}
    with pytest.raises(ConfigError, match=r"trainer\.thinking_layer_start.*no layer with trainable") as told:
        passes(trainer(), adapters)
    assert "lora_layers" in told.value.hint
    config = trainer(thinking_gradient_weight=0)
    assert policy_passes(config, adapters, layer_ranges(config, LAYERS))[0].lowest == 31


def test_a_mode_that_excludes_every_layer_is_an_error():
    config = trainer(thinking_layer_start=0, thinking_layer_end=35, use_sft_on_answer=True, sft_mode="exclude_thinking")
    with pytest.raises(ConfigError, match="exclude_thinking leaves no layer") as told:
        passes(config)
    assert "trainer.thinking_layer_start" in told.value.hint
    assert "trainer.answer_layer_start" not in told.value.hint


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="weight 0"):
        passes(trainer(thinking_gradient_weight=0, answer_gradient_weight=0))
