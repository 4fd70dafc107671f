"""A reward worker: a process of its own that scores chunks of completions for the trainer, and ends with it.

The trainer and its workers are one program that trusts itself, so they speak pickle over a socket pair. Which item a
worker is at stands in shared memory, where the trainer can read it even while a reward holds the interpreter.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from pipelines.config import RewardConfig
from pipelines.plugins import load_plugins
from pipelines.rewards.base import BaseReward
from pipelines.rewards.composer import Item, score_block
from pipelines.rewards.context import RewardContext
from pipelines.rewards.registry import RewardRegistry

POSITION = struct.Struct("q")
STARTING, IDLE = -1, 0
"""Positions between items; item number i of a chunk is position i + 1."""

SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class Order(NamedTuple):
    """What a worker is told first."""

    plugins: tuple[str, ...]
    rewards: tuple[RewardConfig, ...]
    sources: Mapping[str, bytes]
    """What the plugins held when the trainer imported them: every worker of a run has the same rules."""


class Chunk(NamedTuple):
    """Some completions, the columns to score them in, and the items (row, column) that ended a worker before."""

    contexts: Sequence[RewardContext]
    columns: tuple[int, ...]
    skipped: frozenset[tuple[int, int]] = frozenset()


class Reply(NamedTuple):
    """Items by their rows within the chunk, and seconds by column."""

    items: list[Item]
    seconds: dict[int, float]


def main() -> None:
    """Arguments: descriptors of the socket and of the position's file, and the trainer's process id."""
    channel, shared, parent = map(int, sys.argv[-3:])
    end_with(parent)
    for descriptor in (channel, shared):
        os.set_inheritable(descriptor, False)  # what a reward starts must not hold them open
    position = mmap.mmap(shared, POSITION.size)
    with Connection(channel) as connection:
        try:
            serve(connection, position)
        except (EOFError, ConnectionError):
            return  # the trainer has gone, or wants no more


def serve(connection: Connection[Any, Any], position: mmap.mmap) -> None:
    """Make the rewards, say which there are, and score until the other end closes."""
    order: Order = connection.recv()
    load_plugins(order.plugins, order.sources)
    rewards = {column: made(entry, column) for column, entry in enumerate(order.rewards)}
    connection.send([None if reward is None else class_name(reward) for reward in rewards.values()])
    POSITION.pack_into(position, 0, IDLE)
    while True:
        chunk: Chunk = connection.recv()
        chosen = {column: reward for column in chunk.columns if (reward := rewards[column]) is not None}
        rows, columns = len(chunk.contexts), {column: place for place, column in enumerate(chosen)}

        def begin(row: int, column: int, rows: int = rows, columns: dict[int, int] = columns) -> None:
            POSITION.pack_into(position, 0, columns[column] * rows + row + 1)

        found = Reply(*score_block(chosen, chunk.contexts, skipped=chunk.skipped, begin=begin))
        POSITION.pack_into(position, 0, IDLE)
        connection.send(found)


def item_at(position: int, chunk: Chunk) -> tuple[int, int]:
    """The (row, column) of a chunk that a position from 1 on stands for."""
    place, row = divmod(position - 1, len(chunk.contexts))
    return row, chunk.columns[place]


def made(entry: RewardConfig, column: int) -> BaseReward | None:
    """The reward, or None if only the trainer's process knows it, because it comes from no file a worker reads."""
    if entry.name not in RewardRegistry.names():
        return None
    return RewardRegistry.create(entry.name, entry.config, where=f"rewards[{column}]")


def class_name(reward: BaseReward) -> tuple[str, str]:
    return type(reward).__module__, type(reward).__qualname__


def end_with(parent: int) -> None:
    """End when the trainer ends, however it ends: by the kernel on Linux, elsewhere by looking once a second."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)
