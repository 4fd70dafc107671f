"""The cache: identity, manifest, store, locks. Knows nothing of reinforcement learning."""
