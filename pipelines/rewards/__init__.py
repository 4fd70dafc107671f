"""Rewards: what a completion is worth, by rules anyone can read.

Importing the room registers the built-in rewards; a user's file adds its own (docs/adding-a-reward.md).
"""

from pipelines.rewards import code, content, countdown, lengths, mcq, quality, reasoning_gym, steps
from pipelines.rewards import format as shape
from pipelines.rewards.base import BaseReward
from pipelines.rewards.composer import Failure, RewardComposer, Scores
from pipelines.rewards.context import RewardContext, completion_context, split_regions
from pipelines.rewards.registry import RewardRegistry

BUILT_IN = (code, content, countdown, shape, lengths, quality, mcq, reasoning_gym, steps)

__all__ = [
    "BUILT_IN",
    "BaseReward",
    "Failure",
    "RewardComposer",
    "RewardContext",
    "RewardRegistry",
    "Scores",
    "completion_context",
    "split_regions",
]
