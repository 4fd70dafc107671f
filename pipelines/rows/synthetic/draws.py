"""Choices that a key alone decides, the same on every machine and in every version of Python.

`random` promises that for `random()` only, not for shuffles and choices, so the choices here come from hashes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from math import comb, isqrt
from typing import TypeVar

ItemT = TypeVar("ItemT")

ROUNDS = 4
"""Of the Feistel network: four suffice for a pseudo-random permutation (Luby and Rackoff, 1988)."""


class Draw:
    """A stream of choices; equal keys give equal streams."""

    def __init__(self, *key: object) -> None:
        self._key = _digest(repr(key).encode())
        self._hashes = 0
        self._left, self._range = 0, 1

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1; as even as 2**-64 allows, for limits up to 2**448.

        The choices are digits of a number below 2**512, each to its own base, until another is needed.
        """
        if self._range < limit << 64:
            self._hashes += 1
            data = blake2b(self._hashes.to_bytes(8, "big"), key=self._key)
            self._left, self._range = int.from_bytes(data.digest(), "big"), 1 << 512
        self._range //= limit
        self._left, chosen = divmod(self._left, limit)
        return chosen

    def pick(self, items: Sequence[ItemT]) -> ItemT:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[ItemT]) -> list[ItemT]:
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in items]


class Order:
    """The numbers from 0 to size - 1, each once, in an order that the key decides; no list of them is kept.

    A Feistel network on pairs (a, b) of a rectangle with at least `size` cells; a result outside is mapped again
    (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """

    def __init__(self, size: int, *key: object) -> None:
        self.size = size
        self._key = _digest(repr(key).encode())
        self._height = isqrt(max(size - 1, 0)) + 1
        self._width = -(-size // self._height)

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self.size:
            raise IndexError(position)
        while (position := self._mapped(position)) >= self.size:
            pass
        return position

    def _mapped(self, cell: int) -> int:
        a, b = divmod(cell, self._width)
        for step in range(0, ROUNDS, 2):
            a = (a + _number(self._key, step, b)) % self._height
            b = (b + _number(self._key, step + 1, a)) % self._width
        return a * self._width + b


def subset(index: int, count: int) -> list[int]:
    """The index-th set of `count` different numbers >= 0, ascending: index = sum of comb(number_i, i), i from 1.

    The first comb(n, count) of them are those below n (the combinatorial number system).
    """
    numbers: list[int] = []
    for size in range(count, 0, -1):
        high = size
        while comb(high, size) <= index:
            high *= 2
        number = bisect_right(range(high), index, key=lambda n, size=size: comb(n, size)) - 1
        index -= comb(number, size)
        numbers.append(number)
    return numbers[::-1]


def multiset(index: int, count: int) -> list[int]:
    """The same with repetition: the first comb(n + count - 1, count) of them are those of numbers below n."""
    return [number - place for place, number in enumerate(subset(index, count))]


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def _number(key: bytes, *place: int) -> int:
    data = ":".join(map(str, place)).encode()
    return int.from_bytes(blake2b(data, key=key, digest_size=16).digest(), "big")
