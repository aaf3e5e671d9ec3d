"""What was seen of a tensor: exact bounds, magnitudes counted in bins, and its channels.

The bins need no range known beforehand: a bin is the upper half of a float32 without its sign,
that is a bfloat16 magnitude. There are 32,768 of them, each at most 1/128 wide relative to its
value, over all that a float32 can be. Two histograms merge by addition, exactly.

Bounds are of all values. Of a large tensor some 50,000 values an image are counted, in evenly
spread rows: of so many images, more change no threshold, and counting is what time goes into.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convexport.runtime.errors import InputError

BINS = 1 << 15
_MAGNITUDE = np.uint16(BINS - 1)
# Of the rows of an image, every so manieth is counted that no more values than these are. Whole
# rows, since memory is read in lines and that is what most of the time goes into.
COUNTED = 1 << 16

# Of the two halves of a float32 in memory, the one with sign, exponent and 7 bits of fraction.
_UPPER = 1 if sys.byteorder == "little" else 0


@dataclass(frozen=True)
class Channels:
    """What was seen of each channel, of the values that were counted.

    Attributes:
        minimum: float32 (C,).
        maximum: float32 (C,).
        total: the sum, float64 (C,).
        count: values a channel.
    """

    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    total: NDArray[np.float64]
    count: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each channel, (C,)."""
        return self.total / self.count

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """The largest absolute value of each channel, (C,)."""
        return np.maximum(np.abs(self.minimum), np.abs(self.maximum))

    def merge(self, other: Channels) -> Channels:
        """What both saw together."""
        return Channels(
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.total + other.total,
            self.count + other.count,
        )


@dataclass(frozen=True)
class TensorRange:
    """What was seen of one tensor.

    Attributes:
        minimum: exact.
        maximum: exact.
        counts: of magnitudes, ``uint64`` (bins up to the last that is not empty,).
        channels: of its second axis; None for a tensor that has one axis.
    """

    minimum: float
    maximum: float
    counts: NDArray[np.uint64]
    channels: Channels | None = None

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))

    def merge(self, other: TensorRange) -> TensorRange:
        """What both saw together; of channels nothing where they are not as many."""
        mine, others = self.channels, other.channels
        same = mine is not None and others is not None and len(mine.total) == len(others.total)
        return TensorRange(
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            _sum(self.counts, other.counts),
            mine.merge(others) if same and mine and others else None,
        )


def range_of(values: NDArray[np.float32], name: str = "tensor") -> TensorRange:
    """What there is to see in one array of float32, (N, C, ...) or flat.

    Raises:
        InputError: E0350, it holds NaN or infinity.
    """
    array = np.ascontiguousarray(values, dtype=np.float32)
    minimum, maximum = float(array.min()), float(array.max())
    if not np.isfinite(minimum + maximum):
        raise InputError(
            "E0350",
            "a tensor became NaN or infinite during calibration",
            where=name,
            why="its range is undefined, and so is INT8",
            hint="check the weights and the normalization of the images",
        )
    counted = _counted(array)
    channels = _channels(counted) if array.ndim > 1 else None
    return TensorRange(minimum, maximum, _counts(counted.ravel()), channels)


def edges(bins: int = BINS) -> NDArray[np.float64]:
    """Where the first ``bins`` bins begin and the last of them ends, (bins + 1,)."""
    upper = np.arange(bins + 1, dtype=np.uint32) << 16
    return upper.view(np.float32).astype(np.float64)


def _counted(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """All of an array, or evenly spread rows of a large N×C×H×W one."""
    if array.ndim != 4 or array[0].size <= COUNTED:
        return array
    height = array.shape[2]
    step = min(-(-array[0].size // COUNTED), height)
    return np.ascontiguousarray(array[:, :, (height - 1) % step // 2 :: step])


def _channels(counted: NDArray[np.float32]) -> Channels:
    rows = counted.reshape(*counted.shape[:2], -1)
    return Channels(
        rows.min(axis=2).min(axis=0),
        rows.max(axis=2).max(axis=0),
        rows.sum(axis=2).sum(axis=0, dtype=np.float64),
        rows.shape[0] * rows.shape[2],
    )


def _counts(flat: NDArray[np.float32]) -> NDArray[np.uint64]:
    upper = flat.view(np.uint16)[_UPPER::2]
    # bincount works on intp; handing it anything else costs another copy, and a fresh array for
    # each tensor more than the counting.
    indices = _buffer(upper.size)
    np.bitwise_and(upper, _MAGNITUDE, out=indices)
    return np.bincount(indices).astype(np.uint64)


def _sum(first: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    short, long = sorted((first, other), key=len)
    total = long.copy()
    total[: len(short)] += short
    return total


_buffers = threading.local()


def _buffer(size: int) -> NDArray[np.intp]:
    """Room for ``size`` indices, kept for this thread's next tensor."""
    kept: NDArray[np.intp] | None = getattr(_buffers, "indices", None)
    if kept is None or kept.size < size:
        kept = _buffers.indices = np.empty(size, np.intp)
    return kept[:size]
