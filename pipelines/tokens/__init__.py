"""NPY token arrays: write, map, order."""
