"""Rollouts: batched decoding that records the log-probability of what it sampled."""

import pipelines.backend  # noqa: F401 - loads the fast BLAS before any file here imports MLX
