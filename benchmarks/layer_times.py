"""Where the time goes: each layer in FP32 and in INT8, from the runtime's own profile.

Kernels are led back to the layers of the file; what belongs to none (reordering, Q/DQ at the
borders, additions, pools) is counted as such.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convexport.benchmarks.executed import kernels
from convexport.benchmarks.file_layers import FileLayers


@dataclass(frozen=True)
class LayerTime:
    """One layer, in milliseconds a pass, medians of 30 passes on one thread.

    Attributes:
        layer: the name of its node; empty for all that belongs to no layer.
    """

    layer: str
    fp32_ms: float
    int8_ms: float


def layer_times(fp32: Path, int8: Path, image: np.ndarray, runtime: str) -> tuple[LayerTime, ...]:
    """Both graphs' times by layer with weights; the one that loses most by INT8 comes first.

    Args:
        fp32: the FP32 graph, whose layers these are.
        int8: the same with Q/DQ.
        image: float32 N×C×H×W.
        runtime: ``onnxruntime`` or ``openvino``, on the CPU.
    """
    weighted = {layer.name for layer in FileLayers(fp32).weighted}
    times = [
        _by_layer(path, image, runtime, precision, weighted)
        for path, precision in ((fp32, "fp32"), (int8, "int8"))
    ]
    names = dict.fromkeys([*times[0], *times[1]])
    rows = [LayerTime(name, times[0].get(name, 0.0), times[1].get(name, 0.0)) for name in names]
    return tuple(sorted(rows, key=lambda row: row.fp32_ms - row.int8_ms))


def _by_layer(
    model: Path, image: np.ndarray, runtime: str, precision: str, weighted: AbstractSet[str]
) -> dict[str, float]:
    file, found = FileLayers(model, len(image)), defaultdict[str, float](float)
    for kernel in kernels(model, image, runtime=runtime, precision=precision):
        layer = file.of(kernel.originals, kernel.op)
        known = layer is not None and weighted >= {*layer.nodes}
        found[layer.name if layer is not None and known else ""] += kernel.ms
    return dict(found)
