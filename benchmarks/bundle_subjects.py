"""Bundles, and what they are compared with, as subjects of one benchmark.

They are told apart by name, are of one net, take the same input at one batch, and are fed the same
images. What does not fit is refused here, before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convexport.benchmarks.loading import hash_of
from convexport.benchmarks.meter import LatencyOptions
from convexport.benchmarks.parity import PARITY_IMAGES
from convexport.benchmarks.recording import Subject
from convexport.benchmarks.torch_session import COMPILED, TORCH
from convexport.benchmarks.workers import ask, environment
from convexport.calibration.photographs import photographs
from convexport.runtime.bundle import Manifest, read_manifest
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.specs import TensorSpec


def label_of(bundle: Path) -> str:
    """What a bundle is called: its directory's name."""
    return bundle.resolve().name


def is_bundle(against: Path) -> bool:
    """Whether a baseline is a bundle, not a model file or PyTorch."""
    return against.suffix != ".onnx" and str(against) not in (TORCH, COMPILED)


def require_different(labels: Sequence[str]) -> None:
    """Refuse bundles that could not be told apart.

    Raises:
        UsageError: E0267, two have the same name.
    """
    if len(set(labels)) != len(labels):
        raise UsageError(
            "E0267",
            "two bundles have the same name",
            where=", ".join(labels),
            hint="a bundle is told from another by its directory's name: rename one",
        )


def read_bundles(bundles: Sequence[Path]) -> dict[str, Manifest]:
    """The manifests of bundles to compare, by label.

    Raises:
        InputError: as ``read_manifest``; E0377, they are of different nets.
        UsageError: E0267, two have the same name.
    """
    require_different([label_of(bundle) for bundle in bundles])
    found = {label_of(bundle): read_manifest(bundle) for bundle in bundles}
    (first, one), *others = found.items()
    for label, manifest in others:
        if manifest.name != one.name:
            raise InputError(
                "E0377",
                f"{first} and {label} are of different nets",
                where=f"{one.name} and {manifest.name}",
                why="their accuracies do not compare, and a report takes one net",
                hint="measure one net at a time, or give the other one as --against",
            )
    return found


def batch_for(manifests: Mapping[str, Manifest], wanted: int | None) -> int:
    """The batch to measure at: ``wanted``; None is the one that a bundle insists on, or else 1.

    Raises:
        UsageError: E0272, a bundle insists on another.
    """
    fixed = {label: each.input.shape[0] for label, each in manifests.items()}
    sizes = {label: size for label, size in fixed.items() if isinstance(size, int)}
    batch = next(iter(sizes.values()), 1) if wanted is None else wanted
    for label, size in sizes.items():
        _require_batch(label, size, batch)
    return batch


def subject_of(bundle: Path, manifest: Manifest) -> Subject:
    """A bundle's model."""
    return Subject(
        label=label_of(bundle),
        model=bundle / manifest.model,
        provider=manifest.provider,
        input_name=manifest.input.name,
        input_shape=_image_shape(label_of(bundle), [manifest.input]),
        sha256=manifest.files[manifest.model],
        runtime=manifest.runtime,
        precision=manifest.precision,
    )


def reference_of(bundle: Path, manifest: Manifest) -> Subject:
    """A bundle's own FP32 graph, of the same input."""
    return replace(
        subject_of(bundle, manifest),
        label="fp32 reference",
        model=bundle / manifest.reference,
        sha256=manifest.files[manifest.reference],
        precision=Subject.precision,
    )


def file_subject(path: Path, manifest: Manifest, options: LatencyOptions) -> Subject:
    """An ``.onnx`` file for the runtime of a bundle. A child opens it: nobody has checked it.

    Raises:
        InputError: E0303 or E0362, it cannot be loaded or read; E0369, it takes anything but one
            batch of images.
        MachineError: E0410 or E0411, loading it crashed or hung.
        UsageError: E0272, it insists on another batch.
    """
    subject = Subject(
        label=path.name,
        model=path,
        provider=manifest.provider,
        input_name="",
        input_shape=(),
        sha256=hash_of(path),
        runtime=manifest.runtime,
    )
    told = ask("inputs", [subject], options, environment()[0]).value["inputs"]
    inputs = [TensorSpec.from_dict(each) for each in told]
    shape = _image_shape(path.name, inputs)
    size = inputs[0].shape[0]
    if isinstance(size, int):
        _require_batch(path.name, size, options.batch)
    return replace(subject, input_name=inputs[0].name, input_shape=shape)


def require_same_input(subjects: Sequence[Subject]) -> None:
    """Refuse images of different sizes.

    Raises:
        InputError: E0369.
    """
    for subject in subjects:
        if subject.input_shape != subjects[0].input_shape:
            raise InputError(
                "E0369",
                f"{subject.label} takes {subject.input_shape}, "
                f"{subjects[0].label} takes {subjects[0].input_shape}",
                why="latencies of different inputs do not compare",
            )


def save_images(manifest: Manifest, folder: Path) -> Path:
    """What to feed, as a build does: the photographs that parity was measured on, preprocessed."""
    images = photographs("parity", PARITY_IMAGES)
    batches = images.batches(manifest.preprocess, PARITY_IMAGES, on_bad="fail")
    path = folder / "parity_inputs.npy"
    np.save(path, np.concatenate([each.array for each in batches]))
    return path


def _require_batch(label: str, fixed: int, batch: int) -> None:
    if fixed != batch:
        raise UsageError(
            "E0272",
            f"{label} takes {fixed} images a call, not {batch}",
            why="its batch was fixed when it was built",
            hint=f"--batch {fixed}, or leave --batch out",
        )


def _image_shape(label: str, inputs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """Of one image."""
    shape = inputs[0].shape if len(inputs) == 1 else ()
    sizes = tuple(dim for dim in shape[1:] if isinstance(dim, int))
    if len(shape) != 4 or len(sizes) != 3 or not inputs[0].dtype.startswith("float"):
        raise InputError(
            "E0369",
            f"{label} does not take one float batch of images N×C×H×W with fixed C, H and W",
            where="; ".join(map(str, inputs)) or "no inputs",
            why="latencies of different inputs do not compare",
            hint="fix the shape with onnxruntime.tools.make_dynamic_shape_fixed",
        )
    return sizes
