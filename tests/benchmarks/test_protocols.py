"""Averages over crops against loops, with a net that is a matrix."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from convexport.benchmarks.accuracy import counted_right
from convexport.benchmarks.protocols import TopError, averaged
from convexport.benchmarks.statistics import proportion
from convexport.calibration.images import ImageItem, ImageSet
from convexport.runtime.crops import crops
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import Preprocess, TensorSpec

SPEC = Preprocess(crop=(8, 8), resize=(10,))
CLASSES = 7
WEIGHTS = np.random.default_rng(0).standard_normal((3 * 8 * 8, CLASSES)) / 10


class Net:
    """Logits or probabilities of flattened pixels; counts its images."""

    def __init__(self, *, batch: str | int = "batch", softmax: bool = False) -> None:
        self.inputs = (TensorSpec("x", (batch, 3, 8, 8)),)
        self.outputs = (TensorSpec("y", (batch, CLASSES)),)
        self.softmax = softmax
        self.seen = 0

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = feed["x"]
        assert self.inputs[0].fits(x)
        self.seen += len(x)
        logits = x.reshape(len(x), -1) @ WEIGHTS
        if self.softmax:
            logits = np.array([shares(row) for row in logits])
        return {"y": logits.astype(np.float32)}


def shares(logits: np.ndarray) -> list[float]:
    total = math.fsum(math.exp(value) for value in logits)
    return [math.exp(value) / total for value in logits]


def picture(index: int) -> Image.Image:
    rng = np.random.default_rng(index)
    return Image.fromarray(rng.integers(0, 256, (13, 11 + index, 3), np.uint8))


def pictures(count: int) -> ImageSet:
    items = tuple(
        ImageItem(f"{index}.png", lambda index=index: picture(index)) for index in range(count)
    )
    return ImageSet(kind="folder", description="noise", items=items)


def by_hand(index: int, protocol: str) -> list[float]:
    """Each crop through the matrix, alone; then the mean of each class's probability."""
    rows = []
    for crop in crops(picture(index), SPEC, protocol):
        rows.append(shares((crop.reshape(-1) @ WEIGHTS).astype(np.float32)))
    return [math.log(math.fsum(row[k] for row in rows) / len(rows)) for k in range(CLASSES)]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("protocol", ["1", "10", "144"])
def test_scores_are_logarithms_of_averaged_probabilities(protocol: str, softmax: bool) -> None:
    told: list[tuple[int, int]] = []
    scores = averaged(
        Net(softmax=softmax),
        pictures(3),
        SPEC,
        protocol,
        lambda done, total: told.append((done, total)),
        output_kind="probabilities" if softmax else "logits",
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    want = [by_hand(index, protocol) for index in range(3)]
    np.testing.assert_allclose(scores, want, rtol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-6)


def test_probabilities_are_averaged_and_not_logits() -> None:
    """A crop that is sure outweighs many that are not only once it is a probability."""

    class Sure(Net):
        def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            logits = np.zeros((len(feed["x"]), CLASSES), np.float32)
            if not self.seen:
                logits[0, 3] = 1000
            logits[:, 5] += 2
            self.seen += len(logits)
            return {"y": logits}

    (scores,) = averaged(Sure(), pictures(1), SPEC, "10")
    e = math.exp(2)
    assert math.exp(scores[3]) == pytest.approx((1 + 9 / (e + 6)) / 10)
    assert math.exp(scores[5]) == pytest.approx(9 * e / (e + 6) / 10)
    assert np.isfinite(scores).all()


def test_a_net_with_a_fixed_batch_gives_the_same() -> None:
    fixed = Net(batch=4)
    np.testing.assert_allclose(
        averaged(fixed, pictures(2), SPEC, "10"), averaged(Net(), pictures(2), SPEC, "10")
    )
    assert fixed.seen == 2 * 12


def test_probabilities_of_zero_stay_finite_and_nan_stays_nan() -> None:
    class Odd(Net):
        def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            row = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.nan if self.softmax else 0.0]
            return {"y": np.tile(np.array(row, np.float32), (len(feed["x"]), 1))}

    (scores,) = averaged(Odd(), pictures(1), SPEC, "10", output_kind="probabilities")
    assert np.isfinite(scores).all()
    assert scores.argmax() == 0
    (scores,) = averaged(Odd(softmax=True), pictures(1), SPEC, "10", output_kind="probabilities")
    assert np.isnan(scores[-1])


def test_unknown_protocols_and_images_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="E0202"):
        averaged(Net(), pictures(1), SPEC, "11")
    broken = ImageSet(
        kind="folder", description="", items=(ImageItem("a.png", lambda: b"not an image"),)
    )
    with pytest.raises(InputError) as caught:
        averaged(Net(), broken, SPEC, "10")
    assert "a.png" in caught.value.where


@pytest.mark.parametrize("top", [1, 2, 5])
def test_errors_are_counted_image_by_image(top: int) -> None:
    rng = np.random.default_rng(1)
    # Few different values, so that there are ties: the first of equals counts.
    reference = rng.integers(0, 4, (200, CLASSES)).astype(float)
    actual = rng.standard_normal((200, CLASSES))
    actual[7, 2], actual[8, 0] = np.nan, np.inf
    labels = rng.integers(0, CLASSES, 200)
    found = TopError.of(counted_right(reference, actual, labels, top=top).result())
    for scores, have in ((reference, found.reference), (actual, found.actual)):
        wrong = 0
        for row, label in zip(scores, labels, strict=True):
            order = sorted(range(CLASSES), key=lambda k, row=row: (-row[k], k))
            wrong += label not in order[:top] or not np.isfinite(row).all()
        assert have == proportion(wrong, 200)
        assert have.low < have.share < have.high
    json.dumps(found.to_dict(), allow_nan=False)
