"""Latency of bundles side by side, each with the parity of the very file that was timed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convexport.benchmarks.batches import Batches, run_batches
from convexport.benchmarks.latency import BenchResult, LatencyOptions, Subject, bench
from convexport.benchmarks.parity import Parity
from convexport.benchmarks.parts import Parts, measure_parts
from convexport.benchmarks.scenario_runs import run_scenarios
from convexport.benchmarks.scenarios import Scenario, ScenarioResult
from convexport.benchmarks.soak import Soak, run_soak
from convexport.benchmarks.torch_baseline import torch_parity, torch_subject
from convexport.benchmarks.torch_session import COMPILED, TORCH
from convexport.benchmarks.verify import Verification, verify
from convexport.runtime.bundle import Manifest, read_manifest
from convexport.runtime.errors import InputError, UsageError
from convexport.runtime.files import sha256_of
from convexport.runtime.sessions import open_session


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What to measure beside the latencies; each of the bundles alone.

    Attributes:
        scenarios: of MLPerf's LoadGen.
        parts: decoding, preprocessing, computing and answering, apart.
        soak_s: one long run of so many seconds; None for none.
        batches: batch against throughput.
    """

    scenarios: tuple[Scenario, ...] = ()
    parts: bool = False
    soak_s: float | None = None
    batches: tuple[int, ...] = ()


NOTHING = Extras()
# Of what ``to_dict`` gives: another first number means another meaning of a member.
BENCH_VERSION = "1.0"


@dataclass(frozen=True)
class Comparison:
    """Latencies against the baseline, and what each bundle's model is worth.

    Attributes:
        latency: of all, side by side.
        parity: of the bundles, the baseline among them where it is one.
        torch_parity: of PyTorch with the first bundle's reference, where it is the baseline.
        scenarios: a result a bundle and scenario.
        parts: by label.
        soak: by label.
        batches: by label.
    """

    latency: BenchResult
    parity: dict[str, Verification]
    torch_parity: Parity | None = None
    scenarios: tuple[ScenarioResult, ...] = ()
    parts: Mapping[str, Parts] = field(default_factory=dict)
    soak: Mapping[str, Soak] = field(default_factory=dict)
    batches: Mapping[str, Batches] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema_version": BENCH_VERSION,
            "latency": self.latency.to_dict(),
            "parity": {label: each.to_dict() for label, each in self.parity.items()},
            "torch_parity": self.torch_parity and self.torch_parity.to_dict(),
            "scenarios": [each.to_dict() for each in self.scenarios],
            **{
                name: {label: each.to_dict() for label, each in found.items()}
                for name, found in (
                    ("parts", self.parts),
                    ("soak", self.soak),
                    ("batches", self.batches),
                )
            },
        }


def compare_bundles(
    bundles: Sequence[Path],
    against: Path | None,
    options: LatencyOptions,
    extras: Extras = NOTHING,
    *,
    cache_dir: Path | None = None,
    check: Callable[[Path], Verification] = verify,
    report: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure bundles against a baseline.

    Args:
        bundles: directories, each verified before it is timed.
        against: another bundle, an ``.onnx`` file, or ``torch`` or ``torch.compile`` for the first
            bundle's net in PyTorch; None takes the first bundle's own FP32 reference.
        extras: what else to measure of the bundles.
        cache_dir: where published weights are kept, for PyTorch.
        check: verifies a bundle before it is timed.

    Raises:
        GateError: a bundle or PyTorch fails its parity here: then its latency says nothing.
        UsageError: E0267, two bundles have the same name.
        InputError: E0369, the baseline takes another input than the bundle.
    """
    labels = [_label(bundle) for bundle in bundles]
    _require_different(labels)
    baseline = [against] if against is not None and _is_bundle(against) else []
    parity = {}
    for bundle in (*bundles, *baseline):
        report(f"parity of {bundle.name}")
        parity[_label(bundle)] = check(bundle)
    manifests = {_label(bundle): read_manifest(bundle) for bundle in bundles}
    first = manifests[labels[0]]
    measured = [_subject(_label(bundle), bundle, manifests[_label(bundle)]) for bundle in bundles]
    with tempfile.TemporaryDirectory() as scratch:
        places = (cache_dir or Path(scratch), Path(scratch))
        subjects, compared = _baselines(bundles[0], first, against, options, places)
        _require_same_input([*subjects, *measured])
        latency = bench([*subjects, *measured], options, report=report)
    return Comparison(
        latency, parity, compared, **_measure(bundles, measured, options, extras, report)
    )


def _baselines(
    bundle: Path,
    manifest: Manifest,
    against: Path | None,
    options: LatencyOptions,
    places: tuple[Path, Path],
) -> tuple[list[Subject], Parity | None]:
    """What to compare with, and how far PyTorch is from the reference where that is it."""
    if against is not None and str(against) in (TORCH, COMPILED):
        cache, scratch = places
        subject = torch_subject(bundle, manifest, str(against), cache_dir=cache, scratch=scratch)
        return [subject], torch_parity(subject, bundle, manifest, options.threads)
    if against is None and manifest.runtime == "tensorrt":
        return [], None  # it has no engine of its FP32 graph
    return [_baseline(bundle, manifest, against)], None


def _measure(
    bundles: Sequence[Path],
    subjects: Sequence[Subject],
    options: LatencyOptions,
    extras: Extras,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The fields of a comparison that ``extras`` asks for."""
    scenarios = run_scenarios(subjects, extras.scenarios, options, report=report)
    parts = {}
    if extras.parts:
        for bundle in bundles:
            report(f"parts of {bundle.name}")
            parts[_label(bundle)] = measure_parts(bundle, options)
    soak, batches = {}, {}
    for subject in subjects:
        if extras.soak_s is not None:
            report(f"soak of {subject.label}: {extras.soak_s:g} s")
            soak[subject.label] = run_soak(subject, options, extras.soak_s)
        if extras.batches:
            report(f"batches of {subject.label}")
            batches[subject.label] = run_batches(subject, options, extras.batches)
    return {"scenarios": tuple(scenarios), "parts": parts, "soak": soak, "batches": batches}


def _require_different(labels: Sequence[str]) -> None:
    if len(set(labels)) != len(labels):
        raise UsageError(
            "E0267",
            "two bundles have the same name",
            where=", ".join(labels),
            hint="a bundle is told from another by its directory's name: rename one",
        )


def _require_same_input(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        if subject.input_shape != subjects[0].input_shape:
            raise InputError(
                "E0369",
                f"{subject.label} takes {subject.input_shape}, "
                f"{subjects[0].label} takes {subjects[0].input_shape}",
                why="latencies of different inputs do not compare",
            )


def _is_bundle(against: Path) -> bool:
    return against.suffix != ".onnx" and str(against) not in (TORCH, COMPILED)


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
    if against is not None and _is_bundle(against):
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
