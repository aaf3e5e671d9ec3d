"""Accuracy as papers state it: averaged over several crops of each image.

A crop's logits become probabilities, these are averaged over the crops, and the classes with the
largest averages are the answer (Krizhevsky et al. 2012, sec. 4.1; arXiv:1409.4842, sec. 7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convexport.benchmarks.accuracy import PairedAccuracy
from convexport.benchmarks.statistics import Proportion, proportion
from convexport.calibration.images import ImageSet
from convexport.runtime.batches import run_in_batches
from convexport.runtime.crops import crops
from convexport.runtime.preprocess import decode
from convexport.runtime.specs import Preprocess, Runner

Scores = npt.NDArray[Any]
Progress = Callable[[int, int], None]

# Where a probability is 0, its logarithm is that of the least number.
_LEAST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class TopError:
    """How many images have a class that is not among the first few answers, of both nets."""

    reference: Proportion
    actual: Proportion

    @classmethod
    def of(cls, found: PairedAccuracy) -> TopError:
        """What those that are right leave."""
        sides = (found.reference, found.actual)
        return cls(*(proportion(each.n - each.k, each.n) for each in sides))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"reference": self.reference.to_dict(), "actual": self.actual.to_dict()}


def averaged(
    runner: Runner,
    images: ImageSet,
    spec: Preprocess,
    protocol: str,
    progress: Progress = lambda done, total: None,
    *,
    output_kind: str = "logits",
) -> Scores:
    """The logarithms of the probabilities that the crops of each image have on average.

    Args:
        runner: with one input and one output (N, classes).
        images: what to classify.
        spec: how the net takes images.
        protocol: a key of ``runtime.crops.PROTOCOLS``.
        progress: told how many images are done, and of how many.
        output_kind: ``logits``, or ``probabilities`` where the net ends in a softmax.

    Returns:
        (images, classes), float64.

    Raises:
        UsageError: E0202, there is no such protocol.
        InputError: an image cannot be used.
    """
    means = []
    for done, item in enumerate(images.items, 1):
        image = decode(item.content(), spec, name=item.name).image
        outputs = run_in_batches(runner, crops(image, spec, protocol, name=item.name))
        probabilities = outputs.astype(np.float64)
        if output_kind == "logits":
            probabilities = _softmax(probabilities)
        means.append(probabilities.mean(axis=0))
        progress(done, len(images))
    logarithms: Scores = np.log(np.maximum(means, _LEAST))
    return logarithms


def _softmax(logits: Scores) -> Scores:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Scores = exponents / exponents.sum(axis=1, keepdims=True)
    return shares
