"""Crops for evaluation against loops written out here, and against torchvision's ten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from convexport.runtime.crops import PROTOCOLS, crops, find
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.preprocess import to_array
from convexport.runtime.specs import Preprocess

SMALL = Preprocess(crop=(28, 28), resize=(32,))
OBLONG = Preprocess(crop=(20, 26), resize=(30,), interpolation="bicubic")
GREY = Preprocess(crop=(28, 28), resize=(32, 32), channels="L", mean=(0.4,), std=(0.3,))
BGR = Preprocess(crop=(28, 28), resize=(32,), channels="BGR", mean=(0.1, 0.2, 0.3))
# The crop only fits where one side is longer than the other.
WIDE = Preprocess(crop=(24, 40), resize=(24,))
SPECS = [SMALL, OBLONG, GREY, BGR, WIDE]
LANDSCAPE, PORTRAIT, SQUARE, TINY = (61, 40), (40, 61), (50, 50), (3, 5)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def resized(image: Image.Image, width: int, height: int, spec: Preprocess) -> np.ndarray:
    """8-bit pixels (H, W, C) after Pillow's resizing."""
    image = image.convert("L" if spec.channels == "L" else "RGB")
    kind = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else None
    if image.size != (width, height):
        image = image.resize((width, height), kind or Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def by_shorter_side(image: Image.Image, side: int, spec: Preprocess) -> np.ndarray:
    width, height = image.size
    if width <= height:
        return resized(image, side, int(side * height / width), spec)
    return resized(image, int(side * width / height), side, spec)


def normalised(pixels: np.ndarray, spec: Preprocess) -> np.ndarray:
    """(H, W, C) of 0..255 to (C, H, W) as the net takes it, one number after the other."""
    height, width, channels = pixels.shape
    out = np.empty((channels, height, width), np.float32)
    for c in range(channels):
        source = channels - 1 - c if spec.channels == "BGR" else c
        plane = pixels[:, :, source].astype(np.float32) / np.float32(255)
        out[c] = (plane - np.float32(spec.mean[c])) / np.float32(spec.std[c])
    return out


def half(number: int) -> int:
    """The middle of an odd margin goes to the even side."""
    return number // 2 + (number % 2 and number // 2 % 2)


def padded(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Black around what is smaller than that, the odd line before it."""
    rows, columns = max(height - len(pixels), 0), max(width - pixels.shape[1], 0)
    before = rows // 2, columns // 2
    out = np.zeros((len(pixels) + rows, pixels.shape[1] + columns, pixels.shape[2]), np.uint8)
    out[before[0] : before[0] + len(pixels), before[1] : before[1] + pixels.shape[1]] = pixels
    return out


def five(pixels: np.ndarray, crop: tuple[int, int]) -> list[np.ndarray]:
    pixels = padded(pixels, *crop)
    down, right = len(pixels) - crop[0], pixels.shape[1] - crop[1]
    found = []
    for top, left in [(0, 0), (0, right), (down, 0), (down, right), (half(down), half(right))]:
        found.append(pixels[top : top + crop[0], left : left + crop[1]])
    return found


def mirrored(parts: list[np.ndarray]) -> list[np.ndarray]:
    """They, and then each from right to left."""
    turned = []
    for part in parts:
        other = np.empty_like(part)
        for column in range(part.shape[1]):
            other[:, part.shape[1] - 1 - column] = part[:, column]
        turned.append(other)
    return parts + turned


def ten(image: Image.Image, spec: Preprocess) -> list[np.ndarray]:
    """Krizhevsky et al. 2012, sec. 4.1."""
    if len(spec.resize) == 2:
        pixels = resized(image, spec.resize[1], spec.resize[0], spec)
    else:
        pixels = by_shorter_side(image, spec.resize[0], spec)
    return mirrored(five(pixels, spec.crop))


def one_hundred_and_forty_four(image: Image.Image, spec: Preprocess) -> list[np.ndarray]:
    """arXiv:1409.4842, sec. 7."""
    parts = []
    for side in (256, 288, 320, 352):
        side = round(side / 224 * max(spec.crop))
        pixels = by_shorter_side(image, side, spec)
        height, width = pixels.shape[:2]
        for square in range(3):
            top = (0, half(height - side), height - side)[square]
            left = (0, half(width - side), width - side)[square]
            inside = pixels[top : top + side, left : left + side]
            parts += five(inside, spec.crop)
            plain = inside[:, :, 0] if spec.channels == "L" else inside
            parts.append(resized(Image.fromarray(plain), spec.crop[1], spec.crop[0], spec))
    return mirrored(parts)


TWINS = {"10": ten, "144": one_hundred_and_forty_four}


@pytest.mark.parametrize("spec", SPECS, ids=["small", "oblong", "grey", "bgr", "wide"])
@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT, SQUARE, TINY], ids=str)
@pytest.mark.parametrize("protocol", TWINS)
def test_crops_are_those_of_the_loops(
    protocol: str, size: tuple[int, int], spec: Preprocess
) -> None:
    image = noise(*size)
    have = crops(image, spec, protocol)
    assert have.dtype == np.float32
    assert have.shape == (int(protocol), *spec.shape)
    assert have.flags.c_contiguous
    want = np.stack([normalised(part, spec) for part in TWINS[protocol](image, spec)])
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT, SQUARE, TINY], ids=str)
def test_one_crop_is_what_the_net_sees_otherwise(size: tuple[int, int]) -> None:
    image = noise(*size)
    np.testing.assert_array_equal(crops(image, SMALL, "1")[0], to_array(image, SMALL))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_names_are_numbers_of_crops(name: str) -> None:
    assert len(crops(noise(*LANDSCAPE), SMALL, name)) == PROTOCOLS[name].count == int(name)


@pytest.mark.parametrize("protocol", TWINS)
def test_the_second_half_mirrors_the_first(protocol: str) -> None:
    found = crops(noise(*LANDSCAPE), SMALL, protocol)
    half = len(found) // 2
    np.testing.assert_array_equal(found[half:], found[:half, :, :, ::-1])
    assert not np.array_equal(found[half:], found[:half])


def test_the_centre_is_among_the_ten() -> None:
    image = noise(*PORTRAIT)
    np.testing.assert_array_equal(crops(image, SMALL, "10")[4], to_array(image, SMALL))


@pytest.mark.parametrize("portrait", [False, True])
def test_squares_lie_along_the_longer_side(portrait: bool) -> None:
    """Red is x / 2, green is y: each crop tells where it was."""
    y, x = np.mgrid[0:256, 0:512]
    image = Image.fromarray(np.stack([x // 2, y, y * 0], axis=2).astype(np.uint8))
    if portrait:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    # The paper's first size leaves these pixels as they are.
    spec = Preprocess(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    first_corners = np.rint(crops(image, spec, "144")[[0, 6, 12], :, 0, 0])
    assert first_corners[:, :2].tolist() == [[0, 0], [64, 0], [128, 0]]


# Even widths beyond the crop's: where half a pixel is left, torchvision rounds before it mirrors.
@pytest.mark.oracle
@pytest.mark.parametrize("size", [(64, 40), (40, 60), (36, 34)], ids=str)
def test_ten_crops_are_those_of_torchvision(transforms: Any, size: tuple[int, int]) -> None:
    spec = Preprocess(crop=(28, 28), resize=(34,), mean=(0.0,) * 3, std=(1.0,) * 3)
    chain = transforms.Compose([transforms.Resize(34), transforms.TenCrop(28)])
    want = {np.asarray(part).tobytes() for part in chain(noise(*size))}
    have = np.rint(crops(noise(*size), spec, "10") * 255).astype(np.uint8)
    assert {part.transpose(1, 2, 0).tobytes() for part in have} == want


def test_another_protocol_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        find("12")
    assert caught.value.code == "E0202"
    assert "1, 10, 144" in caught.value.hint


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_image_too_narrow_to_resize_is_refused(protocol: str) -> None:
    with pytest.raises(InputError, match="E0309 too narrow") as caught:
        crops(Image.new("RGB", (1, 5000)), Preprocess(), protocol, name="thin.png")
    assert caught.value.where == "thin.png"
