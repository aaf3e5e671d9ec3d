"""The stage of targets that multiply S8 by S8: the INT8 file, about zero where that fits."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from convexport.calibration.signed import sign_activations
from convexport.exporter.artifacts import ALL_INT8, QUANTIZED
from convexport.exporter.stages import Facts, save


def signed_stage(quantized: Path, directory: Path) -> Facts:
    """Rewrite what the INT8 stage made; the target's own stage compares it with the reference."""
    tensors: dict[str, list[str]] = {}
    for name in (QUANTIZED, ALL_INT8):
        if (quantized / name).is_file():
            model = ir.from_proto(onnx.load(quantized / name))
            tensors[name] = [*sign_activations(model.graph)]
            save(ir.to_proto(model), directory / name)
    return {"tensors": tensors[QUANTIZED]}
