"""A pass over images that goes on where it was interrupted."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path

from convexport.calibration.histograms import TensorRange
from convexport.calibration.ranges_file import load_ranges, save_ranges
from convexport.runtime.files import write_atomically


class Checkpoint:
    """What a pass has seen so far, in a file that is gone when the pass is done.

    Args:
        path: of the file; the same for the same model and images only.
        seconds: between two times that it is written.
    """

    def __init__(self, path: Path, seconds: float = 30) -> None:
        self._path, self._seconds = path, seconds
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, TensorRange], int]:
        """Ranges, and the number of groups of batches that they were seen in; 0 at the start."""
        try:
            return load_ranges(self._path)
        except Exception:  # numpy evaluates headers, and raises nearly anything
            return {}, 0  # not there, or nothing of ours: the images are there to start again

    def keep(self, ranges: Mapping[str, TensorRange], groups: int) -> None:
        """Write what there is, if it is time.

        Raises:
            StorageError: the disk is full or does not let us.
        """
        if time.monotonic() - self._written >= self._seconds:
            file = io.BytesIO()
            save_ranges(file, ranges, groups)
            write_atomically(self._path, file.getvalue())
            self._written = time.monotonic()

    def done(self) -> None:
        """The result is elsewhere."""
        self._path.unlink(missing_ok=True)
