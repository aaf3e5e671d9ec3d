"""The build: the stages in order, cached, and nothing else.

A stage's code is imported when the stage is run: one that is found in the cache needs neither
onnx nor PyTorch's exporter, and that is most of a second build's time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convexport.exporter import measure
from convexport.exporter.artifacts import (
    CALIBRATION,
    EQUALIZED,
    EXPORTED,
    HALF,
    QUANTIZED,
    RANGES,
    SIMPLIFIED,
)
from convexport.exporter.bundle_writer import REPORT, Parts, existing_bundle, write_bundle
from convexport.exporter.cache import StageCache, StageResult, stage_key
from convexport.exporter.data import Images, choose_images
from convexport.exporter.events import Events
from convexport.exporter.findings import manifest_facts, notes_of, report_of, version_of, versions
from convexport.exporter.options import BuildOptions
from convexport.exporter.source import Source
from convexport.exporter.sources import find_source
from convexport.exporter.targets import Target, find_target, require_precision
from convexport.runtime.bundle import Manifest
from convexport.runtime.files import read_json
from convexport.runtime.ort_session import require_provider


@dataclass(frozen=True)
class BuildResult:
    """A bundle and how it came about.

    Attributes:
        bundle: its directory.
        report: what was measured, now or when the bundle was built.
        stages: in order; empty where the bundle stood there already.
    """

    bundle: Path
    manifest: Manifest
    report: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[StageResult, ...] = ()


def build(
    model: str, options: BuildOptions | None = None, *, events: Events | None = None
) -> BuildResult:
    """Build a bundle for a model and a target.

    Args:
        model: a name of the zoo, ``package.module:factory``, or an ``.onnx`` file.

    Raises:
        ConvexportError: its class says what kind of thing went wrong; nothing half-written stays.
    """
    options, events = options or BuildOptions(), events or Events()
    target = find_target(options.target)
    require_precision(target, options.precision)
    require_provider(target.provider)
    source = find_source(model, options, events.note)
    images = choose_images(source, options)
    for note in (*source.notes, *images.notes):
        events.note(note)
    output = options.output or Path(f"{source.name}-{options.precision}-{target.name}")
    key = stage_key("bundle", _request(source, images, target, options))
    manifest = existing_bundle(output, key, force=options.force)
    if manifest is not None:
        return BuildResult(output, manifest, read_json(output / REPORT))
    cache = StageCache(options.cache_dir, options.lock_timeout, events.note)
    return _Build(source, images, target, options, cache, events).run(output, key)


@dataclass(frozen=True)
class _Build:
    """One build's inputs, so that each stage below can be read on its own."""

    source: Source
    images: Images
    target: Target
    options: BuildOptions
    cache: StageCache
    events: Events

    def run(self, output: Path, key: str) -> BuildResult:
        reference = self._reference()
        exported = self._export(reference)
        simplified = self._simplify(exported, reference)
        done = [reference, exported, simplified]
        fp32 = model = simplified.directory / SIMPLIFIED
        if self.images.calibration is not None:
            half = self.options.precision == "fp16"
            done += (self._half if half else self._int8)(simplified, reference)
            model = done[-1].directory / (HALF if half else QUANTIZED)
        done += self._measure(model, fp32, reference)
        facts = {result.name: dict(result.facts) for result in done}
        notes = [*self.source.notes, *self.images.notes]
        notes += [note for result in done for note in notes_of(result)]
        parts = Parts(
            model=model,
            reference=fp32,
            calibration=None if model is fp32 else model.parent / CALIBRATION,
            sample=np.load(reference.directory / "parity_inputs.npy", mmap_mode="r")[0],
            facts=manifest_facts(facts, notes),
            report=report_of(facts, done, self.source, notes),
            build_key=key,
        )
        manifest = write_bundle(output, parts, self.source, self.target, self.options.precision)
        return BuildResult(output, manifest, parts.report, tuple(done))

    def _reference(self) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.stages import reference_stage

            return reference_stage(self.source, self.images, out, self.events.advance)

        inputs = {
            "source": self.source.identity,
            "parity": self.images.parity.fingerprint(),
            "evaluation": self.images.evaluation and self.images.evaluation.fingerprint(),
            "preprocess": self.source.preprocess.to_dict(),
            "torch": version_of("torch"),
        }
        return self._stage("reference", inputs, produce)

    def _export(self, reference: StageResult) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.stages import export_stage

            return export_stage(self.source, self.target, reference.directory, metadata, out)

        metadata = {
            "name": self.source.name,
            "weights": str(self.source.weights["kind"]),
            "weights_sha256": str(self.source.weights["sha256"]),
            "preprocess": json.dumps(self.source.preprocess.to_dict(), sort_keys=True),
        }
        inputs = {
            "source": self.source.identity,
            "reference": reference.key,
            "target": asdict(self.target),
            "metadata": metadata,
            "versions": versions(),
        }
        return self._stage("export", inputs, produce)

    def _simplify(self, exported: StageResult, reference: StageResult) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.stages import simplify_stage

            return simplify_stage(
                exported.directory / EXPORTED, reference.directory, self.target, out
            )

        return self._stage("simplify", {"from": exported.key}, produce)

    def _int8(self, simplified: StageResult, reference: StageResult) -> list[StageResult]:
        ranges = self._calibrate(simplified)
        done, graphs = [ranges], {False: (simplified.directory / SIMPLIFIED, ranges)}
        if "equalization" in self.options.repair:
            even = self._equalize(simplified, ranges, reference)
            done.append(even)
            if even.facts["pairs"]:
                graphs[True] = (even.directory / EQUALIZED, even)
        files = {each: (model, seen.directory / RANGES) for each, (model, seen) in graphs.items()}
        return [*done, self._quantize(files, done, reference)]

    def _calibration(self) -> Any:
        from convexport.exporter.int8 import Calibration

        return Calibration(
            images=self.images.calibration,  # type: ignore[arg-type]  # INT8 has them
            held_out=self.images.held_out,  # type: ignore[arg-type]
            preprocess=self.source.preprocess,
            target=self.target,
            notes=self.images.notes,
            progress=self.events.advance,
            report=self.events.detail,
            every=self.options.precision == "fp16",
        )

    def _calibrate(self, simplified: StageResult) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.int8 import calibrate_stage

            return calibrate_stage(simplified.directory / SIMPLIFIED, self._calibration(), out)

        images = self.images.calibration
        inputs = {
            "from": simplified.key,
            "images": images and images.fingerprint(),
            "notes": self.images.notes,
            "target": asdict(self.target),
            "precision": self.options.precision,
        }
        return self._stage("calibrate", inputs, produce)

    def _equalize(
        self, simplified: StageResult, ranges: StageResult, reference: StageResult
    ) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.int8 import equalize_stage

            files = (simplified.directory / SIMPLIFIED, ranges.directory / RANGES)
            return equalize_stage(*files, reference.directory, self._calibration(), out)

        return self._stage("equalize", {"from": ranges.key}, produce)

    def _quantize(
        self,
        graphs: Mapping[bool, tuple[Path, Path]],
        done: list[StageResult],
        reference: StageResult,
    ) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.int8 import quantize_stage

            choice = (options.method, options.repair, options.max_drop)
            request, facts = self._calibration(), done[0].facts
            return quantize_stage(graphs, facts, reference.directory, request, choice, out)

        options, held_out = self.options, self.images.held_out
        inputs = {
            "from": done[-1].key,
            "reference": reference.key,
            "held_out": held_out and held_out.fingerprint(),
            "choice": [asdict(options.method), options.repair, options.max_drop],
        }
        return self._stage("quantize", inputs, produce)

    def _half(self, simplified: StageResult, reference: StageResult) -> list[StageResult]:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.half_stage import half_stage

            model = simplified.directory / SIMPLIFIED
            return half_stage(model, ranges.facts, reference.directory, self.target, keep, out)

        ranges, keep = self._calibrate(simplified), self.options.keep_fp32
        return [ranges, self._stage("half", {"from": ranges.key, "keep_fp32": keep}, produce)]

    def _measure(self, model: Path, fp32: Path, reference: StageResult) -> Iterator[StageResult]:
        def accuracy(out: Path) -> Mapping[str, Any]:
            return measure.accuracy_stage(model, reference.directory, self.target)

        def latency(out: Path) -> Mapping[str, Any]:
            return measure.latency_stage(files, reference.directory, self.target, seconds, tell)

        files: dict[str, Path] = {"fp32": fp32, self.options.precision: model}
        seconds, tell = self.options.bench_seconds, self.events.detail
        inputs = {"model": model.parent.name, "target": asdict(self.target)}
        if self.images.evaluation is not None:
            yield self._stage("accuracy", {**inputs, "reference": reference.key}, accuracy)
        if seconds:
            inputs["conditions"] = measure.measuring_conditions(seconds)
            yield self._stage("latency", inputs, latency, fresh=self.options.force)

    def _stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        produce: Callable[[Path], Mapping[str, Any]],
        *,
        fresh: bool = False,
    ) -> StageResult:
        self.events.start(name)
        result = self.cache.stage(name, inputs, produce, fresh=fresh)
        self.events.finish(result)
        for note in notes_of(result):
            self.events.note(note)
        return result


def _request(
    source: Source, images: Images, target: Target, options: BuildOptions
) -> dict[str, Any]:
    return {
        "source": source.identity,
        "labels": list(source.labels),
        "preprocess": source.preprocess.to_dict(),
        "parity": images.parity.fingerprint(),
        "calibration": images.calibration and images.calibration.fingerprint(),
        "held_out": images.held_out and images.held_out.fingerprint(),
        "choice": [asdict(options.method), options.repair, options.max_drop, options.keep_fp32],
        "target": asdict(target),
        "precision": options.precision,
        "bench": options.bench_seconds,
        "versions": versions(),
    }
