"""The preprocess against torchvision, and against arithmetic written out here."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convexport.runtime import preprocess as preprocess_module
from convexport.runtime.errors import InputError
from convexport.runtime.preprocess import decode, preprocess, to_array
from convexport.runtime.specs import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from tests.pictures import encoded

GREY: dict[str, Any] = {"channels": "L", "mean": (0.4,), "std": (0.3,)}
PLAIN: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng([width, height])
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def oracle(transforms: Any, data: bytes, spec: Preprocess) -> np.ndarray:
    """What torchvision's evaluation transforms make of an image file."""
    mode = transforms.InterpolationMode[spec.interpolation.upper()]
    size = spec.resize[0] if len(spec.resize) == 1 else spec.resize
    chain = transforms.Compose(
        [
            transforms.Resize(size, interpolation=mode),
            transforms.CenterCrop(spec.crop),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    image = Image.open(io.BytesIO(data)).convert("L" if spec.channels == "L" else "RGB")
    result: np.ndarray = chain(image).numpy()
    return result


SIZES = [
    (224, 224),
    (256, 256),
    (257, 255),
    (500, 375),
    (375, 500),
    (333, 777),
    (1, 1),
    (2, 3),
    (31, 17),
    (40, 400),
    (640, 61),
    (225, 1023),
]
SPECS = [
    Preprocess(),
    Preprocess(interpolation="bicubic", resize=(232,)),
    Preprocess(crop=(299, 299), resize=(342,)),
    Preprocess(crop=(225, 193), resize=(225,), mean=(0.5,) * 3, std=(0.5,) * 3),
    Preprocess(crop=(32, 32), resize=(32, 32), **GREY),
    Preprocess(crop=(96, 129), resize=(100, 130), interpolation="bicubic", **GREY),
    # A crop that only fits because the longer side may be long: padded where it is not.
    Preprocess(crop=(64, 97), resize=(64,)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.crop}of{spec.resize}")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_pixels_are_those_of_torchvision(
    transforms: Any, size: tuple[int, int], spec: Preprocess
) -> None:
    data = encoded(Image.fromarray(noise(*size)))
    want = oracle(transforms, data, spec)
    have = preprocess(data, spec)
    assert have.dtype == np.float32
    assert have.shape == spec.shape
    assert have.flags.c_contiguous
    np.testing.assert_array_equal(have, want)


def files_of_every_mode() -> dict[str, bytes]:
    rgb = Image.fromarray(noise(70, 50))
    alpha = Image.fromarray(noise(70, 50, 4))
    palette = rgb.quantize(32)
    return {
        "RGB.jpg": encoded(rgb, "JPEG", quality=85),
        "L.jpg": encoded(rgb.convert("L"), "JPEG"),
        "CMYK.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "CMYK.tif": encoded(rgb.convert("CMYK"), "TIFF"),
        "L.png": encoded(rgb.convert("L")),
        "LA.png": encoded(alpha.convert("LA")),
        "RGBA.png": encoded(alpha),
        "RGBA.webp": encoded(alpha, "WEBP", lossless=True),
        "P.png": encoded(palette),
        "P.gif": encoded(palette, "GIF"),
        "P.bmp": encoded(palette, "BMP"),
        "P+one.png": encoded(palette, transparency=3),
        "RGB+one.png": encoded(rgb, transparency=(1, 2, 3)),
        "1.png": encoded(rgb.convert("1")),
        "YCbCr.tif": encoded(rgb.convert("YCbCr"), "TIFF"),
        "RGB.ppm": encoded(rgb, "PPM"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
    }


@pytest.mark.oracle
@pytest.mark.parametrize("channels", ["RGB", "L"])
@pytest.mark.parametrize("name", sorted(files_of_every_mode()))
def test_every_mode_is_converted_as_pillow_does(transforms: Any, name: str, channels: str) -> None:
    spec = Preprocess(crop=(40, 40), resize=(48,), **(GREY if channels == "L" else {}))
    data = files_of_every_mode()[name]
    np.testing.assert_array_equal(preprocess(data, spec), oracle(transforms, data, spec))


@pytest.mark.oracle
def test_palettes_with_an_alpha_each(transforms: Any) -> None:
    # Pillow warns when it converts these, so the oracle gets them by way of RGBA.
    palette = Image.fromarray(noise(30, 20)).quantize(16)
    data = encoded(palette, transparency=bytes(range(0, 256, 16)))
    spec = Preprocess(crop=(16, 16), resize=(20,))
    decoded = decode(data, spec)
    assert decoded.notes == ("alpha channel dropped",)
    through_rgba = encoded(Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB"))
    np.testing.assert_array_equal(
        to_array(decoded.image, spec), oracle(transforms, through_rgba, spec)
    )


# --- without torchvision


def ramp(width: int, height: int) -> Image.Image:
    """Red is x, green is y, blue is 7: each pixel tells where it was."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], axis=2).astype(np.uint8))


@pytest.mark.parametrize("length", range(9, 20))
@pytest.mark.parametrize("crop", [9, 8])
def test_the_crop_is_central_and_halves_go_to_even(length: int, crop: int) -> None:
    spec = Preprocess(crop=(crop, crop), resize=(length, length + 1), **PLAIN)
    pixels = np.rint(preprocess(ramp(length + 1, length), spec) * 255).astype(int)
    for axis, (size, plane) in enumerate([(length + 1, pixels[0]), (length, pixels[1])]):
        margin = size - crop
        start = margin // 2 + (margin % 2 and (margin // 2) % 2)
        line = plane[0, :] if axis == 0 else plane[:, 0]
        assert line.tolist() == list(range(start, start + crop))
    assert (pixels[2] == 7).all()


def test_the_normalisation_is_that_of_each_channel() -> None:
    pixels = noise(5, 4)
    spec = Preprocess(crop=(4, 5), resize=(4, 5))
    have = preprocess(Image.fromarray(pixels), spec)
    for c, y, x in np.ndindex(3, 4, 5):
        exact = (int(pixels[y, x, c]) / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        assert math.isclose(have[c, y, x], exact, rel_tol=1e-5, abs_tol=2e-6)


def test_bgr_is_rgb_the_other_way_round() -> None:
    image = Image.fromarray(noise(40, 30))
    rgb = Preprocess(crop=(16, 16), resize=(20,))
    bgr = Preprocess(
        crop=(16, 16),
        resize=(20,),
        channels="BGR",
        mean=IMAGENET_MEAN[::-1],
        std=IMAGENET_STD[::-1],
    )
    np.testing.assert_array_equal(preprocess(image, bgr), preprocess(image, rgb)[::-1])


def filtered(line: np.ndarray, length: int, support: float, weight: Any) -> np.ndarray:
    """One axis resampled in float64: the filter is as wide as what it must average over."""
    scale = len(line) / length
    width = max(scale, 1.0)
    out = []
    for index in range(length):
        centre = (index + 0.5) * scale
        low = max(int(centre - support * width + 0.5), 0)
        high = min(int(centre + support * width + 0.5), len(line))
        at = (np.arange(low, high) + 0.5 - centre) / width
        weights = np.array([weight(abs(value)) for value in at])
        out.append(np.tensordot(weights / weights.sum(), line[low:high], 1))
    return np.array(out)


def triangle(x: float) -> float:
    return max(1 - x, 0.0)


def cubic(x: float, a: float = -0.5) -> float:
    """R. Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981."""
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.mark.parametrize("size", [(61, 47), (20, 90), (9, 7)], ids=str)
@pytest.mark.parametrize(
    ("name", "support", "weight"), [("bilinear", 1.0, triangle), ("bicubic", 2.0, cubic)]
)
def test_resizing_averages_over_what_it_drops(
    size: tuple[int, int], name: str, support: float, weight: Any
) -> None:
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([127 + 100 * np.sin(x / (2 + k) + y / 3) for k in range(3)], axis=2)
    pixels = pixels.astype(np.uint8)
    spec = Preprocess(crop=(17, 23), resize=(17, 23), interpolation=name, **PLAIN)
    have = preprocess(Image.fromarray(pixels), spec) * 255
    rows = filtered(pixels.astype(float), 17, support, weight)
    want = filtered(rows.swapaxes(0, 1), 23, support, weight).swapaxes(0, 1).clip(0, 255)
    # Pillow rounds to whole levels after each of the two passes.
    assert np.abs(have - want.transpose(2, 0, 1)).max() < 1.2


@settings(max_examples=60)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 96))
def test_the_longer_side_is_cut_to_an_integer(width: int, height: int, side: int) -> None:
    short, long = min(width, height), max(width, height)
    want = (side, side * long // short)
    assert preprocess_module._resized((width, height), (side,)) == (
        want if width <= height else want[::-1]
    )


def test_an_image_too_narrow_to_resize_is_refused() -> None:
    with pytest.raises(InputError, match=r"E0309 too narrow: 1x5000 .* 256x1280000"):
        preprocess(Image.new("RGB", (1, 5000)), Preprocess())
    squeezed = preprocess(Image.new("RGB", (1, 5000)), Preprocess(resize=(224, 224)))
    assert squeezed.shape == (3, 224, 224)


def test_a_preprocess_for_another_size_crops_away_as_much() -> None:
    spec = Preprocess()
    assert spec.reshaped((3, 224, 224)) is spec
    half = spec.reshaped((3, 112, 112))
    assert (half.crop, half.resize) == ((112, 112), (128,))
    wide = spec.reshaped((3, 56, 112))
    assert (wide.crop, wide.resize) == ((56, 112), (64, 128))
    grey = spec.reshaped((1, 224, 224))
    assert (grey.channels, grey.resize) == ("L", (256,))
    assert grey.mean == pytest.approx((0.449,)) and grey.std == pytest.approx((0.226,))
    with pytest.raises(InputError):
        spec.reshaped((4, 224, 224))
