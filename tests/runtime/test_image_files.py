"""Everything that can lie under an image's name."""

from __future__ import annotations

import errno
import io
import os
import socket
import struct
import threading
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convexport.runtime.errors import InputError
from convexport.runtime.image_files import FORMATS, LARGEST_FILE, SUFFIXES, read_image_file
from convexport.runtime.preprocess import preprocess
from convexport.runtime.specs import Preprocess

SPEC = Preprocess(crop=(8, 8), resize=(8,))


def encoded(kind: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat.jpg", b"x")
    return file.getvalue()


NOT_IMAGES = {
    "page": (b"\n <!DOCTYPE html><html><head>404", "E0313 this is an HTML page"),
    "page with a byte order mark": (b"\xef\xbb\xbf<html lang='en'>", "E0313 this is an HTML page"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "E0313 this is an XML or SVG"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "E0313 this is a Git LFS pointer"),
    "text": (b"Not Found\n", "E0313 this is text"),
    "zip": (zipped(), "E0313 this is a zip archive"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "E0313 this is a PDF"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "E0313 Pillow cannot read this HEIF"),
    "noise": (bytes(range(128, 256)) * 9, "E0313 no image format"),
    "empty": (b"", "E0312 the image file is empty"),
    # Formats that start other programs, or that no net was ever fed with.
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "E0313 this is text"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_named(tmp_path: Path, name: str) -> None:
    data, message = NOT_IMAGES[name]
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        preprocess(path, SPEC)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 3


def png_of(width: int, height: int, *, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(InputError, match="E0309 the image is too large"):
            preprocess(png_of(*size), SPEC)


def test_an_image_below_the_limit_is_not_a_bomb() -> None:
    with pytest.raises(InputError, match="E0314"):
        preprocess(png_of(9_000, 9_000), SPEC)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(InputError, match="E0309 the file is too large: 1024 MiB"):
        preprocess(path, SPEC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_cut_files_are_refused(kind: str) -> None:
    whole = encoded(kind)
    preprocess(whole, SPEC)
    for part in (0.02, 0.3, 0.7):
        with pytest.raises(InputError) as caught:
            preprocess(whole[: int(len(whole) * part)], SPEC)
        assert caught.value.code in ("E0313", "E0314")


@settings(max_examples=150)
@given(st.data())
def test_damage_gives_our_errors_or_an_image(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]))
    damaged = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(damaged), 600) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        assert preprocess(bytes(damaged), SPEC).shape == (3, 8, 8)
    except InputError as error:
        assert error.what


def test_the_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded("PNG"))
    np.testing.assert_array_equal(preprocess(path, SPEC), preprocess(encoded("PNG"), SPEC))


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_fifo, "E0311 this is a named pipe"),
        (make_link_to_device, "E0311 this is a device"),
        (Path.mkdir, "E0311 this is a directory"),
        (make_loop, "E0311 cannot read the image: Too many levels"),
        (make_dangling, "E0311 cannot read the image: No such file"),
        (lambda path: None, "E0311 cannot read the image: No such file"),
    ],
)
@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "cat.jpg"
    make(path)
    with pytest.raises(InputError, match=message):
        read_image_file(path)


def test_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may only be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("cat.jpg")
        with pytest.raises(InputError, match="E0311 this is a socket"):
            read_image_file(Path("cat.jpg"))


def test_a_file_swapped_for_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, regular = tmp_path / "cat.jpg", tmp_path / "other.jpg"
    regular.write_bytes(b"x")
    os.mkfifo(path)
    before = regular.stat()
    monkeypatch.setattr(Path, "stat", lambda self: before)
    with pytest.raises(InputError, match="E0311 this is a named pipe"):
        read_image_file(path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(encoded("JPEG"))
    path.chmod(0)
    if os.geteuid() == 0:  # who may read everything

        def refuse(name: str, flags: int) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="E0311 cannot read the image: Permission denied"):
        read_image_file(path)


def test_a_null_in_the_name() -> None:
    with pytest.raises(InputError, match="E0311 cannot read the image"):
        read_image_file(Path("cat\0.jpg"))


def test_suffixes_are_of_formats_that_pillow_knows() -> None:
    Image.init()
    known = Image.registered_extensions()
    assert set(FORMATS) - set(Image.OPEN) <= {"AVIF", "HEIF"}  # which not every Pillow has
    for name in set(FORMATS) & set(Image.OPEN):
        for suffix in FORMATS[name]:
            assert known[suffix] in (name, "MPO"), suffix
    assert {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"} <= SUFFIXES


def test_decoding_among_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = encoded("PNG")
    threads = [threading.Thread(target=preprocess, args=(data, SPEC)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
