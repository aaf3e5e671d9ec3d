"""convexport's own quantizer, without the build around it: no torch, no parity gates.

The same steps as the stages ``calibrate`` and ``quantize`` of a build for the target ``cpu``, but
for equalization. ``auto`` sets the ranges by all images but the last 32 and tries methods on those.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arrays import batches
from tools import Quantize, Work

from convexport.runtime.ort_session import OrtSession, providers

_HELD_OUT = 32


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """One pass for the ranges, then thresholds, scales and Q/DQ."""
    import onnx_ir as ir

    from convexport.calibration import placement
    from convexport.calibration.collect import collect
    from convexport.calibration.scale_sources import scale_sources
    from convexport.calibration.thresholds import CANDIDATES, Thresholds

    name, rules = options["method"], getattr(placement, options["target"].upper())
    providers()

    def run(work: Work) -> dict[str, float]:
        clock = [time.perf_counter()]
        sources = scale_sources(ir.load(work.model).graph, rules)
        tensors = tuple(dict.fromkeys(name for group in sources.values() for name in group))
        runner, outputs = _observed(work.model, tensors, work.output.with_suffix(".observed.onnx"))
        clock.append(time.perf_counter())
        seen = work.count - _HELD_OUT if name == "auto" else work.count
        workers = len(os.sched_getaffinity(0))
        ranges = collect(runner, batches(work.images, seen, work.batch), outputs, workers=workers)
        clock.append(time.perf_counter())
        thresholds = Thresholds(ranges)
        if name == "every":  # what one pass gives: the thresholds of all methods
            for method in CANDIDATES:
                for group in {*sources.values()}:
                    thresholds.of(group, method, rules.activations)
        clock.append(time.perf_counter())
        del runner  # its memory is not needed any more
        _choose(work, thresholds, name, seen, rules)
        if options["target"] == "openvino":
            _sign(work.output)
        clock.append(time.perf_counter())
        parts = ("load", "collect", "thresholds", "choose and insert")
        return dict(zip(parts, np.diff(clock).tolist(), strict=True))

    return run


def _choose(work: Work, thresholds: Any, name: str, seen: int, rules: Any) -> None:
    """Write the INT8 file: of one method, or of the best on the images that were not seen."""
    import onnx_ir as ir

    from convexport.calibration.quantize import Recipe, quantize
    from convexport.calibration.thresholds import CANDIDATES, Method

    def write(recipe: Recipe) -> None:
        model = ir.load(work.model)
        quantize(model, thresholds, recipe, rules)
        work.output.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))

    if name != "auto":
        return write(Recipe(method=Method(name="mse" if name == "every" else name)))
    held_out = np.load(work.images, mmap_mode="r")[seen : work.count]
    exact = _logits(work.model, held_out)

    def lost(recipe: Recipe) -> float:
        write(recipe)
        return float(((_logits(work.output, held_out) - exact) ** 2).sum())

    best = min((Recipe(method=method) for method in CANDIDATES), key=lost)
    return write(min((best, Recipe(method=best.method, corrected=True)), key=lost))


def _sign(path: Path) -> None:
    """What the target openvino does besides."""
    import onnx_ir as ir

    from convexport.calibration.signed import sign_activations

    model = ir.load(path)
    sign_activations(model.graph)
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _observed(model: Path, tensors: tuple[str, ...], path: Path) -> tuple[OrtSession, Any]:
    from convexport.calibration.observed import write_observed

    try:
        outputs = write_observed(model, tensors, path)
        return OrtSession(path, threads=1, early=True), outputs
    finally:
        path.unlink(missing_ok=True)


def _logits(model: Path, images: np.ndarray) -> np.ndarray:
    session = OrtSession(model)
    name, output = session.inputs[0].name, session.outputs[0].name
    runs = (session.run({name: images[i : i + 1]})[output] for i in range(len(images)))
    return np.concatenate(list(runs))
