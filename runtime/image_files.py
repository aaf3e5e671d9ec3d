"""Opening image files that nobody vouches for.

Only regular files are read, only picture formats of one table are tried, sizes are limited, and
what is refused is named for what it is.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, Tuple

from convexport.runtime.errors import InputError
from convexport.runtime.optional import require
from convexport.runtime.sniff import HEAD, foreign_kind

if TYPE_CHECKING:
    from PIL import Image

# Pillow's format names (others can start programs or read further files) and their suffixes.
FORMATS: Dict[str, Tuple[str, ...]] = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = frozenset(suffix for row in FORMATS.values() for suffix in row)

LARGEST_FILE = 1 << 30
LARGEST_IMAGE = 89_478_485  # pixels: where Pillow begins to warn of decompression bombs

_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_SPECIAL = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

# warnings.catch_warnings is not safe among threads, so those of ours take turns.
_warnings_lock = threading.Lock()


def read_image_file(path: Path, *, name: str = "") -> bytes:
    """The bytes of a regular file of at most 1 GiB; nothing else is opened.

    Raises:
        InputError: E0311, it cannot be read or is not a regular file; E0309, it is too large.
    """
    where = name or str(path)
    try:
        # Looked at before it is opened: opening a device can already do something.
        _require_regular(path.stat(), where)
        handle = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            _require_regular(os.fstat(handle), where)
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("E0311", f"cannot read the image: {reason}", where=where) from error


def _require_regular(status: os.stat_result, where: str) -> None:
    for is_kind, kind in _SPECIAL:
        if is_kind(status.st_mode):
            raise InputError("E0311", f"this is {kind}, not an image file", where=where)
    if status.st_size > LARGEST_FILE:
        what = f"the file is too large: {status.st_size >> 20} MiB, at most {LARGEST_FILE >> 20}"
        raise InputError("E0309", what, where=where)


def open_image(data: bytes, *, name: str = "") -> Tuple[Image.Image, Tuple[str, ...]]:
    """The first frame of a file's bytes, in whatever mode it has, and notes on what was left.

    Raises:
        InputError: E0312, there are no bytes; E0313, they are no image; E0314, they are cut or
            corrupt; E0309, they hold more than ``LARGEST_IMAGE`` pixels.
    """
    pil = require("PIL.Image", purpose="decoding images")
    if not data:
        raise InputError("E0312", "the image file is empty", where=name)
    try:
        image = _open(pil, data)
        if image.width * image.height > LARGEST_IMAGE:
            raise pil.DecompressionBombError(f"{image.width}x{image.height} pixels")
        frames = getattr(image, "n_frames", 1)
        image.load()
    except pil.UnidentifiedImageError as error:
        raise _not_an_image(data, name) from error
    except pil.DecompressionBombError as error:
        what = f"the image is too large: {error}"
        hint = f"at most {LARGEST_IMAGE} pixels: scale it down first"
        raise InputError("E0309", what, where=name, hint=hint) from error
    except Exception as error:  # each of Pillow's readers fails in ways of its own
        what = f"the image is cut or corrupt: {error or type(error).__name__}"
        raise InputError("E0314", what, where=name) from error
    return image, _notes(image, frames)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of Pillow, where what they tell is refused or noted by us."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(pil: Any, data: bytes) -> Any:
    pil.init()
    formats = [name for name in FORMATS if name in pil.OPEN]
    with quiet():
        return pil.open(io.BytesIO(data), formats=formats)


def _notes(image: Image.Image, frames: int) -> Tuple[str, ...]:
    found = (
        (frames > 1, f"first frame of {frames}"),
        (image.mode in _ALPHA or "transparency" in image.info, "alpha channel dropped"),
        (bool(image.info.get("icc_profile")), "ICC profile ignored"),
    )
    return tuple(note for applies, note in found if applies)


def _not_an_image(data: bytes, name: str) -> InputError:
    if kind := foreign_kind(data[:HEAD]):
        return InputError("E0313", f"this is {kind}, not an image", where=name)
    if data[4:8] == b"ftyp":
        what, hint = "Pillow cannot read this HEIF or AVIF file here", "convert it to PNG or JPEG"
        return InputError("E0313", what, where=name, hint=hint)
    text = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in data[:HEAD])
    what = "this is text, not an image" if text else "no image format that we read fits this file"
    return InputError("E0313", what, where=name, hint=f"images are {', '.join(FORMATS)}")
