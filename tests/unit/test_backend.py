"""The machine under the run: the fast BLAS is live, the seed seeds, and a CPU computes in float32."""

import json
import os
import platform
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from pipelines import backend, blas

SCRIPT = """
import json, os, sys
{first}
import pipelines.{room}
in_time = "pipelines.backend" in sys.modules and "mlx.core" not in sys.modules
from pipelines import backend
print(json.dumps([in_time, backend.BLAS, os.environ["OPENBLAS_NUM_THREADS"], backend.blas_gflops()]))
"""
ROOMS = ["algorithms", "generation", "models", "training"]
STAGES = ["checkup", "export", "serve"]
"""Those that import MLX themselves."""
LINUX = sys.platform == "linux"
OLDER = LINUX and platform.machine() == "x86_64" and "avx512vl" not in blas._processor_flags()


def fresh(room: str, first: str = "", **environment: str) -> list:
    """What a new interpreter finds after importing one room: BLAS there and MLX not yet, BLAS, threads, GFLOP/s."""
    inherited = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    script = SCRIPT.format(room=room, first=first)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not LINUX or OLDER, reason="MLX brings a fast BLAS elsewhere; PyPI's is not for older processors")
@pytest.mark.parametrize("room", ROOMS + STAGES)
def test_whatever_uses_mlx_gets_the_fast_blas(room):
    in_time, blas, threads, gflops = fresh(room)
    assert in_time, "importing it must load the BLAS, and MLX not before"
    assert blas is not None
    assert blas.endswith("libopenblas.so")
    assert int(threads) == min(backend.usable_cores(), backend.MOST_THREADS)
    assert gflops > 8  # the reference BLAS reaches 4; half of what doctor calls fast, for a busy machine


@pytest.mark.skipif(not LINUX, reason="MLX brings a fast BLAS elsewhere")
def test_half_a_library_is_never_loaded(tmp_path, files_of_a_kilobyte, monkeypatch):
    library = tmp_path / "libgfortran-1.so"
    monkeypatch.setattr(type(library), "read_bytes", lambda _self: bytes(4096))
    with pytest.raises(OSError, match="File too large"):
        blas._load_renamed(library)


@pytest.mark.skipif(not LINUX, reason="MLX brings a fast BLAS elsewhere")
def test_the_users_own_thread_count_stays():
    assert fresh("models", OPENBLAS_NUM_THREADS="1")[2] == "1"


def test_mlx_is_told_to_be_exact_and_to_go_on_unless_the_user_says_otherwise():
    names = list(backend.MLX_SETTINGS)
    script = f"import os, pipelines.backend; print([os.environ[name] for name in {names}])"
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    for asked in ({}, {names[0]: "1"}):
        done = subprocess.run([sys.executable, "-c", script], env=inherited | asked, capture_output=True, check=True)
        assert done.stdout.decode().strip() == str([asked.get(name, "0") for name in names])


def test_products_of_float32_numbers_are_not_rounded():
    """Tensor cores would leave an error of 3e-4."""
    left, right = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    found, exact = np.array(mx.array(left) @ mx.array(right)), left.astype(float) @ right
    assert np.linalg.norm(found - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.fixture
def openblas(monkeypatch):
    """The live library, with nobody asking for a number of threads; they are put back."""
    if backend.BLAS is None or backend.on_gpu():
        pytest.skip("the threads of OpenBLAS are only used on a Linux CPU")
    before = blas.threads(backend.BLAS)
    monkeypatch.setattr(backend, "THREADS_ASKED", "")
    yield backend.BLAS
    blas.set_threads(backend.BLAS, before)


def as_if(monkeypatch, seconds):
    """A measurement that found these seconds."""
    monkeypatch.setattr(backend, "thread_seconds", lambda: seconds)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 0.010, 2: 0.006}, 2),
        ({1: 0.010, 2: 0.093}, 1),
        ({1: 0.010, 2: 0.0095}, 1),
        ({1: 0.010, 2: 0.006, 4: 0.0058}, 2),
        ({1: 0.010, 2: 0.0095, 4: 0.005}, 4),
    ],
    ids=["faster", "waiting for each other", "not worth it", "the second is not worth it", "only together"],
)
def test_the_fewest_threads_that_are_fast_are_used(openblas, monkeypatch, seconds, chosen):
    as_if(monkeypatch, seconds)
    assert backend.prepare().threads == blas.threads(openblas) == backend.threads() == chosen


def test_threads_are_tried_as_long_as_more_are_a_gain(openblas, monkeypatch):
    monkeypatch.setattr(backend, "usable_cores", lambda: 8)
    monkeypatch.setattr(backend, "_product_seconds", lambda _limit: 1 / blas.threads(openblas))
    blas.set_threads(openblas, 8)
    built_for = blas.threads(openblas)
    assert list(backend.thread_seconds.__wrapped__()) == [n for n in (1, 2, 4, 8) if n <= built_for]
    monkeypatch.setattr(backend, "_product_seconds", lambda _limit: blas.threads(openblas))
    assert backend.thread_seconds.__wrapped__() == {1: 1, 2: 2}


def test_real_products_are_timed(openblas):
    found = backend.thread_seconds.__wrapped__()
    assert set(found) <= set(range(1, backend.usable_cores() + 1))
    assert all(1e-5 < seconds < 10 for seconds in found.values())


