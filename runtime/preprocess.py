"""From an image file to the tensor that the net was trained on.

The pixels are those of torchvision's evaluation transforms on Pillow images, bit for bit:
``Resize`` (antialiased; of a single size the longer side is cut to an integer), ``CenterCrop``
(offsets rounded half to even), ``ToTensor`` (divided by 255 in float32), ``Normalize``.

TIFF files are turned as their orientation says whatever the EXIF policy is, since Pillow does so
when it loads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, List, Tuple, Union

import numpy as np

from convexport.runtime.errors import InputError
from convexport.runtime.image_files import LARGEST_IMAGE, open_image, quiet, read_image_file
from convexport.runtime.optional import require
from convexport.runtime.specs import Preprocess

if TYPE_CHECKING:
    from PIL import Image

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
Source = Union[Path, bytes, "Image.Image"]


@dataclass(frozen=True)
class Decoded:
    """An image in mode ``L`` or ``RGB`` as the spec asks, and what was done to get there."""

    image: Image.Image
    notes: Tuple[str, ...] = ()


def preprocess(source: Source, spec: Preprocess) -> np.ndarray:
    """Decode one image and give it as the net takes it: float32, ``spec.shape`` (CHW).

    Raises:
        InputError: as ``decode`` and ``to_array`` do.
    """
    return to_array(decode(source, spec).image, spec, name=_name(source))


def decode(source: Source, spec: Preprocess, *, name: str = "") -> Decoded:
    """Read an image (a file, a file's bytes, or one of Pillow's) into 8-bit L or RGB.

    16-bit grey is scaled to 8 bits (v / 257, rounded), where Pillow's conversion would clip it;
    of 16-bit colour Pillow keeps the high bytes. Transparency and colour profiles are dropped, of
    an animation the first frame is taken; each such thing is told in a note.

    Args:
        source: what to read.
        spec: its ``channels`` and ``exif`` are used.
        name: what errors call the image; the path by default.

    Raises:
        InputError: E0309 to E0314, it cannot be read, is no image, is cut or corrupt, too large,
            or has pixels without an agreed range (32-bit integers, floats).
    """
    where = name or _name(source)
    content = read_image_file(source, name=where) if isinstance(source, Path) else source
    notes: List[str] = []
    if isinstance(content, bytes):
        image, found = open_image(content, name=where)
        notes.extend(found)
    else:
        image = content
    image = _turn(_to_eight_bits(image, where, notes), spec.exif, notes)
    if "transparency" in image.info:
        # Left there, Pillow warns when it converts a palette; the pixels are the same.
        image = image.copy()
        del image.info["transparency"]
    return Decoded(image.convert("L" if spec.channels == "L" else "RGB"), tuple(notes))


def to_array(image: Image.Image, spec: Preprocess, *, name: str = "") -> np.ndarray:
    """Resize, crop and normalise a decoded image: float32, ``spec.shape`` (CHW).

    Where the crop is larger than the resized image, black is put around it evenly.

    Raises:
        InputError: E0309, it is so narrow that resizing its shorter side makes it huge.
    """
    image = resize(image, spec.resize, spec, name=name)
    top, left = central(image.height, spec.crop[0]), central(image.width, spec.crop[1])
    return normalise(cut(image, top, left, spec.crop), spec)


def resize(
    image: Image.Image, size: Tuple[int, ...], spec: Preprocess, *, name: str = ""
) -> Image.Image:
    """A decoded image in the colours of the spec, scaled to a size as ``spec.resize`` gives one.

    Raises:
        InputError: E0309, it is so narrow that resizing its shorter side makes it huge.
    """
    image = image.convert("L" if spec.channels == "L" else "RGB")
    width, height = _resized(image.size, size)
    if width * height > LARGEST_IMAGE:
        what = f"too narrow: {image.width}x{image.height} would be resized to {width}x{height}"
        raise InputError("E0309", what, where=name, hint="leave this image out")
    if (width, height) == image.size:
        return image
    filters = require("PIL.Image", purpose="resizing images").Resampling
    return image.resize((width, height), filters[spec.interpolation.upper()])


def cut(image: Image.Image, top: int, left: int, size: Tuple[int, int]) -> Image.Image:
    """The part of that height and width at that place; what lies outside the image is black."""
    return image.crop((left, top, left + size[1], top + size[0]))


def central(length: int, crop: int) -> int:
    """Where a centred crop begins; below 0 where it is longer than the image."""
    if crop > length:
        return -((crop - length) // 2)
    return round((length - crop) / 2)


def normalise(image: Image.Image, spec: Preprocess) -> np.ndarray:
    """The numbers that the net sees in an image of any size, as ``resize`` gives it: CHW."""
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    pixels = pixels.transpose(2, 0, 1)
    if spec.channels == "BGR":
        pixels = pixels[::-1]
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    return np.ascontiguousarray((pixels / np.float32(255) - mean) / std)


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path) else ""


def _to_eight_bits(image: Image.Image, where: str, notes: List[str]) -> Image.Image:
    if image.mode in _MODES:
        return image
    # Some releases of Pillow, and all for PGM, put 16-bit grey into 32-bit integers.
    wide = image.mode == "I" and image.format in ("PNG", "PPM")
    if not wide and not image.mode.startswith("I;16"):
        what = f"pixels of mode {image.mode} have no agreed way to 8 bits"
        raise InputError("E0310", what, where=where, hint="save it as an 8-bit or 16-bit image")
    pil = require("PIL.Image", purpose="decoding images")
    values = (np.asarray(image).astype(np.uint32) + 128) // 257
    notes.append("16-bit scaled to 8 bits")
    scaled: Image.Image = pil.fromarray(values.astype(np.uint8))
    scaled.info.update(image.info)
    return scaled


def _turn(image: Image.Image, policy: str, notes: List[str]) -> Image.Image:
    try:
        with quiet():
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever is wrong in there, the pixels are whole
        notes.append("EXIF data unreadable")
        return image
    if orientation not in _TURNS:
        return image
    if policy == "ignore":
        notes.append(f"EXIF orientation {orientation} ignored")
        return image
    notes.append(f"turned as EXIF orientation {orientation} says")
    pil = require("PIL.Image", purpose="turning images")
    return image.transpose(pil.Transpose[_TURNS[orientation]])


def _resized(size: Tuple[int, int], resize: Tuple[int, ...]) -> Tuple[int, int]:
    if len(resize) == 2:
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize[0], int(resize[0] * height / width)
    return int(resize[0] * width / height), resize[0]
