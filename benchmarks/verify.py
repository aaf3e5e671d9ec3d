"""Is the bundle still what was built, on this machine? Hashes, golden sample, parity, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import PairedAccuracy, paired_accuracy
from convexport.benchmarks.parity import LIMIT, Parity, compare, require_parity
from convexport.calibration.images import ImageSet
from convexport.calibration.photographs import photographs
from convexport.runtime.batches import fixed_batch, run_in_batches
from convexport.runtime.engine import Engine, load
from convexport.runtime.errors import InputError
from convexport.runtime.ort_session import OrtSession

PARITY_IMAGES = 64

# An INT8 model that moves the logits by more than the largest of them computes noise.
LIMITS = {"fp32": LIMIT, "fp16": 1e-2, "int8": 1.0}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        golden_error: of the golden sample, relative to its largest logit.
        parity: of the model with the bundle's FP32 reference, both run here.
        parity_set: on which images.
        accuracy: against the labels of the data given; None without labels.
        accuracy_set: on which images.
    """

    name: str
    model_sha256: str
    runtime: str
    golden_error: float
    parity: Parity
    parity_set: str
    accuracy: PairedAccuracy | None
    accuracy_set: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "model_sha256": self.model_sha256,
            "runtime": self.runtime,
            "golden_error": self.golden_error,
            "parity": self.parity.to_dict(),
            "parity_set": self.parity_set,
            "accuracy": "not measured" if self.accuracy is None else self.accuracy.to_dict(),
            "accuracy_set": self.accuracy_set,
        }


def verify(
    bundle: Path,
    data: ImageSet | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Check a bundle on this machine.

    Args:
        data: images to compare on, labelled for accuracy; None compares on stand-ins.

    Raises:
        GateError: E0500, the golden sample fails; E0561 to E0563, parity does.
        InputError: the bundle was changed, or the data's classes are not the net's.
    """
    engine = load(bundle, self_test=False)
    golden_error = engine.self_test(bundle)
    images = data or photographs("parity", PARITY_IMAGES)
    labels = _labels(engine, images)
    reference = OrtSession(bundle / engine.manifest.reference, provider=engine.manifest.provider)
    expected, actual = _logits(engine, reference, images, progress)
    parity = compare(expected, actual)
    require_parity(parity, "the bundle's model", LIMITS[engine.manifest.precision])
    accuracy = None if labels is None else paired_accuracy(expected, actual, labels)
    return Verification(
        name=engine.manifest.name,
        model_sha256=engine.manifest.files[engine.manifest.model],
        runtime=reference.runtime,
        golden_error=golden_error,
        parity=parity,
        parity_set=images.description,
        accuracy=accuracy,
        accuracy_set=None if accuracy is None else images.description,
    )


def _logits(
    engine: Engine, reference: OrtSession, images: ImageSet, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    size = fixed_batch(engine.runner) or 8
    expected, actual, done = [], [], 0
    for batch in images.batches(engine.manifest.preprocess, size, on_bad="fail"):
        expected.append(run_in_batches(reference, batch.array))
        actual.append(run_in_batches(engine.runner, batch.array))
        done += len(batch.array)
        progress(done, len(images))
    return np.concatenate(expected), np.concatenate(actual)


def _labels(engine: Engine, images: ImageSet) -> np.ndarray | None:
    """The images' labels as indices of the net's classes: by name where the names agree."""
    if not images.class_names:
        return None
    classes = engine.manifest.classes
    known = {label: index for index, label in enumerate(engine.labels)}
    if all(name in known for name in images.class_names):
        mapping = [known[name] for name in images.class_names]
    elif len(images.class_names) == classes:
        mapping = list(range(classes))
    else:
        raise InputError(
            "E0368",
            f"the data has {len(images.class_names)} classes, the net {classes}",
            where=f"classes such as {', '.join(images.class_names[:3])}",
            why="there is no telling which class is which",
            hint="name the folders after the net's labels, or give one folder a class",
        )
    return np.array([mapping[item.label] for item in images.items if item.label is not None])
