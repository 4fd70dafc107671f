"""The trainer: loop, update step, optimizer, checkpoints."""
