"""The digits: complete, disjoint, and what scikit-learn has."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, cast, get_args

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from convexport.calibration.digits import Split, digits
from convexport.calibration.images import overlap
from convexport.runtime.errors import UsageError
from convexport.runtime.specs import Preprocess

SPLITS = get_args(Split)
FINGERPRINTS = {
    "train": "be5b2c0288ef65c4",
    "calibration": "3db02cc77d1a6e96",
    "test": "898afe7e22b0d7b5",
}


def pixels(item: Any) -> np.ndarray:
    image = item.content()
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("L", (8, 8))
    return np.asarray(image)


def test_the_splits_are_disjoint_and_exhaustive() -> None:
    sets = {split: digits(split) for split in SPLITS}
    names = Counter(item.name for images in sets.values() for item in images.items)
    assert sum(names.values()) == len(names) == 1797
    for left in SPLITS:
        for right in SPLITS:
            assert bool(overlap(sets[left], sets[right])) == (left == right)
    assert len(sets["train"]) > 1000 > 600 > len(sets["test"]) > 450 > 250
    assert 250 > len(sets["calibration"]) > 150


def test_images_and_labels_are_those_of_scikit_learn() -> None:
    bunch = load_digits()
    for split in SPLITS:
        for item in digits(split).items:
            index = int(item.name.removeprefix("digits/"))
            assert item.label == bunch.target[index]
            want = [[round(v * 255 / 16) for v in row] for row in bunch.images[index].tolist()]
            assert pixels(item).tolist() == want


def test_the_split_is_the_hash_of_the_pixels() -> None:
    bounds = {"train": (0, 60), "calibration": (60, 72), "test": (72, 100)}
    for split in SPLITS:
        low, high = bounds[split]
        for item in digits(split).items:
            number = int.from_bytes(hashlib.sha256(pixels(item).tobytes()).digest()[:4], "big")
            assert low <= number % 100 < high


def test_the_splits_never_change() -> None:
    """Shipped weights were trained on them: a change here is a change of the test set."""
    assert [len(digits(split)) for split in ("train", "calibration", "test")] == [1086, 209, 502]
    assert {split: digits(split).fingerprint()[:16] for split in SPLITS} == FINGERPRINTS


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_is_in_every_split(split: Split) -> None:
    images = digits(split)
    assert images.class_names == tuple("0123456789")
    counts = Counter(item.label for item in images.items)
    assert set(counts) == set(range(10))
    assert min(counts.values()) > len(images) / 25


@pytest.mark.parametrize("channels", ["L", "RGB"])
def test_they_become_tensors(channels: str) -> None:
    count = 1 if channels == "L" else 3
    half = (0.5,) * count
    spec = Preprocess(crop=(32, 32), resize=(32, 32), channels=channels, mean=half, std=half)
    x, y = digits("calibration").arrays(spec)
    assert x.shape == (209, count, 32, 32)
    assert (x.min(), x.max()) == (-1.0, 1.0)
    assert sorted(set(y.tolist())) == list(range(10))


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="E0241"):
        digits(cast(Split, "validation"))
