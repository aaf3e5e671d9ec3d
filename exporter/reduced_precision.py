"""What follows the FP32 graph: INT8's ranges, equalization and recipe, or FP16, each a stage;
and the flavour that TensorRT reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexport.exporter.artifacts import EQUALIZED, RANGES, SIMPLIFIED
from convexport.exporter.cache import StageResult
from convexport.exporter.flavours import flavour_of
from convexport.exporter.targets import TENSORRT_GRAPHS
from convexport.exporter.trt_parsers import parsers_of
from convexport.runtime.cpu import cpu_flags, integer_kernels

if TYPE_CHECKING:
    from convexport.exporter.budget import Loss
    from convexport.exporter.held_out import HeldOut
    from convexport.exporter.pipeline import Build


def int8_stages(build: Build, simplified: StageResult, reference: StageResult) -> list[StageResult]:
    """From the simplified graph to the quantized one; the last result holds it."""
    ranges = _calibrate(build, simplified)
    done, graphs = [ranges], {False: (simplified.directory / SIMPLIFIED, ranges)}
    if "equalization" in build.options.repair:
        even = _equalize(build, simplified, ranges, reference)
        done.append(even)
        if even.facts["pairs"]:
            graphs[True] = (even.directory / EQUALIZED, even)
    files = {each: (model, seen.directory / RANGES) for each, (model, seen) in graphs.items()}
    quantized = _quantize(build, files, done, reference, _rules(build, simplified))
    return [*done, quantized, *([_sign(build, quantized)] if build.target.signed else [])]


def half_stages(build: Build, simplified: StageResult, reference: StageResult) -> list[StageResult]:
    """From the simplified graph to the typed FP16 one; the last result holds it."""

    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.half_stage import half_stage

        model = simplified.directory / SIMPLIFIED
        return half_stage(model, ranges.facts, reference.directory, build.graph, keep, out)

    ranges, keep = _calibrate(build, simplified), build.options.keep_fp32
    return [ranges, build.stage("half", {"from": ranges.key, "keep_fp32": keep}, produce)]


def flavoured(
    build: Build, artefact: Path, fp32: Path, last: StageResult, reference: StageResult
) -> StageResult:
    """From the artefact that the last stage made to the ONNX file that TensorRT reads."""

    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.flavour_stage import flavour_stage

        graphs, precision = (artefact, fp32), build.precision
        return flavour_stage(graphs, last.facts, precision, build.target, reference.directory, out)

    inputs = {
        "from": last.key,
        "target": asdict(build.target),
        "flavour": asdict(flavour_of(build.target)),
        "tensorrt": [str(each.version) for each in parsers_of(build.target)],
        "precision": build.precision,
        "reference": reference.key,
    }
    return build.stage("flavour", inputs, produce)


def _calibration(build: Build, checkpoint: Path | None = None, *, rules: str = "") -> Any:
    from convexport.exporter.int8 import Calibration

    return Calibration(
        images=build.images.calibration,  # type: ignore[arg-type]  # INT8 has them
        held_out=_held_out(build),
        preprocess=build.source.preprocess,
        target=build.graph,
        rules=rules or build.graph.placement,
        notes=build.images.notes,
        progress=build.events.advance,
        report=build.events.detail,
        quantizes=build.precision == "int8",
        every=_every(build),
        checkpoint=checkpoint,
    )


def _every(build: Build) -> bool:
    """Whether FP16 is decided on, which beside INT8 only TensorRT computes in."""
    return build.precision == "fp16" or build.graph is TENSORRT_GRAPHS


def loss(build: Build, fp32: Path, reference: Path) -> Loss:
    """What the build's budget is counted in."""
    from convexport.exporter.budget import loss_of

    return loss_of(_held_out(build), fp32, reference)


def _held_out(build: Build) -> HeldOut:
    from convexport.exporter.held_out import HeldOut

    images: Any = build.images.held_out  # INT8 has them
    return HeldOut(images, build.source.preprocess, build.source.labels)


def _calibrate(build: Build, simplified: StageResult) -> StageResult:
    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.int8 import calibrate_stage

        request = _calibration(build, build.cache.partial("calibrate", inputs))
        return calibrate_stage(simplified.directory / SIMPLIFIED, request, out)

    images = build.images.calibration
    inputs = {
        "from": simplified.key,
        "images": images and images.fingerprint(),
        "notes": build.images.notes,
        "target": asdict(build.graph),
        "every": _every(build),
        "quantizes": build.precision == "int8",
    }
    return build.stage("calibrate", inputs, produce)


def _equalize(
    build: Build, simplified: StageResult, ranges: StageResult, reference: StageResult
) -> StageResult:
    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.int8 import equalize_stage

        files = (simplified.directory / SIMPLIFIED, ranges.directory / RANGES)
        request = _calibration(build, build.cache.partial("equalize", inputs))
        return equalize_stage(*files, reference.directory, request, out)

    inputs = {"from": ranges.key}
    return build.stage("equalize", inputs, produce)


def _rules(build: Build, simplified: StageResult) -> str:
    """The target's own Q/DQ rules; where they choose nothing else, those that made its graphs."""
    own, shared = build.target.placement, build.graph.placement
    if own in ("", shared):
        return shared
    import onnx_ir as ir

    from convexport.calibration import placement
    from convexport.calibration.scale_sources import scale_sources

    graph = ir.load(simplified.directory / SIMPLIFIED).graph
    chosen = [scale_sources(graph, getattr(placement, name)) for name in (own, shared)]
    return shared if chosen[0] == chosen[1] else own


def _quantize(
    build: Build,
    graphs: Mapping[bool, tuple[Path, Path]],
    done: list[StageResult],
    reference: StageResult,
    rules: str,
) -> StageResult:
    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.int8 import quantize_stage

        choice = (options.method, options.repair, options.max_drop)
        # Which channels could be evened out; ``equalized`` says whether that was kept.
        facts = {**done[0].facts, "equalization": done[-1].facts.get("pairs", [])}
        request = _calibration(build, rules=rules)
        return quantize_stage(graphs, facts, reference.directory, request, choice, out)

    options, held_out = build.options, build.images.held_out
    inputs = {
        "from": done[-1].key,
        "reference": reference.key,
        "held_out": held_out and held_out.identity(),
        "labels": build.source.labels,
        "choice": [asdict(options.method), options.repair, options.max_drop],
        "units": integer_kernels(cpu_flags()),
        "placement": rules,
    }
    return build.stage("quantize", inputs, produce)


def _sign(build: Build, quantized: StageResult) -> StageResult:
    def produce(out: Path) -> Mapping[str, Any]:
        from convexport.exporter.signed_stage import signed_stage

        return signed_stage(quantized.directory, out)

    return build.stage("signed", {"from": quantized.key}, produce)
