"""Rewards: what a completion is worth, by rules anyone can read."""
