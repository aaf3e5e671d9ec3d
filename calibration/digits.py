"""The 1,797 handwritten digits that scikit-learn bundles, split for training and testing.

They are real data that need no download: 8x8 grey images of the digits 0 to 9, from the
Optical Recognition of Handwritten Digits data set (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998). An image belongs to a split by the hash of its pixels, so two equal images
never stand on both sides.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from convexport.calibration.images import ImageItem, ImageSet
from convexport.runtime.errors import UsageError
from convexport.runtime.optional import require

if TYPE_CHECKING:
    from PIL import Image

Split = Literal["train", "calibration", "test"]

# By the first 8 hex digits of the hash, modulo 100.
_BOUNDS: dict[Split, range] = {
    "train": range(60),
    "calibration": range(60, 72),
    "test": range(72, 100),
}


def digits(split: Split) -> ImageSet:
    """One of three disjoint splits: 8x8 images of mode L, labels 0 to 9.

    Raises:
        UsageError: E0241, there is no such split.
        MachineError: E0401, scikit-learn is not installed.
    """
    if split not in get_args(Split):
        raise UsageError("E0241", f"no split {split!r}", hint=f"one of {get_args(Split)}")
    pixels, labels = _data()
    items = tuple(
        ImageItem(f"digits/{index:04d}", partial(_image, index), int(labels[index]))
        for index in range(len(labels))
        if _bucket(pixels[index]) in _BOUNDS[split]
    )
    return ImageSet(
        kind="digits",
        description=f"scikit-learn's handwritten digits, {split} split: {len(items)} images",
        items=items,
        class_names=tuple("0123456789"),
    )


@cache
def _data() -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (1797, 8, 8) in 0..255, labels int64; stored are values 0..16."""
    datasets = require("sklearn.datasets", extra="export", purpose="the digits data set")
    bunch = datasets.load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def _bucket(pixels: np.ndarray) -> int:
    return int(hashlib.sha256(pixels.tobytes()).hexdigest()[:8], 16) % 100


def _image(index: int) -> Image.Image:
    pil = require("PIL.Image", purpose="the digits data set")
    image: Image.Image = pil.fromarray(_data()[0][index])
    return image
