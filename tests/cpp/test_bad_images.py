"""What is refused as an image in Python is refused in C++, with the same code and words."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from convexport.runtime.bundle import read_manifest
from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import preprocess

from .bundles import with_preprocess
from .conftest import Probe
from .test_pixels import noise, png, spec_of

pytestmark = pytest.mark.slow  # builds the library first


def jpeg_with(segment: bytes) -> bytes:
    """A JPEG file with one more segment behind its first marker."""
    plain = io.BytesIO()
    noise(20, 20).save(plain, "JPEG")
    return plain.getvalue()[:2] + segment + plain.getvalue()[2:]


def packed(mib: int) -> tuple[bytes, bytes]:
    """A chunk of text that is much longer than it looks."""
    return b"zTXt", b"Comment\0\0" + zlib.compress(bytes(mib << 20))


CONTENTS = {
    "empty": b"",
    "page.jpg": b"  <!DOCTYPE html><html>404</html>",
    "drawing.png": b"\xef\xbb\xbf<?xml version='1.0'?><svg/>",
    "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
    "archive.png": b"PK\x03\x04abcdefgh",
    "program.png": b"\x7fELF\x02\x01\x01",
    "text.jpg": b"just words\n",
    "bytes.jpg": bytes(range(128, 256)),
    "head.jpg": b"\xff\xd8\xff",
    "head.png": b"\x89PNG\r\n\x1a\n",
    "no-width.png": png((0, 7, 8, 2), b""),
    "no-kind.png": png((9, 7, 3, 2), b""),
    "huge.png": png((60_000, 60_000, 1, 0), b""),
    "narrow.png": png((1, 1 << 17, 1, 0), b"\0\0" * (1 << 17)),
    "jfif.jpg": jpeg_with(b"\xff\xe0\0\6JFIF"),
    "adobe.jpg": jpeg_with(b"\xff\xee\0\x08Adobe\0"),
    "long.png": png((9, 7, 8, 2), bytes(28 * 7), packed(2)),
    "bomb.png": png((9, 7, 8, 2), bytes(28 * 7), *[packed(1)] * 65),
    "bare.png": png((9, 7, 8, 2), b""),
}


def refusals(bundle: Path, paths: list[Path]) -> list[list[str]]:
    """The lines of Python's errors: an independent source of what should be said."""
    spec, found = read_manifest(bundle).preprocess, []
    for path in paths:
        with pytest.raises(InputError) as error:
            preprocess(path, spec)
        found.append(error.value.lines())
    return found


def test_what_is_no_image_is_named_alike(probe: Probe, tmp_path: Path) -> None:
    bundle = with_preprocess(tmp_path / "bundle", **spec_of())
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = [*CONTENTS, "pipe", "loop", "bundle", "nothing", "x" * 300]
    paths = [*(tmp_path / name for name in names), Path("/dev/zero")]
    answers = probe("pixels", bundle, tmp_path, *paths)
    for answer, expected in zip(answers, refusals(bundle, paths), strict=True):
        actual = answer.split("\x1f")
        if expected[0].startswith("E0314") or "pixels" in expected[0]:
            expected, actual = [expected[0][:5]], [actual[0][:5]]  # the libraries' own words
        if "no image format" in expected[0] or "text" in expected[0]:
            expected, actual = expected[:2], actual[:2]  # the C++ side reads fewer formats
        assert actual == expected


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_cut_file_gives_an_error_or_the_same_pixels(
    probe: Probe, tmp_path: Path, suffix: str
) -> None:
    bundle = with_preprocess(tmp_path / "bundle", **spec_of())
    noise(70, 60).save(tmp_path / f"whole.{suffix}")
    content = (tmp_path / f"whole.{suffix}").read_bytes()
    lengths = sorted(random.Random(0).sample(range(1, len(content) - 80), 150))
    paths = [tmp_path / f"{length}.{suffix}" for length in lengths]
    for path, length in zip(paths, lengths, strict=True):
        path.write_bytes(content[:length])
    answers = probe("pixels", bundle, tmp_path, *paths)
    expected = [lines[0][:5] for lines in refusals(bundle, paths)]
    assert [answer[:5] for answer in answers] == expected


def test_a_second_header_behind_the_pixels_changes_no_size(probe: Probe, tmp_path: Path) -> None:
    bundle = with_preprocess(tmp_path / "bundle", **spec_of())
    whole = png((9, 7, 8, 0), (b"\0" + bytes(range(9))) * 7)
    second = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 9, 0, 8, 0, 0, 0, 0)  # no rows at all
    (tmp_path / "two.png").write_bytes(whole[:-12] + second)
    (answer,) = probe("pixels", bundle, tmp_path, tmp_path / "two.png")
    assert answer == "ok" or answer.startswith("E0314")
