"""The images that every tool is given: one .npy file, float32 N×C×H×W, read a batch at a time.

The file is read, not mapped: pages of a mapping would count as memory of whichever tool read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def batches(path: Path, count: int, size: int) -> Iterator[Array]:
    """The first ``count`` images, ``size`` at a time; the last batch is as small as it comes.

    Raises:
        ValueError: the file holds fewer.
    """
    shape, offset = _layout(path)
    if shape[0] < count:
        raise ValueError(f"{path} holds {shape[0]} images, not {count}")
    with path.open("rb") as file:
        file.seek(offset)
        for start in range(0, count, size):
            part = (min(size, count - start), *shape[1:])
            yield np.fromfile(file, np.float32, int(np.prod(part))).reshape(part)


def _layout(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape, and where the values begin."""
    mapped = np.load(path, mmap_mode="r")
    if mapped.dtype != np.float32 or not mapped.flags.c_contiguous:
        raise ValueError(f"{path} is {mapped.dtype}, not float32 in C order")
    return mapped.shape, mapped.offset
