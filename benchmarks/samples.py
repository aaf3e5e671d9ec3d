"""Raw latencies of one call in one process, and how they are stored.

Stored, an array of nanoseconds is base64 of zlib of little-endian int64: exact, and small enough
to travel in a report, so that anyone can compute its numbers again.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.stored import known
from convexport.runtime.errors import InputError

ENCODING = "base64(zlib(little-endian int64)), nanoseconds"
# Far more than a run of hours: what unpacks to more is not one of ours.
_MAX_BYTES = 1 << 30

Nanoseconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Warmup:
    """How a call was warmed up.

    Attributes:
        seconds: how long it took.
        windows: how many windows of ``window_s`` seconds it took.
        window_s: shorter than a second when the run is short.
        settled: whether the medians of the last two windows differ by less than 2 %.
    """

    seconds: float
    windows: int
    window_s: float
    settled: bool


@dataclass(frozen=True, eq=False)
class Samples:
    """What the meter saw of one call.

    Attributes:
        ns: int64 (n,), the duration of each call in the order in which they were made.
        block_sizes: int64 (blocks,), how the samples divide into uninterrupted blocks.
        block_starts_ns: int64 (blocks,), since the first block of any call began.
        first_ns: the very first call, before the warm-up.
        warmup: what came between.
    """

    ns: Nanoseconds
    block_sizes: Nanoseconds
    block_starts_ns: Nanoseconds
    first_ns: int
    warmup: Warmup

    def blocks(self) -> list[Nanoseconds]:
        """The samples, one array a block."""
        return np.split(self.ns, np.cumsum(self.block_sizes)[:-1])

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the arrays as ENCODING says."""
        return {
            "ns": pack(self.ns),
            "block_sizes": pack(self.block_sizes),
            "block_starts_ns": pack(self.block_starts_ns),
            "first_ns": self.first_ns,
            "warmup": asdict(self.warmup),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Samples:
        """The inverse of ``to_dict``.

        Raises:
            InputError: E0360, these are not samples.
        """
        try:
            samples = cls(
                unpack(data["ns"]),
                unpack(data["block_sizes"]),
                unpack(data["block_starts_ns"]),
                int(data["first_ns"]),
                Warmup(**known(Warmup, data["warmup"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("E0360", f"these are not raw samples: {error!r}") from error
        sizes = samples.block_sizes
        fits = len(sizes) == len(samples.block_starts_ns) and sizes.sum() == len(samples.ns)
        if not fits or len(sizes) == 0 or sizes.min() < 1:
            raise InputError("E0360", "the raw samples do not add up to their blocks")
        return samples


def pack(values: Nanoseconds) -> str:
    """An int64 array as ENCODING says."""
    return base64.b64encode(zlib.compress(values.astype("<i8").tobytes(), 6)).decode()


def unpack(text: str) -> Nanoseconds:
    """The inverse of ``pack``.

    Raises:
        InputError: E0360, the text is not such an array.
    """
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError("cut short, or too long")
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise InputError("E0360", f"these are not packed nanoseconds: {error}") from error
