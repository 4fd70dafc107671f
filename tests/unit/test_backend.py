"""The machine under the run: the fast BLAS is live, the seed seeds, and a CPU computes in float32."""

import json
import os
import subprocess
import sys

import mlx.core as mx
import pytest

from pipelines import backend

SCRIPT = """
import json, os, sys
{first}
import pipelines.{room}
light = "mlx.core" not in sys.modules
from pipelines import backend
print(json.dumps([light, backend.BLAS, os.environ["OPENBLAS_NUM_THREADS"], backend.blas_gflops()]))
"""
ROOMS = ["algorithms", "generation", "models", "training"]


def fresh(room: str, first: str = "", **environment: str) -> list:
    """What a new interpreter finds after importing one room: MLX absent, BLAS, threads, GFLOP/s."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="MLX brings a fast BLAS elsewhere")
@pytest.mark.parametrize("room", ROOMS)
def test_every_room_with_mlx_gets_the_fast_blas(room):
    light, blas, threads, gflops = fresh(room)
    assert light, "importing the room's __init__ must not import MLX"
    assert blas is not None
    assert blas.endswith("libopenblas.so")
    assert int(threads) == min(backend.usable_cores(), backend.MOST_THREADS)
    assert gflops > 8  # the reference BLAS reaches 4; half of what doctor calls fast, for a busy machine


@pytest.mark.skipif(sys.platform != "linux", reason="MLX brings a fast BLAS elsewhere")
def test_the_users_own_thread_count_stays():
    assert fresh("models", OPENBLAS_NUM_THREADS="1")[2] == "1"


def test_an_odd_thread_count_is_no_crash(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "many")
    assert backend.prepare().threads == backend.usable_cores()


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


def test_memory_is_that_of_a_real_machine():
    assert backend.memory_bytes() > 2**28


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(backend, "BLAS", "libopenblas.so")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.setattr(backend, "usable_cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (5.5, 0.0, 0.0))
    assert "load 5.5 on 2 cores" in backend.busy()
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    assert backend.busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (5.5, 0.0, 0.0))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert backend.busy() is None
