"""Decoding: depth, orientation, frames, transparency, and what is said about each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import decode
from convexport.runtime.specs import Preprocess
from tests.pictures import encoded

GREY: dict[str, Any] = {"channels": "L", "mean": (0.4,), "std": (0.3,)}


def sixteen_bits(kind: str) -> tuple[np.ndarray, bytes]:
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    if kind == "PGM":
        return values, b"P5 64 48 65535\n" + values.astype(">u2").tobytes()
    if kind == "big-endian TIFF":
        data = encoded(Image.fromarray(values.astype(">u2")), "TIFF")
        assert Image.open(io.BytesIO(data)).mode == "I;16B"
        return values, data
    return values, encoded(Image.fromarray(values), kind)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "PGM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values, data = sixteen_bits(kind)
    decoded = decode(data, Preprocess())
    assert decoded.image.mode == "RGB"
    assert decoded.notes == ("16-bit scaled to 8 bits",)
    have = np.asarray(decoded.image)[..., 0]
    assert np.abs(have - values / 257).max() <= 0.5
    # What Pillow alone does, and the reason for all this.
    clipped = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (clipped == 255).mean() > 0.99


def test_16_bit_colour_keeps_its_range() -> None:
    values = np.linspace(0, 65535, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint16)
    data = b"P6 64 48 65535\n" + values.astype(">u2").tobytes()
    have = np.asarray(decode(data, Preprocess()).image)
    assert np.abs(have - values / 257).max() <= 1


def test_a_16_bit_image_of_pillow_itself() -> None:
    values = np.array([[0, 257, 65535]], np.uint16)
    decoded = decode(Image.fromarray(values), Preprocess(**GREY))
    assert np.asarray(decoded.image).tolist() == [[0, 1, 255]]


ORIENTED = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


@pytest.mark.parametrize("orientation", sorted(ORIENTED))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    # Values as in the EXIF 2.32 specification, tag 274: where row 0 and column 0 are.
    stored = np.kron(np.array(ORIENTED[1]), np.full((16, 16), 40)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(stored), kind, exif=exif, quality=100)
    turned = decode(data, Preprocess(exif="apply", **GREY))
    levels = np.rint(np.asarray(turned.image)[8::16, 8::16] / 40).astype(int)
    assert levels.tolist() == ORIENTED[orientation]
    left = decode(data, Preprocess(exif="ignore", **GREY))
    assert left.image.size == (48, 32)
    if orientation == 1:
        assert turned.notes == left.notes == ()
    else:
        assert turned.notes == (f"turned as EXIF orientation {orientation} says",)
        assert left.notes == (f"EXIF orientation {orientation} ignored",)


def test_tiff_is_turned_by_pillow_and_once() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.new("RGB", (30, 20)), "TIFF", exif=exif)
    assert decode(data, Preprocess(exif="apply")).image.size == (20, 30)


@pytest.mark.parametrize(
    ("kind", "exif", "notes"),
    [
        ("PNG", b"Exif\0\0M", ("EXIF data unreadable",)),
        ("JPEG", b"Exif\0\0II*\0" + b"\xff" * 9, ()),
        ("JPEG", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0", ()),
    ],
)
def test_broken_exif_does_not_cost_the_image(
    kind: str, exif: bytes, notes: tuple[str, ...]
) -> None:
    data = encoded(Image.new("RGB", (9, 8), (200, 0, 0)), kind, exif=exif)
    decoded = decode(data, Preprocess())
    assert decoded.image.size == (9, 8)
    assert decoded.notes == notes


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    decoded = decode(data, Preprocess())
    assert "first frame of 3" in decoded.notes
    red, green, blue = np.asarray(decoded.image)[4, 6]
    assert red > 200
    assert max(green, blue) < 50


def test_notes_tell_what_was_left_out() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 4), np.uint8)
    image = Image.fromarray(pixels)
    data = encoded(image, icc_profile=b"not really a profile")
    decoded = decode(data, Preprocess())
    assert decoded.notes == ("alpha channel dropped", "ICC profile ignored")
    np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(image)[..., :3])


def test_adobe_cmyk_is_not_a_negative() -> None:
    white = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in white
    assert np.asarray(decode(white, Preprocess()).image).min() > 250


@pytest.mark.parametrize("mode", ["F", "I", "LAB", "HSV"])
def test_pixels_without_an_agreed_range_are_refused(mode: str) -> None:
    image = Image.new("RGB", (8, 8)).convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8))
    source: Any = encoded(image, "TIFF") if mode != "HSV" else image
    with pytest.raises(InputError, match=f"E0310 pixels of mode {mode}"):
        decode(source, Preprocess())
