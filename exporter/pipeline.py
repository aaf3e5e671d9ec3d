"""The build: the stages in order, cached, and nothing else.

A stage's code is imported when the stage is run: one that is found in the cache needs neither
onnx nor PyTorch's exporter, and that is most of a second build's time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convexport.benchmarks.report.document import REPORT, SCHEMA_VERSION
from convexport.exporter import measure
from convexport.exporter.artifacts import (
    ALL_INT8,
    CALIBRATION,
    EXPORTED,
    FLAVOURED,
    HALF,
    QUANTIZED,
    SIMPLIFIED,
)
from convexport.exporter.bundle_writer import Parts, existing_bundle, write_bundle
from convexport.exporter.cache import StageCache, StageResult, stage_key
from convexport.exporter.data import Images, choose_images
from convexport.exporter.delivery import deliver, engine_stands, machine_of, require_delivery
from convexport.exporter.events import Events
from convexport.exporter.findings import (
    manifest_facts,
    notes_of,
    report_of,
    version_of,
    versions,
)
from convexport.exporter.measure import Entrant
from convexport.exporter.options import BuildOptions, Precision
from convexport.exporter.reduced_precision import flavoured, half_stages, int8_stages, loss
from convexport.exporter.results import BuildResult, Made
from convexport.exporter.source import Source
from convexport.exporter.sources import find_source
from convexport.exporter.targets import (
    AUTO,
    TENSORRT_GRAPHS,
    Target,
    find_target,
    graph_of,
    require_precision,
)
from convexport.runtime.cpu import cpu_flags, integer_kernels
from convexport.runtime.files import read_json
from convexport.runtime.sessions import require_runtime


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
    if options.target == AUTO:
        from convexport.exporter.auto import build_auto

        return build_auto(model, options, events)
    target, precision = find_target(options.target), options.precision or "fp32"
    require_precision(target, precision)
    if target.tensorrt:
        require_delivery(target, options)
    else:
        require_runtime(target.runtime, target.provider)
    source = find_source(model, options, events.note)
    images = choose_images(source, options)
    for note in (*source.notes, *images.notes):
        events.note(note)
    output = options.output or Path(f"{source.name}-{precision}-{target.name}")
    request = common_request(source, images, options)
    request.update(target=asdict(target), precision=precision, runtime=version_of(target.runtime))
    request.update(tensorrt=options.tensorrt and asdict(options.tensorrt))
    request.update(machine=machine_of(target))
    key = stage_key("bundle", request)
    manifest = existing_bundle(output, key, force=options.force)
    if manifest is not None and engine_stands(target, output / manifest.model):
        return BuildResult(output, manifest, read_json(output / REPORT))
    cache = StageCache(options.cache_dir, options.lock_timeout, events.note)
    return Build(source, images, target, precision, options, cache, events).run(output, key)


@dataclass(frozen=True)
class Build:
    """One build's inputs, so that each stage below can be read on its own."""

    source: Source
    images: Images
    target: Target
    precision: Precision
    options: BuildOptions
    cache: StageCache
    events: Events

    @property
    def graph(self) -> Target:
        """The target whose graphs the stages make, in common with others that run them."""
        return graph_of(self.target)

    def run(self, output: Path, key: str) -> BuildResult:
        """All stages, and the bundle."""
        made = self.make()
        if self.target.tensorrt:
            return deliver(self, made, output, key)
        if self.options.bench_seconds:
            fp32 = Entrant(made.fp32, self.target, "fp32")
            entrants: dict[str, Entrant] = {"fp32": fp32, self.precision: made.entrant}
            everything = made.entrant.model.parent / ALL_INT8
            if everything.is_file():
                entrants["int8, all layers"] = Entrant(everything, self.target, "int8")
            made = self.latency(entrants, made)
        return self.write(made, output, key)

    def make(self) -> Made:
        """The stages up to accuracy."""
        reference = self._reference()
        exported = self._export(reference)
        simplified = self._simplify(exported, reference)
        done = [reference, exported, simplified]
        fp32 = model = simplified.directory / SIMPLIFIED
        if self.images.calibration is not None:
            half = self.precision == "fp16"
            done += (half_stages if half else int8_stages)(self, simplified, reference)
            model = done[-1].directory / (HALF if half else QUANTIZED)
        entrant = Entrant(model, self.target, self.precision)
        if self.target.tensorrt:
            done.append(flavoured(self, model, fp32, done[-1], reference))
            entrant = replace(entrant, model=done[-1].directory / FLAVOURED, target=TENSORRT_GRAPHS)
        done += self.check(entrant, fp32, reference)
        return Made(tuple(done), entrant, fp32)

    def latency(self, entrants: Mapping[str, Entrant], made: Made) -> Made:
        """The same with latencies, side by side; the first entrant is the baseline."""

        def produce(out: Path) -> Mapping[str, Any]:
            return measure.latency_stage(entrants, images, seconds, self.events.detail)

        seconds, images = self.options.bench_seconds, made.done[0].directory
        inputs = {
            "entrants": {label: entrant.identity() for label, entrant in entrants.items()},
            "conditions": measure.measuring_conditions(seconds),
        }
        latency = self.stage("latency", inputs, produce, fresh=self.options.force)
        return replace(made, done=(*made.done, latency))

    def write(self, made: Made, output: Path, key: str, **more: Any) -> BuildResult:
        """The bundle; ``more`` goes into its report."""
        parts = self.parts(made, key, **more)
        manifest = write_bundle(output, parts, self.source, self.target, self.precision)
        return BuildResult(output, manifest, read_json(output / REPORT), made.done)

    def parts(self, made: Made, key: str, **more: Any) -> Parts:
        """What a bundle is made of; ``more`` goes into its report."""
        facts = made.facts
        narrow = [each.directory for each in made.done if each.name in ("quantize", "half")]
        notes = [*self.source.notes, *self.images.notes]
        notes += [note for result in made.done for note in notes_of(result)]
        return Parts(
            model=made.entrant.model,
            reference=made.fp32,
            calibration=narrow[0] / CALIBRATION if narrow else None,
            sample=np.load(made.done[0].directory / "parity_inputs.npy", mmap_mode="r")[0],
            facts=manifest_facts(facts, notes),
            report={**report_of(facts, made.done), **more},
            build_key=key,
        )

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
        return self.stage("reference", inputs, produce)

    def _export(self, reference: StageResult) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.stages import export_stage

            return export_stage(self.source, self.graph, reference.directory, metadata, out)

        metadata = {
            "name": self.source.name,
            "weights": str(self.source.weights["kind"]),
            "weights_sha256": str(self.source.weights["sha256"]),
            "preprocess": json.dumps(self.source.preprocess.to_dict(), sort_keys=True),
        }
        inputs = {
            "source": self.source.identity,
            "reference": reference.key,
            "target": asdict(self.graph),
            "metadata": metadata,
            "versions": versions(),
        }
        return self.stage("export", inputs, produce)

    def _simplify(self, exported: StageResult, reference: StageResult) -> StageResult:
        def produce(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.stages import simplify_stage

            return simplify_stage(
                exported.directory / EXPORTED, reference.directory, self.graph, out
            )

        return self.stage("simplify", {"from": exported.key}, produce)

    def check(
        self, entrant: Entrant, fp32: Path, reference: StageResult, *, alone: bool = False
    ) -> Iterator[StageResult]:
        """The artefact as its own target runs it: against the reference, then against labels.

        Args:
            alone: the target runs nothing else; the FP32 graph only says what a budget counts.
        """
        drop = self.options.max_drop if entrant.precision == "int8" else None

        def target(out: Path) -> Mapping[str, Any]:
            from convexport.exporter.target_stage import target_stage

            budget = (drop, loss(self, fp32, reference.directory)) if drop else None
            plain = None if alone else fp32
            return target_stage(entrant, plain, reference.directory, budget)

        def accuracy(out: Path) -> Mapping[str, Any]:
            return measure.accuracy_stage(entrant, reference.directory)

        inputs = {
            **entrant.identity(),
            "fp32": fp32.parent.name,
            "reference": reference.key,
            "runtime": version_of(entrant.target.runtime),
            "units": integer_kernels(cpu_flags()),
        }
        if self.graph is not entrant.target:
            held_out = self.images.held_out
            proof = [drop, held_out and held_out.identity(), self.source.labels] if drop else None
            yield self.stage("target", {**inputs, "budget": proof}, target)
        if self.images.evaluation is not None:
            yield self.stage("accuracy", inputs, accuracy)

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        produce: Callable[[Path], Mapping[str, Any]],
        *,
        fresh: bool = False,
    ) -> StageResult:
        """Produce a stage's result, or find it in the cache."""
        self.events.start(name)
        result = self.cache.stage(name, inputs, produce, fresh=fresh)
        self.events.finish(result)
        for note in notes_of(result):
            self.events.note(note)
        return result


def common_request(source: Source, images: Images, options: BuildOptions) -> dict[str, Any]:
    """What a bundle depends on, whichever target and precision it is for."""
    return {
        "source": source.identity,
        "labels": list(source.labels),
        "preprocess": source.preprocess.to_dict(),
        "parity": images.parity.fingerprint(),
        "calibration": images.calibration and images.calibration.fingerprint(),
        "held_out": images.held_out and images.held_out.identity(),
        "choice": [asdict(options.method), options.repair, options.max_drop, options.keep_fp32],
        "bench": options.bench_seconds,
        "report": SCHEMA_VERSION,
        "units": integer_kernels(cpu_flags()),
        "versions": versions(),
    }
