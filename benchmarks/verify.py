"""Is the bundle still what was built, on this machine? Hashes, golden sample, parity, accuracy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.accuracy import PairedAccuracy, paired_accuracy
from convexport.benchmarks.parity import LIMIT, PARITY_IMAGES, Parity, compare, require_parity
from convexport.benchmarks.protocols import Progress, TopError, averaged, top_error
from convexport.calibration.images import ImageSet
from convexport.calibration.photographs import photographs
from convexport.runtime.batches import fixed_batch, run_in_batches
from convexport.runtime.bundle import Manifest
from convexport.runtime.crops import CENTRE, find
from convexport.runtime.engine import Engine, load
from convexport.runtime.errors import GateError, InputError, UsageError
from convexport.runtime.sessions import Session, open_session

# How far the largest logit may move. INT8 and BF16 have no such limit: their gate is signal
# against noise, as what one logit does says little where every operator rounds.
LIMITS = {"fp32": LIMIT, "fp16": 1e-2}
# Below INT8's floor noise has more than half the power of the signal. Rounding to BF16 alone left
# 30 to 48 dB on the six nets tried: below its floor something else is wrong.
LEAST_SQNR_DB = {"int8": 3.0, "bf16": 20.0}
# Below it, look at what it does to the task.
LOW_SQNR_DB = 20.0


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        golden_error: of the golden sample, relative to its largest logit.
        parity: of the model with the bundle's FP32 reference, both run here.
        parity_set: on which images.
        accuracy: against the labels of the data given; None without labels.
        accuracy_set: on which images.
        protocol: crops an image, over which accuracy and errors are averaged; parity is of the
            central one.
        top1_error: of both; None without labels.
        top5_error: the same; None without labels, and with five classes or fewer.
    """

    name: str
    model_sha256: str
    runtime: str
    golden_error: float
    parity: Parity
    parity_set: str
    accuracy: PairedAccuracy | None
    accuracy_set: str | None
    protocol: str
    top1_error: TopError | None
    top5_error: TopError | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "model_sha256": self.model_sha256,
            "runtime": self.runtime,
            "golden_error": self.golden_error,
            "parity": self.parity.to_dict(),
            "parity_set": self.parity_set,
            "accuracy": _as_json(self.accuracy),
            "accuracy_set": self.accuracy_set,
            "protocol": self.protocol,
            "top1_error": _as_json(self.top1_error),
            "top5_error": _as_json(self.top5_error),
        }


