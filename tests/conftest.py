"""What every test file may rely on."""

import resource

import pytest
from hypothesis import settings

from pipelines import backend  # loads the fast BLAS before any test file imports MLX

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture
def files_of_a_kilobyte():
    """Nothing larger can be written, as on a disk that is nearly full."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, earlier[1]))  # Python ignores the signal: the write fails
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, earlier)


@pytest.fixture
def as_on_a_cpu(monkeypatch):
    """The ways of a CPU, whatever device there is: for tests of those, and of what depends on what is drawn."""
    monkeypatch.setattr(backend, "on_gpu", lambda: False)
    monkeypatch.setattr(backend, "on_cuda", lambda: False)
