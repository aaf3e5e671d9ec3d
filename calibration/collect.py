"""Images → ranges: one pass, in memory that does not grow with the number of images.

Beside the exact minimum and maximum, a tensor's magnitudes are counted in bins that need no
range known beforehand: a bin is the upper half of a float32 without its sign, that is a bfloat16
magnitude. There are 32,768 of them, each at most 1/128 wide relative to its value, over all that
a float32 can be. Two histograms merge by addition, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convexport.runtime.errors import InputError
from convexport.runtime.specs import Runner

BINS = 1 << 15


@dataclass(frozen=True)
class TensorRange:
    """What was seen of one tensor.

    Attributes:
        minimum: exact.
        maximum: exact.
        counts: of magnitudes, ``uint64`` of shape (32768,).
    """

    minimum: float
    maximum: float
    counts: NDArray[np.uint64]

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))

    def merge(self, other: TensorRange) -> TensorRange:
        """What both saw together."""
        return TensorRange(
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.counts + other.counts,
        )


def collect(
    runner: Runner,
    batches: Iterable[NDArray[np.float32]],
    tensors: Iterable[str],
    *,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, TensorRange]:
    """Run every batch and keep the range of every named tensor.

    Args:
        runner: gives the tensors as outputs; a tensor that is its input is read from the batch.
        batches: float32 N×C×H×W.
        tensors: names of inputs or outputs of the runner.
        progress: told the number of images after each batch.

    Raises:
        InputError: E0350, a tensor is not finite; E0351, there was no batch.
    """
    names = tuple(tensors)
    (input_spec,) = runner.inputs
    ranges: dict[str, TensorRange] = {}
    for batch in batches:
        seen = {input_spec.name: batch, **runner.run({input_spec.name: batch})}
        for name in names:
            new = range_of(seen[name], name)
            ranges[name] = ranges[name].merge(new) if name in ranges else new
        progress(len(batch))
    if not ranges:
        raise InputError("E0351", "there were no calibration images")
    return ranges


def range_of(values: NDArray[np.float32], name: str = "tensor") -> TensorRange:
    """The range of one array of float32.

    Raises:
        InputError: E0350, it holds NaN or infinity.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
    minimum, maximum = float(flat.min()), float(flat.max())
    if not np.isfinite(minimum + maximum):
        raise InputError(
            "E0350",
            "a tensor became NaN or infinite during calibration",
            where=name,
            why="its range is undefined, and so is INT8",
            hint="check the weights and the normalization of the images",
        )
    magnitudes = flat.view(np.int32) >> 16 & (BINS - 1)
    # bincount works on intp; handing it anything else costs another copy.
    counts = np.bincount(magnitudes.astype(np.intp), minlength=BINS).astype(np.uint64)
    return TensorRange(minimum, maximum, counts)


def upper_edge(index: int) -> float:
    """Where a bin ends: the smallest magnitude of the next one."""
    return float(np.array(index + 1 << 16, dtype=np.uint32).view(np.float32))


def summary(ranges: Mapping[str, TensorRange]) -> dict[str, dict[str, float]]:
    """Minimum and maximum of each tensor, as JSON."""
    return {name: {"min": seen.minimum, "max": seen.maximum} for name, seen in ranges.items()}