def verify(
    bundle: Path,
    data: ImageSet | None = None,
    *,
    protocol: str = CENTRE,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Check a bundle on this machine.

    Args:
        data: images to compare on, labelled for accuracy; None compares on stand-ins.
        protocol: how many crops of each image accuracy is averaged over.
        progress: told how many images are done; more crops are two more passes over them.

    Raises:
        GateError: E0500, the golden sample fails; E0561 to E0563, parity does.
        InputError: the bundle was changed, or the data's classes are not the net's.
        UsageError: E0202, there is no such protocol; E0268, there are no labels for it.
    """
    _require_labels(data, protocol)
    engine = load(bundle, self_test=False)
    golden_error = engine.self_test(bundle)
    images = data or photographs("parity", PARITY_IMAGES)
    labels = _labels(engine, images)
    reference = _reference(bundle, engine.manifest)
    expected, actual = _logits(engine, reference, images, progress)
    parity = compare(expected, actual)
    require_faithful(parity, "the bundle's model", engine.manifest.precision)
    if protocol != CENTRE:
        expected, actual = _averaged(engine, reference, images, protocol, progress)
    accuracy, top1, top5 = _accuracies(expected, actual, labels)
    return Verification(
        name=engine.manifest.name,
        model_sha256=engine.manifest.files[engine.manifest.model],
        runtime=engine.runner.runtime,
        golden_error=golden_error,
        parity=parity,
        parity_set=images.description,
        accuracy=accuracy,
        accuracy_set=None if accuracy is None else images.description,
        protocol=protocol,
        top1_error=top1,
        top5_error=top5,
    )


def _reference(bundle: Path, manifest: Manifest) -> Session:
    path = bundle / manifest.reference
    if manifest.runtime == "tensorrt":  # an engine is built of the model alone
        return open_session(path, runtime="onnxruntime", provider="CPUExecutionProvider")
    return open_session(path, runtime=manifest.runtime, provider=manifest.provider)


def require_faithful(parity: Parity, stage: str, precision: str) -> None:
    """Hold an artefact to what its precision is held to: a share of the largest logit, or noise.

    Raises:
        GateError: E0561 to E0563, as ``require_parity``; E0564, as ``require_signal``.
    """
    if precision in LIMITS:
        require_parity(parity, stage, LIMITS[precision])
    else:
        require_signal(parity, stage, precision)


def require_signal(parity: Parity, stage: str, precision: str = "int8") -> None:
    """Let nothing pass whose output has more noise than rounding to that precision explains.

    Raises:
        GateError: E0562 or E0563, as ``require_parity``; E0564, too much noise.
    """
    require_parity(parity, stage, sys.float_info.max)
    least = LEAST_SQNR_DB[precision]
    if parity.sqnr_db is not None and parity.sqnr_db < least:
        calibrate = (
            "calibrate with images like those that the net will see (--calib DIR), "
            "try --method minmax, or "
        )
        raise GateError(
            "E0564",
            f"{stage}: {parity.sqnr_db:.1f} dB of signal to noise, {least:g} are needed",
            where=f"top-1 agreement {parity.top1} with the reference",
            why=f"rounding to {precision.upper()} takes too much of what comes out",
            hint=f"{calibrate if precision == 'int8' else ''}build --fp32",
        )


def _logits(
    engine: Engine, reference: Session, images: ImageSet, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    size = fixed_batch(engine.runner) or 8
    expected, actual, done = [], [], 0
    for batch in images.batches(engine.manifest.preprocess, size, on_bad="fail"):
        expected.append(run_in_batches(reference, batch.array))
        actual.append(run_in_batches(engine.runner, batch.array))
        done += len(batch.array)
        progress(done, len(images))
    return np.concatenate(expected), np.concatenate(actual)


def _averaged(
    engine: Engine, reference: Session, images: ImageSet, protocol: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    kind, spec = engine.manifest.output_kind, engine.manifest.preprocess
    runners = (reference, engine.runner)
    expected, actual = (
        averaged(runner, images, spec, protocol, progress, output_kind=kind) for runner in runners
    )
    return expected, actual


def _accuracies(
    expected: np.ndarray, actual: np.ndarray, labels: np.ndarray | None
) -> tuple[PairedAccuracy | None, TopError | None, TopError | None]:
    if labels is None:
        return None, None, None
    top1, top5 = (top_error(expected, actual, labels, count) for count in (1, 5))
    return paired_accuracy(expected, actual, labels), top1, top5


def _require_labels(data: ImageSet | None, protocol: str) -> None:
    """Several crops are for accuracy alone."""
    if find(protocol).count > 1 and not (data and data.class_names):
        raise UsageError(
            "E0268",
            f"{protocol} crops an image are for labelled images",
            why="only accuracy is averaged over them",
            hint="give --data DIR with two folders of classes or more, or leave --protocol out",
        )


def _as_json(part: PairedAccuracy | TopError | None) -> Any:
    return "not measured" if part is None else part.to_dict()


def _labels(engine: Engine, images: ImageSet) -> np.ndarray | None:
    """The images' labels as indices of the net's classes: by name where the names agree."""
    if not images.class_names:
        return None
    mapping = _class_indices(images.class_names, engine)
    return np.array([mapping[item.label] for item in images.items if item.label is not None])


def _class_indices(names: tuple[str, ...], engine: Engine) -> list[int]:
    """Which output each class name of the data stands for.

    By the net's labels where all are among them; as numbers where all are numbers of classes; by
    their order only where the net has no labels and there is one name a class.
    """
    known = {label: index for index, label in enumerate(engine.labels)}
    numbers = {str(index): index for index in range(engine.manifest.classes)}
    for table in (known, numbers):
        if all(name in table for name in names):
            return [table[name] for name in names]
    strangers = [name for name in names if name not in known]
    if engine.has_labels or len(names) != engine.manifest.classes:
        raise InputError(
            "E0368",
            f"the data's {len(names)} classes do not fit the net's {engine.manifest.classes}",
            where=f"not among the net's labels: {', '.join(strangers[:5])}",
            why="there is no telling which class is which",
            hint="name the folders after the net's labels, or after the classes' numbers",
        )
    return list(range(len(names)))
