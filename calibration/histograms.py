"""What was seen of a tensor: exact bounds, magnitudes counted in bins, and its channels.

The bins need no range known beforehand: a bin is the upper half of a float32 without its sign,
that is a bfloat16 magnitude. There are 32,768 of them, each at most 1/128 wide relative to its
value, over all that a float32 can be. Two histograms merge by addition, exactly.
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
_NOT_FINITE = 0x7F80  # the bin of infinity; those of NaN follow
# Of the two halves of a float32 in memory, the one with sign, exponent and 7 bits of fraction.
_UPPER = 1 if sys.byteorder == "little" else 0


@dataclass(frozen=True)
class Channels:
    """What was seen of each channel.

    Attributes:
        minimum: float32 (C,).
        maximum: float32 (C,).
        total: the sum of values, or of images' means, float64 (C,).
        count: of what is in ``total`` of a channel.
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
        minimum: of all values.
        maximum: of all values.
        counts: of magnitudes, ``int64`` (bins up to the last that is not empty,), of
            all values or an even part of them.
        channels: of its second axis; None for a tensor that has one axis.
    """

    minimum: float
    maximum: float
    counts: NDArray[np.int64]
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


def range_of(
    values: NDArray[np.float32], name: str = "tensor", channels: Channels | None = None
) -> TensorRange:
    """What there is to see in one array of float32, (N, C, ...) or flat.

    Args:
        channels: of all of the tensor, where ``values`` are a part of it.

    Raises:
        InputError: E0350, it holds NaN or infinity.
    """
    array = np.ascontiguousarray(values, dtype=np.float32)
    partial = channels is not None
    if channels is None and array.ndim > 1:
        channels = channels_of(array)
    low, high = (array, array) if channels is None else (channels.minimum, channels.maximum)
    minimum, maximum = float(low.min()), float(high.max())
    counts = _counts(array.ravel())
    # A maximum may pass NaN over, the counts do not; a pool may make the lowest number of it.
    if not np.isfinite(minimum + maximum) or len(counts) > _NOT_FINITE - partial:
        raise InputError(
            "E0350",
            "a tensor became NaN or infinite during calibration",
            where=name,
            why="its range is undefined, and so is INT8",
            hint="check the weights and the normalization of the images",
        )
    return TensorRange(minimum, maximum, counts, channels)


def channels_of(array: NDArray[np.float32]) -> Channels:
    """What was seen of the second axis of (N, C, ...)."""
    rows = array.reshape(*array.shape[:2], -1)
    return Channels(
        rows.min(axis=(0, 2)),
        rows.max(axis=(0, 2)),
        rows.sum(axis=(0, 2), dtype=np.float64),
        rows.shape[0] * rows.shape[2],
    )


def edges(bins: int = BINS) -> NDArray[np.float64]:
    """Where the first ``bins`` bins begin and the last of them ends, (bins + 1,)."""
    upper = np.arange(bins + 1, dtype=np.uint32) << 16
    return upper.view(np.float32).astype(np.float64)


def _counts(flat: NDArray[np.float32]) -> NDArray[np.int64]:
    upper = flat.view(np.uint16)[_UPPER::2]
    # bincount works on intp; handing it anything else costs another copy, and a fresh array for
    # each tensor more than the counting.
    indices = _buffer(upper.size)
    np.bitwise_and(upper, _MAGNITUDE, out=indices)
    return np.bincount(indices).astype(np.int64, copy=False)


def _sum(first: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
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
