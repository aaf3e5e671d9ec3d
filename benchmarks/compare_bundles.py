"""Latency of bundles side by side, each with the parity of the very file that was timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexport.benchmarks.latency import BenchResult, LatencyOptions, Subject, bench
from convexport.benchmarks.verify import Verification, verify
from convexport.runtime.bundle import Manifest, read_manifest
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import open_session


@dataclass(frozen=True)
class Comparison:
    """Latencies against the baseline, and what each bundle's model is worth."""

    latency: BenchResult
    parity: dict[str, Verification]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "latency": self.latency.to_dict(),
            "parity": {label: each.to_dict() for label, each in self.parity.items()},
        }


def compare_bundles(
    bundles: Sequence[Path],
    against: Path | None,
    options: LatencyOptions,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure bundles against a baseline.

    Args:
        bundles: directories, each verified before it is timed.
        against: another bundle, or an ``.onnx`` file; None takes the first bundle's own FP32
            reference.

    Raises:
        GateError: a bundle fails its parity here: then its latency says nothing.
        UsageError: E0267, two bundles have the same name.
        InputError: E0369, the baseline takes another input than the bundle.
    """
    labels = [_label(bundle) for bundle in bundles]
    if len(set(labels)) != len(labels):
        raise UsageError(
            "E0267",
            "two bundles have the same name",
            where=", ".join(labels),
            hint="a bundle is told from another by its directory's name: rename one",
        )
    parity = {}
    for bundle in bundles:
        report(f"parity of {bundle.name}")
        parity[_label(bundle)] = verify(bundle)
    manifests = {_label(bundle): read_manifest(bundle) for bundle in bundles}
    first = manifests[_label(bundles[0])]
    alone = against is None and first.runtime == "tensorrt"  # it has no engine of its FP32 graph
    subjects = [] if alone else [_baseline(bundles[0], first, against)]
    subjects += [_subject(_label(bundle), bundle, manifests[_label(bundle)]) for bundle in bundles]
    for subject in subjects:
        if subject.input_shape != subjects[0].input_shape:
            raise InputError(
                "E0369",
                f"{subject.label} takes {subject.input_shape}, "
                f"{subjects[0].label} takes {subjects[0].input_shape}",
                why="latencies of different inputs do not compare",
            )
    return Comparison(bench(subjects, options, report=report), parity)


def _label(bundle: Path) -> str:
    return bundle.resolve().name


def _subject(label: str, bundle: Path, manifest: Manifest) -> Subject:
    return Subject(
        label=label,
        model=bundle / manifest.model,
        provider=manifest.provider,
        input_name=manifest.input.name,
        input_shape=_image_shape(manifest.input.shape),
        sha256=manifest.files[manifest.model],
        runtime=manifest.runtime,
        precision=manifest.precision,
    )


def _baseline(bundle: Path, manifest: Manifest, against: Path | None) -> Subject:
    if against is not None and against.suffix != ".onnx":
        return _subject(_label(against), against, read_manifest(against))
    path = against or bundle / manifest.reference
    session = open_session(path, runtime=manifest.runtime, provider=manifest.provider)
    spec = session.inputs[0]
    return Subject(
        label=path.name if against else "fp32 reference",
        model=path,
        provider=manifest.provider,
        input_name=spec.name,
        input_shape=_image_shape(spec.shape),
        sha256=sha256_of(path),
        runtime=manifest.runtime,
    )


def _image_shape(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(int(dim) for dim in shape[1:])
