"""Images that are kept out of the calibration: they choose recipes, and prove budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convexport.calibration.images import ImageSet
from convexport.runtime.batches import DEFAULT_BATCH, filled, fixed_batch, run_in_batches
from convexport.runtime.specs import Preprocess, Runner


@dataclass(frozen=True)
class HeldOut:
    """A set of images and how they become inputs."""

    images: ImageSet
    preprocess: Preprocess

    def few(self, count: int) -> HeldOut:
        """At most so many of them."""
        return HeldOut(self.images.sample(min(count, len(self.images))), self.preprocess)

    def batches(self, fixed: int | None) -> Iterator[tuple[np.ndarray, int]]:
        """Inputs, float32 N×C×H×W, and how many of them are images.

        Args:
            fixed: the batch that a model insists on.
        """
        size = fixed or DEFAULT_BATCH
        # How many may be bad was decided when the ranges were set.
        reader = self.images.batches(self.preprocess, size, on_bad="skip", max_bad_fraction=1)
        for batch in reader:
            yield filled(batch.array, fixed), len(batch.array)

    def logits(self, session: Runner) -> np.ndarray:
        """What a model makes of all of them, float32 (N, classes)."""
        batches = self.batches(fixed_batch(session))
        return np.concatenate([run_in_batches(session, batch)[:count] for batch, count in batches])
