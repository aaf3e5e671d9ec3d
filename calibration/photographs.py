"""Crops of the two photographs that scikit-learn bundles, where no images were given.

They stand in for real calibration images and are no replacement for them: natural textures and
colours, but of two scenes only. The crops are those of Inception's training (C. Szegedy et al.,
Going Deeper with Convolutions, 2015, section 6): of 8 % to 100 % of the area, of an aspect ratio
of 3/4 to 4/3, and every other one mirrored, drawn from a seed that is the crop's name.
"""

from __future__ import annotations

import math
import random
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from convexport.calibration.images import ImageItem, ImageSet
from convexport.calibration.reader import positive
from convexport.runtime.errors import UsageError
from convexport.runtime.optional import require

if TYPE_CHECKING:
    from PIL import Image

Split = Literal["calibration", "held-out", "parity"]

_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10


def photographs(split: Split, n: int) -> ImageSet:
    """``n`` crops without labels, always the same ones; the splits draw different crops.

    Raises:
        UsageError: E0240, n is not positive; E0241, there is no such split.
        MachineError: E0401, scikit-learn is not installed.
    """
    if split not in get_args(Split):
        raise UsageError("E0241", f"no split {split!r}", hint=f"one of {get_args(Split)}")
    positive(n, "the number of images")
    return ImageSet(
        kind="photographs",
        description=f"a stand-in: {n} crops of the two photographs that scikit-learn bundles",
        items=tuple(
            ImageItem(f"photographs/{split}/{index:05d}", partial(_crop, f"{split}:{index}"))
            for index in range(n)
        ),
        stand_in=True,
    )


def photograph_file(name: str = _PHOTOGRAPHS[0]) -> Path:
    """One of the two photographs as scikit-learn bundles it: a JPEG of 640 x 427.

    Raises:
        MachineError: E0401, scikit-learn is not installed.
    """
    # Only its files are wanted: importing scikit-learn takes longer than decoding them.
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        require("sklearn", extra="export", purpose="the stand-in photographs")
        raise AssertionError("sklearn was not found, and yet imported")
    return Path(package.origin).parent / "datasets" / "images" / name


@cache
def _photograph(name: str) -> Image.Image:
    pil = require("PIL.Image", purpose="the stand-in photographs")
    with pil.open(photograph_file(name)) as file:
        image: Image.Image = file.convert("RGB")
    return image


def _crop(seed: str) -> Image.Image:
    draw = random.Random(seed)
    photograph = _photograph(_PHOTOGRAPHS[int(draw.random() * len(_PHOTOGRAPHS))])
    image = photograph.crop(_box(draw, *photograph.size))
    if draw.random() < 0.5:
        pil = require("PIL.Image", purpose="the stand-in photographs")
        return image.transpose(pil.Transpose.FLIP_LEFT_RIGHT)
    return image


def _box(draw: random.Random, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop; the whole photograph when no draw fits into it."""
    for _ in range(_TRIES):
        area = draw.uniform(*_AREA) * width * height
        aspect = math.exp(draw.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            left = int(draw.random() * (width - w + 1))
            top = int(draw.random() * (height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height
