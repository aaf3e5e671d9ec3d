"""Several crops of one image, over whose answers published accuracies are averaged.

- ``1``: the centre, as the net sees an image otherwise.
- ``10``: four corners and centre, and their mirror images (Krizhevsky, Sutskever, Hinton 2012,
  "ImageNet Classification with Deep Convolutional Neural Networks", sec. 4.1). The corners are
  those of the whole resized image, as in torchvision's ``TenCrop``; there, sec. 2 had cut it to
  its central square before.
- ``144``: Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv:1409.4842, sec. 7. The
  image at four sizes, of each three squares, of each four corners, centre and the square itself
  made as small as the crop, and all their mirror images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Iterator, List, Mapping, Tuple

import numpy as np

from convexport.runtime.errors import UsageError
from convexport.runtime.preprocess import central, cut, normalise, resize, to_array
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    from PIL import Image

CENTRE = "1"

# Shorter sides in the paper, whose net takes 224x224; others in the same proportion.
_SIDES = (256, 288, 320, 352)
_SIDE_OF_CROP = 224


@dataclass(frozen=True)
class Protocol:
    """How an image is cut.

    Attributes:
        count: crops an image.
        source: who evaluates so.
        crops: the arrays CHW of a decoded image; the name is for messages.
    """

    count: int
    source: str
    crops: Callable[[Image.Image, Preprocess, str], List[np.ndarray]]


def crops(image: Image.Image, spec: Preprocess, protocol: str, *, name: str = "") -> np.ndarray:
    """What the net sees of one image: float32 (n, C, H, W).

    Args:
        image: decoded.
        spec: how the net takes images.
        protocol: a key of ``PROTOCOLS``.
        name: what errors call the image.

    Raises:
        UsageError: E0202, there is no such protocol.
        InputError: E0309, the image is so narrow that resizing its shorter side makes it huge.
    """
    return np.stack(find(protocol).crops(image, spec, name))


def find(protocol: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: E0202, there is none.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(
            "E0202",
            f"no evaluation protocol is named {protocol[:80]!r}",
            hint=f"crops an image: {', '.join(PROTOCOLS)}",
        )
    return PROTOCOLS[protocol]


def _centre(image: Image.Image, spec: Preprocess, name: str) -> List[np.ndarray]:
    return [to_array(image, spec, name=name)]


def _ten(image: Image.Image, spec: Preprocess, name: str) -> List[np.ndarray]:
    whole = resize(image, spec.resize, spec, name=name)
    return _with_mirrors(normalise(part, spec) for part in _five(whole, spec.crop))


def _many(image: Image.Image, spec: Preprocess, name: str) -> List[np.ndarray]:
    parts: List[Image.Image] = []
    for side in _SIDES:
        shorter = round(side * max(spec.crop) / _SIDE_OF_CROP)
        for square in _squares(resize(image, (shorter,), spec, name=name)):
            parts += [*_five(square, spec.crop), resize(square, spec.crop, spec)]
    return _with_mirrors(normalise(part, spec) for part in parts)


def _squares(image: Image.Image) -> List[Image.Image]:
    """Left, centre and right; of a portrait top, centre and bottom."""
    side = min(image.size)
    places = _places(max(image.size), side)
    if image.height > image.width:
        return [cut(image, place, 0, (side, side)) for place in places]
    return [cut(image, 0, place, (side, side)) for place in places]


def _five(image: Image.Image, crop: Tuple[int, int]) -> List[Image.Image]:
    """Four corners, row by row, and the centre."""
    first_row, middle_row, last_row = _places(image.height, crop[0])
    first, middle, last = _places(image.width, crop[1])
    corners = [(row, column) for row in (first_row, last_row) for column in (first, last)]
    return [cut(image, *place, crop) for place in [*corners, (middle_row, middle)]]


def _places(length: int, crop: int) -> Tuple[int, int, int]:
    """Where the first, the central and the last crop begin; where it does not fit, all centred."""
    middle = central(length, crop)
    return (0, middle, length - crop) if length >= crop else (middle, middle, middle)


def _with_mirrors(arrays: Iterator[np.ndarray]) -> List[np.ndarray]:
    straight = list(arrays)
    return [*straight, *(array[:, :, ::-1] for array in straight)]


PROTOCOLS: Mapping[str, Protocol] = {
    CENTRE: Protocol(1, "the centre", _centre),
    "10": Protocol(10, "Krizhevsky et al. 2012, sec. 4.1", _ten),
    "144": Protocol(144, "Szegedy et al. 2014, sec. 7", _many),
}
