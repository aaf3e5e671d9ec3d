"""Latency of bundles side by side, each with the parity of the very file that was timed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convexport.benchmarks.batches import Batches, run_batches
from convexport.benchmarks.bundle_subjects import (
    batch_for,
    file_subject,
    is_bundle,
    label_of,
    read_bundles,
    reference_of,
    require_different,
    require_same_input,
    save_images,
    subject_of,
)
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
from convexport.runtime.errors import ConvexportError


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
        failed: what of the rest ended in an error instead.
    """

    latency: BenchResult
    parity: dict[str, Verification]
    torch_parity: Parity | None = None
    scenarios: tuple[ScenarioResult, ...] = ()
    parts: Mapping[str, Parts] = field(default_factory=dict)
    soak: Mapping[str, Soak] = field(default_factory=dict)
    batches: Mapping[str, Batches] = field(default_factory=dict)
    failed: Mapping[str, ConvexportError] = field(default_factory=dict)

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
                    ("failed", self.failed),
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
    """Measure bundles against a baseline. An error in the extras is kept, and costs nothing else.

    Args:
        bundles: directories, each verified by ``check`` before it is timed.
        against: another bundle, an ``.onnx`` file, or ``torch`` or ``torch.compile`` for the first
            bundle's net in PyTorch; None takes the first bundle's own FP32 reference.
        extras: what else to measure of the bundles.
        cache_dir: where published weights are kept, for PyTorch.

    Raises:
        GateError: a bundle or PyTorch fails its parity here: then its latency says nothing.
        UsageError: E0267, two bundles have the same name; E0272, one insists on another batch.
        InputError: E0369, the baseline takes another input; E0377, the nets differ.
    """
    judged = [*bundles, *([against] if against is not None and is_bundle(against) else [])]
    require_different([label_of(bundle) for bundle in judged])
    manifests = read_bundles(bundles)
    first = next(iter(manifests.values()))
    batch_for(manifests, options.batch)
    measured = [subject_of(bundle, manifests[label_of(bundle)]) for bundle in bundles]
    given, compared = _baseline(bundles[0], first, against, options), None
    require_same_input([*given, *measured])
    parity = _parity(judged, check, report)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if _is_torch(against):
            given = [
                torch_subject(first, str(against), cache_dir=cache_dir or place, scratch=place)
            ]
            compared = torch_parity(given[0], bundles[0], first, options.threads)
        images = save_images(first, place)
        subjects = [replace(each, data=images) for each in (*given, *measured)]
        latency = bench(subjects, options, report=report)
        more = _measure(bundles, subjects[len(given) :], options, extras, report)
    return Comparison(latency, parity, compared, **more)


def _is_torch(against: Path | None) -> bool:
    return against is not None and str(against) in (TORCH, COMPILED)


def _parity(
    bundles: Sequence[Path], check: Callable[[Path], Verification], report: Callable[[str], None]
) -> dict[str, Verification]:
    found = {}
    for bundle in bundles:
        report(f"parity of {bundle.name}")
        found[label_of(bundle)] = check(bundle)
    return found


def _baseline(
    bundle: Path, manifest: Manifest, against: Path | None, options: LatencyOptions
) -> list[Subject]:
    """What to compare with; none where that is PyTorch, which is made only after parity."""
    if against is None:
        # TensorRT has no engine of its FP32 graph.
        return [] if manifest.runtime == "tensorrt" else [reference_of(bundle, manifest)]
    if is_bundle(against):
        other = read_manifest(against)
        batch_for({label_of(against): other}, options.batch)
        return [subject_of(against, other)]
    if _is_torch(against):
        return []
    return [file_subject(against, manifest, options)]


def _measure(
    bundles: Sequence[Path],
    subjects: Sequence[Subject],
    options: LatencyOptions,
    extras: Extras,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The fields of a comparison that ``extras`` asks for."""
    scenarios: list[ScenarioResult] = []
    parts, soak, batches, failed = {}, {}, {}, {}

    @contextmanager
    def attempt(what: str) -> Iterator[None]:
        report(what)
        try:
            yield
        except ConvexportError as error:  # hours may have been measured before
            failed[what] = error

    for subject in subjects:
        for scenario in extras.scenarios:
            with attempt(f"{scenario.name} of {subject.label}"):
                scenarios += run_scenarios([subject], [scenario], options, report=report)
    for bundle in bundles if extras.parts else ():
        with attempt(f"parts of {label_of(bundle)}"):
            parts[label_of(bundle)] = measure_parts(bundle, options)
    for subject in subjects:
        if extras.soak_s is not None:
            with attempt(f"soak of {subject.label}: {extras.soak_s:g} s"):
                soak[subject.label] = run_soak(subject, options, extras.soak_s)
        if extras.batches:
            with attempt(f"batches of {subject.label}"):
                batches[subject.label] = run_batches(subject, options, extras.batches)
    found = {"parts": parts, "soak": soak, "batches": batches, "failed": failed}
    return {"scenarios": tuple(scenarios), **found}
