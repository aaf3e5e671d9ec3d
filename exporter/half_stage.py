"""The FP16 stage: the typed graph, compared with the reference and, layer by layer, with FP32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from convexport.benchmarks.parity import Parity, require_parity
from convexport.benchmarks.verify import LIMITS
from convexport.exporter.artifacts import CALIBRATION, HALF
from convexport.exporter.half import half_from_ranges
from convexport.exporter.stages import compare_with_reference, every_float, save
from convexport.exporter.targets import Target
from convexport.runtime.batches import filled, fixed_batch
from convexport.runtime.errors import GateError
from convexport.runtime.files import json_bytes
from convexport.runtime.ort_session import OrtSession

# Rounding alone adds up over tens of layers; one that multiplies the error by this is at fault.
_SUDDEN = 3.0


@dataclass(frozen=True)
class Layer:
    """How far FP16 is off behind one node, on one image.

    Attributes:
        error: the largest difference as a share of FP32's largest value; None where FP16 is not
            finite.
    """

    node: str
    tensor: str
    error: float | None


def half_stage(
    simplified: Path,
    calibration: Mapping[str, Any],
    reference: Path,
    target: Target,
    keep: tuple[str, ...],
    directory: Path,
) -> dict[str, Any]:
    """Observed ranges → typed FP16, compared with the reference.

    Args:
        calibration: the facts of the calibrate stage, over every float tensor.
        keep: nodes that shall stay in FP32, by name or pattern.

    Raises:
        GateError: as ``require_half``.
        UsageError: E0289; UnsupportedError: E0689; as ``half_from_ranges``.
    """
    ranges = calibration["ranges"]
    magnitudes = {name: max(abs(seen["min"]), abs(seen["max"])) for name, seen in ranges.items()}
    half = half_from_ranges(ir.load(simplified), magnitudes, keep)
    proto = ir.to_proto(half.model)
    # Full: every type is inferred again, and has to be the one that is written down.
    onnx.checker.check_model(proto, full_check=True)
    save(proto, directory / HALF)
    (directory / CALIBRATION).write_bytes(json_bytes(dict(calibration)))
    parity = compare_with_reference(directory / HALF, reference, target, "fp16")
    image = np.load(reference / "parity_inputs.npy", mmap_mode="r")[[parity.worst[0]]]
    layers = layer_errors(simplified, directory / HALF, image, target.provider)
    require_half(parity, layers)
    return {
        "precisions": dict(half.report.precisions),
        "report": {**half.report.to_dict(), "worst_layer": asdict(blame(layers))},
        "parity": parity.to_dict(),
    }


def layer_errors(fp32: Path, fp16: Path, image: np.ndarray, provider: str) -> list[Layer]:
    """Every float tensor that both graphs compute, in the order of the FP32 graph.

    Args:
        image: float32 1×C×H×W.
    """
    model = ir.load(fp32)
    names = every_float(model)
    want, have = (_run_exposed(path, names, image, provider) for path in (fp32, fp16))
    outputs = ((str(node.name), str(each.name)) for node in model.graph for each in node.outputs)
    return [
        Layer(node, name, _error(want[name], have[name]))
        for node, name in outputs
        if name in want and name in have
    ]


def blame(layers: list[Layer]) -> Layer:
    """The first layer that is not finite, else the first beyond the limit, else the worst."""
    infinite = (each for each in layers if each.error is None)
    beyond = (each for each in layers if (each.error or 0.0) > LIMITS["fp16"])
    first = next(infinite, None) or next(beyond, None)
    return first or max(layers, key=lambda each: each.error or 0.0)


def require_half(parity: Parity, layers: list[Layer]) -> None:
    """Let no FP16 graph pass that is off, or not finite somewhere, and say where it begins.

    Raises:
        GateError: E0561 to E0563, as ``require_parity``; E0580, a layer is not finite.
    """
    blamed = blame(layers)
    try:
        require_parity(parity, "FP16", LIMITS["fp16"])
    except GateError as error:
        if parity.constant_reference:
            raise
        where = f"{error.where}; layer by layer it begins at {blamed.node}"
        hint = _hint(layers, blamed)
        raise GateError(error.code, error.what, where=where, why=error.why, hint=hint) from error
    if blamed.error is None:
        raise GateError(
            "E0580",
            f"FP16: {blamed.tensor} is not finite, though it is in FP32",
            where=f"behind the node {blamed.node}, image {parity.worst[0]}",
            why="values that were not among those observed are beyond what FP16 holds",
            hint=f"{_hint(layers, blamed)}; or calibrate with images like these (--calib DIR)",
        )


def _hint(layers: list[Layer], blamed: Layer) -> str:
    before = max((each.error or 0.0 for each in layers[: layers.index(blamed)]), default=0.0)
    if blamed.error is not None and blamed.error < _SUDDEN * before:
        return "errors grow from layer to layer, none is to blame alone: build it with --fp32"
    return f"--keep-fp32 {blamed.node} leaves that layer in FP32"


def _error(want: np.ndarray, have: np.ndarray) -> float | None:
    difference = float(np.abs(have.astype(np.float64) - want).max())
    largest = float(np.abs(want).max())
    if not isfinite(difference):
        return None
    return difference / largest if largest else difference


def _run_exposed(
    path: Path, names: tuple[str, ...], image: np.ndarray, provider: str
) -> dict[str, np.ndarray]:
    """What every named tensor becomes that a node of the graph makes."""
    model = onnx.load(path)
    known = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output} - known
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name in made)
    with TemporaryDirectory() as scratch:
        exposed = Path(scratch) / path.name
        save(model, exposed)
        session = OrtSession(exposed, provider=provider, optimize=False)
    return session.run({session.inputs[0].name: filled(image, fixed_batch(session))})
