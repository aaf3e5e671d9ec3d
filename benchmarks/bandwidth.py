"""How many bytes a second this machine moves, from the nearest cache to memory.

What is measured is a copy: bytes read and bytes written. How fast it is depends on where they lie,
so it is measured for as many bytes as fit each cache, and for many more.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

# From what stays in the first cache to what stays in none: source and target together.
SIZES = tuple(1 << power for power in range(14, 29, 2))


@dataclass(frozen=True)
class Bandwidth:
    """The fastest copies found, by how many bytes they moved.

    Attributes:
        threads: that copied at once, each its own part.
        rates: bytes -> bytes a second.
    """

    threads: int
    rates: dict[int, float]

    @property
    def memory(self) -> float:
        """Bytes a second of the largest copy."""
        return self.rates[max(self.rates)]

    def seconds(self, count: int) -> float:
        """The least time in which so many bytes are moved."""
        return count / self.rate(count)

    def rate(self, count: int) -> float:
        """The best of a copy of that size or larger: calls of small ones cost more than moving."""
        least = max((size for size in self.rates if size <= count), default=min(self.rates))
        return max(rate for size, rate in self.rates.items() if size >= least)


def measured_bandwidth(*, threads: int, seconds: float = 1.0) -> Bandwidth:
    """Copy for so long.

    Args:
        threads: at least 1.
        seconds: in all; every size is copied at least three times.
    """
    with ThreadPoolExecutor(threads) as pool:
        share = seconds / len(SIZES)
        return Bandwidth(threads, {size: _rate(pool, threads, size, share) for size in SIZES})


def _rate(pool: ThreadPoolExecutor, threads: int, size: int, seconds: float) -> float:
    half = max(1, size // 2 // threads)
    pairs = [(np.ones(half, np.uint8), np.zeros(half, np.uint8)) for _ in range(threads)]
    # Handing out work takes some 100 microseconds: each turn copies for longer than that.
    times = max(1, (64 << 20) // size)
    best, turns, end = math.inf, 0, time.perf_counter() + seconds
    while turns < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        list(pool.map(partial(_copy, times), pairs))
        best, turns = min(best, time.perf_counter() - start), turns + 1
    return 2 * half * threads * times / best


def _copy(times: int, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for _ in range(times):
        np.copyto(pair[1], pair[0])
