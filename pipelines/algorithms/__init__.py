"""Arrays in, arrays out: advantages, losses, regions; one short file per algorithm.

Shapes: B prompts per update, G completions per prompt, N = B * G, P prompt tokens, C completion tokens,
T = P + C, V vocabulary, L layers.
"""

import pipelines.backend  # noqa: F401 - loads the fast BLAS before any file here imports MLX
