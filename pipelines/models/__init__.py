"""Everything that touches mlx-lm: load, adapt, score, save."""

import pipelines.backend  # noqa: F401 - loads the fast BLAS before any file here imports MLX
