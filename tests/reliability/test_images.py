"""Rows 29 to 34: images, folders and names."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures import write_images
from tests.reliability.conftest import Ends
from tests.reliability.rows import row

INT8 = ("build", "net.onnx", "--int8", "-o", "out", "--calib", "images")


@row(29, "a calibration folder that is missing", 3, "E0340 cannot read the folder of images: …")
def test_no_folder(ends: Ends, net: Path) -> None:
    ends(*INT8)


@pytest.mark.parametrize("content", [None, "no image"])
@row(29, "a calibration folder that is empty or holds no image", 3, "E0341 no image in this folder")
def test_no_images(ends: Ends, home: Path, net: Path, content: str | None) -> None:
    (home / "images").mkdir()
    if content:
        (home / "images/a.txt").write_text(content)
    ends(*INT8)


@pytest.mark.parametrize("count", [3, 13])
@row(29, "fewer than 100 images, the last batch not full", 0, "only … different images, fewer than")
def test_few_images(ends: Ends, home: Path, net: Path, count: int) -> None:
    write_images(home / "images", count)
    ends(*INT8, makes=("out",))


@row(30, "one image many times", 0, "29 of 40 images repeat another one")
def test_copies(ends: Ends, home: Path, net: Path) -> None:
    write_images(home / "images", 40)
    content = (home / "images/0000.png").read_bytes()
    for index in range(1, 30):
        (home / f"images/{index:04d}.png").write_bytes(content)
    ends(*INT8, makes=("out",))


@row(30, "only images of one colour", 3, "E0344 every image is of one colour")
def test_black(ends: Ends, home: Path, net: Path) -> None:
    (home / "images").mkdir()
    for index in range(3):
        Image.new("L", (40, 40)).save(home / f"images/{index}.png")
    ends(*INT8)


@row(30, "images of one class only", 0, "all 8 images are of one of 2 classes")
def test_one_class(ends: Ends, home: Path, net: Path) -> None:
    write_images(home / "images/cats", 8)
    write_images(home / "images/dogs", 1, seed=1)
    (home / "images/dogs/0000.png").rename(home / "images/dogs/zzzz.png")
    ends(*INT8, "--calib-images", "8", makes=("out",))


def png(width: int, height: int) -> bytes:
    """Only a header that says so."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BAD = {
    "a page": (b"<!DOCTYPE html>", "HTML page"),
    "nothing": (b"", "empty"),
    "text": (b"Not Found", "text"),
    "a zip": (b"PK\x03\x04" + bytes(40), "zip archive"),
    "a cut image": (b"P5 40 40 255\n" + bytes(99), "cut or corrupt"),
    "20,000 pixels square": (png(20_000, 20_000), "too large"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
}


@pytest.mark.parametrize("what", BAD)
@row(31, "a file that is no image: " + ", ".join(BAD), 3, "E03…")
def test_no_image(ends: Ends, home: Path, bundle: Path, what: str) -> None:
    (home / "cat.jpg").write_bytes(BAD[what][0])
    assert BAD[what][1] in ends("run", "tiny", "cat.jpg").err


SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path.name),
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@row(31, "a named pipe, a socket, a loop of links, /dev/zero, a folder", 3, "E0311 …")
def test_no_file(ends: Ends, home: Path, bundle: Path, what: str) -> None:
    SPECIAL[what](home / "cat.jpg")
    ends("run", "tiny", "cat.jpg")


def picture(mode: str) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@row(31, "CMYK, L, LA, RGBA, P, 1-bit, 16-bit, 1x1, 1x5000, an animation", 0)
def test_odd_images(ends: Ends, home: Path, bundle: Path) -> None:
    names = []
    for mode, suffix in (
        ("CMYK", "jpg"),
        ("L", "png"),
        ("LA", "png"),
        ("RGBA", "png"),
        ("1", "png"),
    ):
        names.append(f"{mode}.{suffix}")
        picture(mode).save(home / names[-1])
    palette = picture("P")
    palette.save(home / "P.png", transparency=0)
    palette.save(home / "animated.gif", save_all=True, append_images=[picture("P")])
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(home / "deep.png")
    Image.new("RGB", (1, 1), "red").save(home / "one.png")
    Image.new("RGB", (1, 5000), "red").save(home / "tall.png")
    picture("RGB").save(home / "jpeg.png", "JPEG")
    odd = ("P.png", "animated.gif", "deep.png", "one.png", "tall.png", "jpeg.png")
    assert ends("run", "tiny", *names, *odd).out.count("%") >= len(names) + len(odd)


@row(31, "a TIFF of floats", 3, "E03…")
def test_a_float_tiff(ends: Ends, home: Path, bundle: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.float32)).save(home / "a.tif")
    ends("run", "tiny", "a.tif")


@row(31, "one bad image among 101 for calibration", 0)
def test_one_bad_of_many(ends: Ends, home: Path, net: Path) -> None:
    write_images(home / "images", 100)
    (home / "images/zzzz.png").write_bytes(b"broken")
    ends(*INT8, "--json", makes=("out",))


@row(
    31,
    "bad images, more than 1 in 100, for calibration",
    3,
    "E0342 at least 1 of 40 images are bad, 0 may be",
)
def test_many_bad(ends: Ends, home: Path, net: Path) -> None:
    write_images(home / "images", 40)
    (home / "images/0007.png").write_bytes(b"broken")
    assert "0007.png" in ends(*INT8).err


@row(32, "5,000 files, a deep tree, hidden files, odd names of classes", 0, "only 12 different")
def test_many_files(ends: Ends, home: Path, net: Path) -> None:
    for name in ("a b", "ü\n%n", "-x"):
        write_images(home / "images" / name / "/".join("abcdefgh" * 4), 4, seed=len(name))
    for index in range(5_000):
        (home / f"images/a b/.{index}.png").touch()
    (home / "images/Thumbs.db").write_bytes(b"x")
    ends(*INT8, makes=("out",))


ODD = ("-rf.png", "a b.png", "'q\"`$(touch x).png", "üñ.png", "new\nline.png", "n" * 251 + ".png")


@row(34, "names with spaces, quotes, a newline, a dash, of 255 bytes", 0)
def test_odd_names(ends: Ends, home: Path, bundle: Path) -> None:
    for name in ODD:
        picture("L").save(home / name)
    ends("run", "tiny", *(f"./{name}" for name in ODD))


@row(34, "a bundle in a folder with an odd name", 0)
def test_odd_folders(ends: Ends, home: Path, net: Path) -> None:
    name = "-o 'b' \"c\"\nü %n {{7*7}} $(touch x)"
    ends("build", "net.onnx", "-o", f"./{name}", makes=(name,))
    assert not (home / "x").exists()


@row(34, "a name too long for a file", 2, "E0283 no bundle can be written there: …")
def test_a_long_name(ends: Ends, net: Path) -> None:
    ends("build", "net.onnx", "-o", "n" * 300)
