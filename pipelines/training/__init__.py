"""The trainer: loop, update step, optimizer, checkpoints."""

import pipelines.backend  # noqa: F401 - loads the fast BLAS before any file here imports MLX
