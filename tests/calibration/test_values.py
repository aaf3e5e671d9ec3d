"""Tensors that must not set a range."""

from __future__ import annotations

import numpy as np
import pytest

from convexport.calibration.values import check_values
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import Preprocess

SPEC = Preprocess(crop=(8, 8), resize=(8,))


def pixels(count: int = 4) -> np.ndarray:
    """Levels 0..255, float32 NCHW."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, 3, 8, 8)).astype(np.float32)


def normalised(levels: np.ndarray) -> np.ndarray:
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (SPEC.mean, SPEC.std))
    result: np.ndarray = (levels / 255 - mean) / std
    return result


def test_what_is_right_gets_no_note() -> None:
    assert check_values(normalised(pixels()), SPEC) == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(value: float) -> None:
    array = normalised(pixels())
    array[2, 1, 3, 3] = value
    with pytest.raises(InputError, match="E0343 1 values are NaN or infinite") as caught:
        check_values(array, SPEC)
    assert caught.value.where == "images 2 of 4"


def test_all_black() -> None:
    with pytest.raises(InputError, match="E0344"):
        check_values(normalised(np.zeros((4, 3, 8, 8), np.float32)), SPEC)


def test_one_black_image_among_others_is_no_fault() -> None:
    array = pixels()
    array[1] = 0
    assert check_values(normalised(array), SPEC) == ()


def test_levels_that_were_not_normalised() -> None:
    array = pixels()
    array[0, :, 0, :2] = 0, 255
    (note,) = check_values(array, SPEC)
    assert "0.406..58.9" in note  # 0 x 0.225 + 0.406 and 255 x 0.229 + 0.485
    assert "were they normalised" in note


def test_levels_that_were_divided_twice() -> None:
    (note,) = check_values(normalised(pixels() / 255), SPEC)
    assert "divided by 255 twice" in note


def test_nothing_at_all() -> None:
    with pytest.raises(UsageError, match="E0240"):
        check_values(np.empty((0, 3, 8, 8), np.float32), SPEC)
