"""What every test file may rely on."""

from hypothesis import settings

import pipelines.backend  # noqa: F401 - loads the fast BLAS before any test file imports MLX

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")
