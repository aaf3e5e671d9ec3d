"""What the net sees of an image is the same, bit for bit, in C++ and in Python."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.runtime.bundle import read_manifest
from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import preprocess

from .bundles import with_preprocess
from .conftest import Probe

pytestmark = pytest.mark.slow  # builds the library first

MODES = ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "YCbCr")
SPECS: dict[str, dict[str, Any]] = {
    "as trained": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "bicubic": {"interpolation": "bicubic", "channels": "BGR"},
    "grey": {"channels": "L", "crop": [15, 22], "resize": [22]},
    "stretched": {"crop": [30, 20], "resize": [31, 45]},
    "enlarged": {"crop": [128, 129], "resize": [140], "interpolation": "bicubic"},
    "padded": {"crop": [20, 70], "resize": [40, 30]},
    "as it lies": {"exif": "ignore"},
}


def spec_of(**changed: Any) -> dict[str, Any]:
    return {"crop": [32, 32], "resize": [40], "channels": "RGB", "std": [0.5], **changed}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth enough for a JPEG to be worth its name, with edges."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(small.repeat(4, 0).repeat(4, 1)[:height, :width])


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        wide = np.asarray(image.convert("L")).astype(np.uint16) * 250 + 77
        return Image.fromarray(wide)
    return image.convert(mode)


def saved(folder: Path) -> list[Path]:
    """Every kind of file that the C++ side reads."""
    folder.mkdir()
    names = []

    def save(name: str, image: Image.Image, **options: Any) -> None:
        names.append(folder / name)
        image.save(names[-1], **options)

    for mode in MODES:
        image = in_mode(noise(61, 47), mode)
        if mode not in ("LA", "RGBA", "P", "1", "I;16"):
            save(f"{mode}.jpg", image, quality=90)
        if mode not in ("CMYK", "YCbCr"):
            save(f"{mode}.png", image)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            name = f"{sampling.replace(':', '')}-{progressive}.jpg"
            save(name, noise(203, 149), subsampling=sampling, progressive=progressive, quality=70)
    for turn in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = turn
        for suffix in ("jpg", "png"):
            save(f"turned-{turn}.{suffix}", noise(50, 37, turn), exif=exif)
    for size in ((1, 1), (1, 97), (97, 1), (40, 40), (40, 41), (333, 47)):
        save(f"{size[0]}x{size[1]}.png", noise(*size))
    save("transparent.png", noise(30, 30).convert("P"), transparency=b"\0\x80")
    save("two-bits.png", noise(30, 30).convert("L").quantize(4), bits=2)
    return names + odd_files(folder)


def png(header: tuple[int, ...], rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file chunk by chunk: width, height, depth, colour; rows with their filter bytes."""
    everything = (
        (b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in everything
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(entry: bytes, *values: bytes) -> bytes:
    """EXIF data with one orientation: its type, count and value, or what its value points to."""
    return b"MM\0\x2a\0\0\0\x08\0\1\x01\x12" + entry + b"\0" * 4 + b"".join(values)


def two_entries(size: int) -> bytes:
    """EXIF data whose orientation stands behind a text that lies outside of it."""
    text = b"\x01\x0f\0\2" + struct.pack(">II", size, 1000)
    return b"MM\0\x2a\0\0\0\x08\0\2" + text + b"\x01\x12\0\3\0\0\0\1\0\6\0\0" + b"\0" * 4


# Orientation 6 as other types than a short; 26 is where the values are that do not fit.
_THERE = b"\0\0\0\x1a"
TYPED: dict[str, tuple[bytes, ...]] = {
    "byte": (b"\0\1\0\0\0\1\6\0\0\0",),
    "text": (b"\0\2\0\0\0\2" + b"6\0\0\0",),
    "signed byte": (b"\0\6\0\0\0\1\6\0\0\0",),
    "long": (b"\0\4\0\0\0\1\0\0\0\6",),
    "rational": (b"\0\5\0\0\0\1" + _THERE, struct.pack(">II", 12, 2)),
    "no rational": (b"\0\5\0\0\0\1" + _THERE, struct.pack(">II", 6, 0)),
    "between": (b"\0\5\0\0\0\1" + _THERE, struct.pack(">II", 13, 2)),
    "signed": (b"\0\x0a\0\0\0\1" + _THERE, struct.pack(">ii", -6, -1)),
    "float": (b"\0\x0b\0\0\0\1" + struct.pack(">f", 6),),
    "double": (b"\0\x0c\0\0\0\1" + _THERE, struct.pack(">d", 6)),
    "no number": (b"\0\x0c\0\0\0\1" + _THERE, struct.pack(">d", float("nan"))),
    "long8": (b"\0\x10\0\0\0\1" + _THERE, struct.pack(">Q", 6)),
    "cut": (b"\0\5\0\0\0\1" + _THERE, b"\0\0\0"),
    "none": (b"\0\3\0\0\0\0\0\6\0\0",),
    "unknown": (b"\0\x0e\0\0\0\1\0\6\0\0",),
}


def odd_files(folder: Path) -> list[Path]:
    """What Pillow reads but does not write: deep colours, bits, XMP, too short a palette."""
    rng = np.random.default_rng(1)

    def rows(width: int, height: int) -> bytes:
        return b"".join(b"\0" + rng.bytes(width) for _ in range(height))

    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='1' tiff:Orientation=\"6\"/>"
    both = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(
        b'<tiff:Orientation>3</tiff:Orientation><x tiff:Orientation="6"/>'
    )
    turn = b"Exif\0\0" + tiff(b"\0\3\0\0\0\1\0\x08\0\0")
    profile = b"Raw profile type exif\0\nexif\n  38\n" + turn.hex().encode() + b"\n"
    plain = io.BytesIO()
    noise(50, 37).save(plain, "JPEG")
    jpeg = plain.getvalue()
    app1 = b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>3</tiff:Orientation>"
    contents = {
        "grey16-alpha.png": png((9, 7, 16, 4), rows(36, 7)),
        "rgb16.png": png((9, 7, 16, 2), rows(54, 7)),
        "rgba16.png": png((9, 7, 16, 6), rows(72, 7)),
        "grey2.png": png((9, 7, 2, 0), rows(3, 7)),
        "grey4.png": png((9, 7, 4, 0), rows(5, 7)),
        "short.png": png((9, 7, 8, 3), rows(9, 7), (b"PLTE", bytes(range(90)))),
        "xmp.png": png((9, 7, 8, 2), rows(27, 7), (b"iTXt", xmp)),
        "xmp-two.png": png((9, 7, 8, 2), rows(27, 7), (b"iTXt", both)),
        "xmp-cut.png": png((9, 7, 8, 2), rows(27, 7), (b"iTXt", both[:-9])),
        "packed.png": png(
            (9, 7, 8, 2),
            rows(27, 7),
            (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile[22:])),
        ),
        "profile-bad.png": png(
            (9, 7, 8, 2), rows(27, 7), (b"tEXt", profile[:-3] + b"-\n"), (b"eXIf", turn[6:])
        ),
        "profile-split.png": png((9, 7, 8, 2), rows(27, 7), (b"tEXt", profile[:-6] + b" 00000\n")),
        "profile-spaced.png": png(
            (9, 7, 8, 2), rows(27, 7), (b"tEXt", profile[:-7] + b" 000000\n")
        ),
        "no-xmp.png": png(
            (9, 7, 8, 2), rows(27, 7), (b"eXIf", tiff(*TYPED["text"])), (b"iTXt", xmp)
        ),
        **{
            f"behind-{size}.png": png((9, 7, 8, 2), rows(27, 7), (b"eXIf", two_entries(size)))
            for size in (7, 999)
        },
        **{
            f"type-{name}.png": png((9, 7, 8, 2), rows(27, 7), (b"eXIf", tiff(*entry)))
            for name, entry in TYPED.items()
        },
        "profile.png": png((9, 7, 8, 2), rows(27, 7), (b"tEXt", profile)),
        "no-exif.png": png((9, 7, 8, 2), rows(27, 7), (b"eXIf", b"nothing of the kind")),
        "xmp.jpg": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:],
        "behind.jpg": jpeg + b"what follows is not looked at",
        "no-end.jpg": jpeg[:-2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.mark.parametrize("name", SPECS)
def test_pixels_are_those_of_python(probe: Probe, tmp_path: Path, name: str) -> None:
    bundle = with_preprocess(tmp_path / "bundle", **spec_of(**SPECS[name]))
    spec = read_manifest(bundle).preprocess
    paths = saved(tmp_path / "images")
    (tmp_path / "out").mkdir()
    answers = probe("pixels", bundle, tmp_path / "out", *paths)
    assert len(answers) == len(paths) > 50
    for index, path in enumerate(paths):
        try:
            expected = preprocess(path, spec)
        except InputError as error:
            assert answers[index].split()[0] == error.code, path.name
            continue
        assert answers[index] == "ok", path.name
        actual = np.fromfile(tmp_path / f"out/{index}", np.float32).reshape(expected.shape)
        np.testing.assert_array_equal(actual, expected, err_msg=path.name)
