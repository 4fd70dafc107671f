"""What decoding calls on a CPU in place of mlx-lm's functions: the same numbers, and mlx-lm's own where it cannot."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models import activations, base, gpt_oss, llama

from pipelines.config import GenerationConfig
from pipelines.generation.engine import generate
from pipelines.generation.seeds import row_keys
from pipelines.models import cpu
from pipelines.models.calls import calling

LLAMA = llama.ModelArgs(
    model_type="llama",
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    vocab_size=40,
)
GPT_OSS = gpt_oss.ModelArgs(
    num_hidden_layers=2,
    num_local_experts=4,
    num_experts_per_tok=2,
    vocab_size=40,
    hidden_size=32,
    intermediate_size=32,
    head_dim=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    sliding_window=8,
)


@pytest.fixture
def own(monkeypatch) -> list[str]:
    """The names of mlx-lm's functions that are called after all."""
    called: list[str] = []
    for name in ("OWN_SWIGLU", "OWN_ATTENTION"):
        function = getattr(cpu, name)
        monkeypatch.setattr(
            cpu, name, lambda *a, name=name, function=function, **k: (called.append(name), function(*a, **k))[1]
        )
    return called


small = st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6)
large = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=6, max_size=6)


@given(gate=small | large, x=small)
def test_swiglu_is_mlx_lms(gate, x):
    gate, x = (mx.array(np.array(each, np.float32).reshape(2, 3)) for each in (gate, x))
    np.testing.assert_allclose(cpu.swiglu(gate, x), activations.swiglu(gate, x), rtol=1e-5, atol=1e-30)


def test_swiglu_takes_views_and_leaves_what_it_is_given(own):
    both = mx.random.normal((5, 1, 16))
    before = np.array(both)
    gate, x = mx.split(both, 2, axis=-1)
    np.testing.assert_allclose(cpu.swiglu(gate, x), activations.swiglu(gate, x), rtol=2e-6)
    np.testing.assert_array_equal(both, before)
    assert own == []


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_types_stay_with_mlx_lm(dtype, own):
    gate = mx.random.normal((5, 16)).astype(dtype)
    assert mx.array_equal(cpu.swiglu(gate, gate), activations.swiglu(gate, gate))
    queries, keys = gate.reshape(5, 2, 1, 8), gate.reshape(5, 2, 1, 8)
    assert cpu.attend(queries, keys, keys, None, 0.25, None).dtype == dtype
    assert own == ["OWN_SWIGLU", "OWN_ATTENTION"]


def test_a_compiled_function_has_no_numbers_to_show(own):
    gate, queries, keys = mx.random.normal((5, 16)), mx.random.normal((3, 4, 1, 8)), mx.random.normal((3, 2, 9, 8))
    swiglu = mx.compile(cpu.swiglu)
    np.testing.assert_allclose(swiglu(gate, gate), activations.swiglu(gate, gate), rtol=2e-6)
    attend = mx.compile(lambda queries, keys: cpu.attend(queries, keys, keys, None, 0.25, None))
    np.testing.assert_allclose(attend(queries, keys), asked(queries, keys, keys, None), atol=1e-6)
    assert own == ["OWN_SWIGLU", "OWN_ATTENTION"]


def asked(queries, keys, values, mask, sinks=None):
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.25, mask=mask, sinks=sinks)


SEEN = mx.arange(9)[None, None, None] >= mx.array([0, 2, 9])[:, None, None, None]
"""The last row sees nothing: it is padding."""


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize(
    "mask",
    [None, SEEN, mx.where(SEEN, 0.0, mx.finfo(mx.float32).min), SEEN[1, 0], mx.where(SEEN, 0.0, 1.5)],
    ids=["none", "by row", "added", "for all rows", "biased"],
)
def test_attention_of_one_position_is_mlx_lms(heads, mask, own):
    queries, keys, values = (mx.random.normal((3, count, n, 16)) for count, n in ((heads, 1), (2, 9), (2, 9)))
    values = values[..., :12]  # narrower than the keys
    found = cpu.attend(40 * queries, keys, values, None, 0.25, mask)
    expected = asked(40 * queries, keys, values, mask)
    seeing = np.isfinite(expected).all(axis=(1, 2, 3))
    assert seeing[:2].all()
    np.testing.assert_allclose(np.array(found)[seeing], np.array(expected)[seeing], atol=1e-5)
    assert np.isfinite(found).all()
    assert own == []


@pytest.mark.parametrize(
    ("positions", "mask", "sinks"),
    [(4, "causal", None), (1, None, mx.zeros(6)), (1, mx.broadcast_to(SEEN, (3, 6, 1, 9)), None)],
    ids=["several positions", "sinks", "a mask for each head"],
)
def test_other_attention_stays_with_mlx_lm(positions, mask, sinks, own):
    queries, keys = mx.random.normal((3, 6, positions, 16)), mx.random.normal((3, 2, 9, 16))
    found = cpu.attend(queries, keys, keys, None, 0.25, mask, sinks=sinks)
    assert mx.array_equal(found, asked(queries, keys, keys, mask, sinks))
    assert own == ["OWN_ATTENTION"]


def build(architecture, arguments):
    mx.random.seed(0)
    model = architecture.Model(arguments)
    model.eval()
    mx.eval(model.parameters())
    return model


def test_a_model_calls_its_own_functions_again_afterwards():
    model = build(llama, LLAMA)
    with calling(model, cpu.CALLS):
        assert (llama.swiglu, llama.scaled_dot_product_attention) == (cpu.swiglu, cpu.attend)
        with pytest.raises(KeyError), calling(model, cpu.CALLS):
            raise KeyError
        assert llama.swiglu is cpu.swiglu
    assert llama.swiglu is activations.swiglu
    assert llama.scaled_dot_product_attention is base.scaled_dot_product_attention


def test_a_model_whose_modules_live_beside_mlx_lms_functions():
    """gpt_oss has an activation from the module that defines `swiglu`."""
    model = build(gpt_oss, GPT_OSS)
    with calling(model, cpu.CALLS):
        assert activations.swiglu is cpu.swiglu
        half = mx.ones(3, mx.bfloat16)
        assert cpu.swiglu(half, half).dtype == mx.bfloat16
    assert activations.swiglu is cpu.OWN_SWIGLU


@pytest.mark.usefixtures("as_on_a_cpu")
def test_rollouts_call_them(monkeypatch):
    """Else nothing of this would be of use."""
    model, called = build(llama, LLAMA), set[str]()

    def watched(name):
        function = getattr(cpu, name)
        return lambda *a, **k: (called.add(name), function(*a, **k))[1]

    calls = [(function, watched(name)) for (function, _), name in zip(cpu.CALLS, ("swiglu", "attend"), strict=True)]
    monkeypatch.setattr(cpu, "CALLS", calls)
    generate(
        model,
        [np.array([3, 4], np.int32)],
        group_size=2,
        sampling=GenerationConfig(),
        eos_ids=frozenset({1}),
        max_tokens=3,
        seeds=row_keys(0, "rollout", 1, [0], 2),
    )
    assert called == {"swiglu", "attend"}
