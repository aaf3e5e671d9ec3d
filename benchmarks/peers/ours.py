"""convexport's own quantizer, without the build around it: no torch, no parity gates.

The same steps as the stages ``calibrate`` and ``quantize`` of a build for the target ``cpu``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arrays import batches
from tools import Quantize, Work

from convexport.runtime.ort_session import OrtSession, providers


def quantizer(options: Mapping[str, Any]) -> Quantize:
    """One pass for the ranges, then thresholds, scales and Q/DQ."""
    import onnx_ir as ir

    from convexport.calibration.collect import collect
    from convexport.calibration.placement import CPU, scale_sources
    from convexport.calibration.qdq import insert_qdq, scale_of
    from convexport.calibration.thresholds import Method, thresholds

    method = Method(name=options["method"])
    providers()

    def run(work: Work) -> dict[str, float]:
        clock = [time.perf_counter()]
        model = ir.load(work.model)
        sources = scale_sources(model.graph, CPU)
        tensors = tuple(dict.fromkeys(sources.values()))
        runner = _observed(work.model, tensors, work.output.with_suffix(".observed.onnx"))
        clock.append(time.perf_counter())
        images = batches(work.images, work.count, work.batch)
        ranges = collect(runner, images, tensors)
        clock.append(time.perf_counter())
        chosen = thresholds(ranges, method)
        scales = {
            name: scale_of(chosen[source], CPU.activations) for name, source in sources.items()
        }
        clock.append(time.perf_counter())
        insert_qdq(model, scales, CPU)
        work.output.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        clock.append(time.perf_counter())
        parts = ("load", "collect", "thresholds", "insert")
        return dict(zip(parts, np.diff(clock).tolist(), strict=True))

    return run


def _observed(model: Path, tensors: tuple[str, ...], path: Path) -> OrtSession:
    """A session that gives the named tensors too. Its file is not kept."""
    import onnx_ir as ir

    graph = (observed := ir.load(model)).graph
    known = {value.name for value in graph.outputs}
    graph.outputs.extend(
        value
        for node in graph
        for value in node.outputs
        if value.name in tensors and value.name not in known
    )
    path.write_bytes(ir.to_proto(observed).SerializeToString())
    try:
        return OrtSession(path)
    finally:
        path.unlink()
