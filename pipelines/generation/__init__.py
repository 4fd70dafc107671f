"""Rollouts: batched decoding that records the log-probability of what it sampled."""
