"""The stand-in photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from convexport.calibration.images import overlap
from convexport.calibration.photographs import photographs
from convexport.runtime.errors import UsageError
from convexport.runtime.specs import Preprocess


def crop(item: Any) -> np.ndarray:
    image = item.content()
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_they_say_what_they_are() -> None:
    images = photographs("calibration", 12)
    assert images.stand_in
    assert images.kind == "photographs"
    assert "stand-in" in images.description
    assert len(images) == 12
    assert {item.label for item in images.items} == {None}


def test_another_process_draws_the_same_crops() -> None:
    program = (
        "from convexport.calibration.photographs import photographs\n"
        "print(photographs('parity', 20).fingerprint())"
    )
    for seed in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert result.stdout.strip() == photographs("parity", 20).fingerprint()


def test_more_crops_begin_with_the_same_ones() -> None:
    few, many = photographs("calibration", 8), photographs("calibration", 16)
    assert [item.sha256 for item in few.items] == [item.sha256 for item in many.items[:8]]


def test_no_crop_is_drawn_twice() -> None:
    calibration, parity = photographs("calibration", 300), photographs("parity", 300)
    assert overlap(calibration, parity) == ()
    assert len({item.sha256 for item in calibration.items}) == 300


def test_crops_are_pieces_of_the_photographs() -> None:
    whole = [np.asarray(photograph) for photograph in load_sample_images().images]
    found = [find(crop(item), whole) for item in photographs("calibration", 24).items]
    assert {which for which, _ in found} == {0, 1}
    assert {mirrored for _, mirrored in found} == {False, True}


def find(piece: np.ndarray, whole: list[np.ndarray]) -> tuple[int, bool]:
    """Which photograph a crop is of, and whether it was mirrored."""
    height, width = piece.shape[:2]
    for mirrored in (False, True):
        upright = piece[:, ::-1] if mirrored else piece
        for which, photograph in enumerate(whole):
            corners = (photograph == upright[0, 0]).all(axis=2)
            for y, x in np.argwhere(corners):
                if np.array_equal(photograph[y : y + height, x : x + width], upright):
                    return which, mirrored
    raise AssertionError("the crop is in no photograph")


def test_sizes_are_those_of_inception() -> None:
    areas, aspects = [], []
    for item in photographs("parity", 400).items:
        height, width = crop(item).shape[:2]
        areas.append(height * width / (427 * 640))
        aspects.append(width / height)
    assert 0.07 < min(areas) < 0.12
    assert 0.7 < max(areas) <= 1
    assert 0.74 < min(aspects) < 0.8
    # The whole photograph, where no draw fitted, is 3:2.
    assert 1.25 < max(aspects) <= 640 / 427


def test_they_become_tensors() -> None:
    reader = photographs("parity", 10).batches(Preprocess(), 4, on_bad="fail")
    assert [batch.array.shape for batch in reader] == [(4, 3, 224, 224)] * 2 + [(2, 3, 224, 224)]


@pytest.mark.parametrize(("split", "n", "code"), [("test", 3, "E0241"), ("parity", 0, "E0240")])
def test_requests_that_make_no_sense(split: Any, n: int, code: str) -> None:
    with pytest.raises(UsageError, match=code):
        photographs(split, n)
