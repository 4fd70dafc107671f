"""Everything that touches mlx-lm: load, adapt, score, save."""
