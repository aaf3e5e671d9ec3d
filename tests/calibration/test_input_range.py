"""What a net was fed against numpy over everything at once, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convexport.architectures.registry import find, variants
from convexport.calibration.digits import digits
from convexport.calibration.input_range import InputRange, InputTally, input_doubts
from convexport.calibration.photographs import photographs
from convexport.runtime.specs import Preprocess

SPEC = Preprocess((8, 8), (8,))


def tallied(inputs: np.ndarray, size: int = 7) -> InputRange:
    tally = InputTally()
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        assert tally.add(batch) is batch
    return tally.seen()


def fed(pixels: np.ndarray, spec: Preprocess) -> InputRange:
    """What a net sees of pixels N×3×H×W in 0..255."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (spec.mean, spec.std))
    return tallied(((pixels / 255 - mean) / std).astype(np.float32))


def noise(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (40, 3, 8, 8), endpoint=True)


@given(st.integers(0, 99), st.integers(1, 20), st.integers(1, 9), st.sampled_from([0, -2.1, 1e3]))
def test_batches_add_up(seed: int, images: int, size: int, offset: float) -> None:
    inputs = np.random.default_rng(seed).normal(offset, 0.01, (images, 2, 3, 4)).astype(np.float32)
    seen, whole = tallied(inputs, size), inputs.astype(np.float64)
    np.testing.assert_array_equal(seen.minimum, inputs.min((0, 2, 3)))
    np.testing.assert_array_equal(seen.maximum, inputs.max((0, 2, 3)))
    np.testing.assert_allclose(seen.mean, whole.mean((0, 2, 3)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(seen.std, whole.std((0, 2, 3)), rtol=1e-3)


def test_photographs_fit_the_normalization_of_every_net_for_photographs() -> None:
    specs = {v.preprocess.mean + v.preprocess.std: v.preprocess for v in variants().values()}
    odd = []
    for spec in (replace(spec, crop=(48, 48), resize=(48,)) for spec in specs.values()):
        inputs, _ = photographs("calibration", 12).arrays(spec)
        if input_doubts(tallied(inputs), spec):
            odd.append(spec.mean)
    # LeNet-5 as in its paper is for ink on paper, not for photographs.
    assert len(specs) > 3
    assert odd == [find("lenet5_original").preprocess.mean]


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_fit_the_normalization_of_their_nets(channels: int) -> None:
    kind = "L" if channels == 1 else "RGB"
    spec = Preprocess(
        (32, 32), (32, 32), channels=kind, mean=(0.5,) * channels, std=(0.5,) * channels
    )
    inputs, _ = digits("calibration").arrays(spec)
    assert input_doubts(tallied(inputs), spec) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": (0.0,) * 3, "std": (1.0,) * 3},  # 0..1
        {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},  # 0..255
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},  # -1..1
        {"std": (1 / 255,) * 3},  # Caffe's
    ],
)
def test_normalizations_that_nets_are_trained_with_are_fine(
    changed: dict[str, tuple[float, ...]],
) -> None:
    spec = replace(SPEC, **changed)
    assert input_doubts(fed(noise(0, 255), spec), spec) == ()


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            "mean is 124, 116, 104, expected 0 to 1",
        ),
        ((-0.485, -0.456, -0.406), (0.229, 0.224, 0.225), "mean is -0.485"),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), "std is 58.4, 57.1, 57.4, expected"),
        ((0.485, 0.456, 0.406), (0.0009, 0.00088, 0.00088), "std is 0.0009"),
    ],
)
def test_a_normalization_for_other_values_is_said(
    mean: tuple[float, ...], std: tuple[float, ...], said: str
) -> None:
    spec = replace(SPEC, mean=mean, std=std)
    (doubt,) = input_doubts(fed(noise(0, 255), spec), spec)
    assert said in doubt


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 3, "brightest pixel is 3, 3, 3, expected 16 to 255"),
        (240, 255, "darkest pixel is 240, 240, 240, expected 0 to 235"),
        (118, 126, "standard deviation of the pixels is 2.6"),
        (0, 30, "less the normalization's mean, is -109"),
        (200, 250, "less the normalization's mean, is 102"),
    ],
)
def test_images_unlike_those_of_the_normalization_are_said(low: int, high: int, said: str) -> None:
    (doubt,) = input_doubts(fed(noise(low, high), SPEC), SPEC)
    assert said in doubt


def test_one_channel_is_enough() -> None:
    pixels = noise(0, 255)
    pixels[:, 2] = 0
    (doubt,) = input_doubts(fed(pixels, SPEC), SPEC)
    assert "brightest pixel is 255, 255, 0" in doubt
