"""Images that are kept out of the calibration: they choose recipes, and prove budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from convexport.benchmarks.accuracy import paired_accuracy
from convexport.benchmarks.class_names import class_indices
from convexport.calibration.images import ImageSet
from convexport.runtime.batches import DEFAULT_BATCH, filled, fixed_batch, run_in_batches
from convexport.runtime.errors import InputError
from convexport.runtime.specs import Preprocess, Runner


@dataclass(frozen=True)
class HeldOut:
    """A set of images and how they become inputs.

    Attributes:
        labels: the net's own, one a class; empty where it has none.
    """

    images: ImageSet
    preprocess: Preprocess
    labels: tuple[str, ...] = ()

    def few(self, count: int) -> HeldOut:
        """At most so many of them."""
        return replace(self, images=self.images.sample(min(count, len(self.images))))

    def batches(self, fixed: int | None) -> Iterator[tuple[np.ndarray, tuple[int | None, ...]]]:
        """Inputs, float32 N×C×H×W, and the labels of those that are images.

        Args:
            fixed: the batch that a model insists on.
        """
        size = fixed or DEFAULT_BATCH
        # How many may be bad was decided when the ranges were set.
        reader = self.images.batches(self.preprocess, size, on_bad="skip", max_bad_fraction=1)
        for batch in reader:
            yield filled(batch.array, fixed), batch.labels

    def logits(self, session: Runner) -> np.ndarray:
        """What a model makes of all of them, float32 (N, classes)."""
        return self._answers(session)[0]

    def labelled(self, session: Runner) -> tuple[np.ndarray, np.ndarray | None]:
        """The same, and the class of each, int64 (N,).

        None without labels, where folders are not the net's classes, and where the model is no
        better than chance on them: then no drop would show what it loses.
        """
        logits, labels = self._answers(session)
        names, classes = self.images.class_names, logits.shape[1]
        if not names or None in labels:
            return logits, None
        known = self.labels or tuple(map(str, range(classes)))
        try:
            indices = class_indices(names, known, named=bool(self.labels))
        except InputError:
            return logits, None
        truth = np.array([indices[label] for label in labels if label is not None])
        return logits, None if paired_accuracy(logits, logits, truth).hint else truth

    def _answers(self, session: Runner) -> tuple[np.ndarray, list[int | None]]:
        logits, seen = [], list[int | None]()
        for batch, labels in self.batches(fixed_batch(session)):
            logits.append(run_in_batches(session, batch)[: len(labels)])
            seen += labels
        return np.concatenate(logits), seen