@pytest.mark.parametrize(("asked", "cores"), [("1", 2), ("2", 2), ("", 1)])
def test_nothing_is_measured_where_nothing_is_to_choose(openblas, monkeypatch, asked, cores):
    monkeypatch.setattr(backend, "THREADS_ASKED", asked)
    monkeypatch.setattr(backend, "usable_cores", lambda: cores)
    blas.set_threads(openblas, 1)
    assert backend.thread_seconds.__wrapped__() == {}
    as_if(monkeypatch, {})
    assert backend.prepare().threads == 1


def test_a_run_keeps_the_threads_it_began_with(openblas, monkeypatch, caplog):
    monkeypatch.setattr(backend, "usable_cores", lambda: 2)
    blas.set_threads(openblas, 1)
    for nothing_to_do in (None, 1):
        backend.keep_threads(nothing_to_do)
    assert backend.threads() == 1
    backend.keep_threads(2)
    assert backend.threads() == 2
    assert not caplog.records


@pytest.mark.parametrize(("asked", "began"), [("1", 2), ("", 3)], ids=["the user asks", "too few cores"])
def test_other_threads_than_a_run_began_with_are_told(openblas, monkeypatch, caplog, asked, began):
    monkeypatch.setattr(backend, "THREADS_ASKED", asked)
    monkeypatch.setattr(backend, "usable_cores", lambda: 2)
    blas.set_threads(openblas, 1)
    backend.keep_threads(began)
    assert backend.threads() == 1
    assert f"began with {began} BLAS threads and goes on with 1" in caplog.text


@pytest.mark.parametrize("inner", [47, 300, 448, 576, 1536])
def test_products_of_decoding_do_not_depend_on_the_threads(openblas, inner):
    """Up to 448 numbers are summed in one piece, and widths of models fall into the same pieces either way."""
    rng = np.random.default_rng(0)
    for rows in (1, 8, 64):
        left, right = (mx.array(rng.normal(size=shape), mx.float32) for shape in ((rows, inner), (inner, 640)))
        found = []
        for count in (1, 2):
            blas.set_threads(openblas, count)
            found.append(np.array(left @ right))
        assert np.array_equal(*found)


def test_a_blas_for_another_processor_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    libraries = {"special": b"..\0SKYLAKEX\0..", "general": b"..\0Haswell\0..\0SkylakeX\0.."}
    for name, image in libraries.items():
        (tmp_path / name).write_bytes(image)
    monkeypatch.setattr(blas, "_processor_flags", lambda: {"sse2", "avx2"})
    assert [blas._runs_here(tmp_path / name) for name in libraries] == [False, True]
    monkeypatch.setattr(blas, "_openblas", lambda: tmp_path / "special")
    assert blas.preload() is None
    monkeypatch.setattr(blas, "_processor_flags", lambda: {"sse2", "avx2", "avx512f", "avx512vl"})
    assert blas._runs_here(tmp_path / "special")


@pytest.mark.skipif(platform.machine() != "x86_64" or not LINUX, reason="as Linux tells it on x86")
def test_what_a_processor_can_do_is_read():
    assert "sse2" in blas._processor_flags()


def test_prepare_names_a_device_that_exists():
    used = backend.prepare()
    assert mx.default_device() == mx.Device(getattr(mx, used.device))
    assert used.compute_dtype == ("float32" if used.device == "cpu" else "as stored")


def test_the_same_seed_gives_the_same_numbers():
    draws = []
    for seed in (7, 7, 8):
        backend.prepare(seed)
        draws.append(mx.random.normal((8,)).tolist())
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("stored", [mx.float32, mx.bfloat16, mx.float16])
def test_a_cpu_computes_in_float32(stored):
    before = mx.default_device()
    try:
        mx.set_default_device(mx.cpu)
        assert backend.compute_dtype(stored) == mx.float32
    finally:
        mx.set_default_device(before)


@pytest.fixture
def computed(monkeypatch):
    """What is begun and what is waited for, in order."""
    calls = []
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: calls.append(("begun", *arrays)))
    monkeypatch.setattr(mx, "eval", lambda *arrays: calls.append(("waited for", *arrays)))
    return calls


def test_a_gpu_has_some_turns_under_way(computed, monkeypatch):
    monkeypatch.setattr(backend, "on_gpu", lambda: True)
    turns, count = backend.Turns(), backend.TURNS_UNDER_WAY
    for number in range(count + 2):
        turns([number])
    first = [("begun", [number]) for number in range(count)]
    assert computed == [
        *first,
        ("begun", [count]),
        ("waited for", [0]),
        ("begun", [count + 1]),
        ("waited for", [1]),
    ]


def test_a_cpu_computes_each_turn_at_once(computed, monkeypatch):
    monkeypatch.setattr(backend, "on_gpu", lambda: False)
    turns = backend.Turns()
    for number in range(backend.TURNS_UNDER_WAY + 2):
        turns([number])
        assert computed[number:] == [("waited for", [number])]


def test_memory_is_that_of_a_real_machine():
    assert backend.memory_bytes() > 2**28


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(backend, "threads", lambda: 2)
    monkeypatch.setattr(backend, "usable_cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (5.5, 0.0, 0.0))
    assert "load 5.5 on 2 cores" in backend.busy()
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    assert backend.busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (5.5, 0.0, 0.0))
    monkeypatch.setattr(backend, "threads", lambda: 1)
    assert backend.busy() is None
