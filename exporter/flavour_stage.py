"""The stage of TensorRT targets: the ONNX file that their version reads.

What is compared with the reference is the graph, which ONNX Runtime runs node by node on a CPU:
what it would fuse there is not what TensorRT fuses, and rounds otherwise. Of the engine that says
nothing: which kernels it takes, and what those round, is TensorRT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from convexport.benchmarks.parity import Parity, compare, require_parity
from convexport.benchmarks.verify import LIMITS, require_signal
from convexport.exporter.artifacts import CALIBRATION, FLAVOURED
from convexport.exporter.flavour_graphs import at_opset, with_float_weights
from convexport.exporter.flavours import FLAVOURS, Flavour, flavour_of
from convexport.exporter.half_qdq import half_from_qdq
from convexport.exporter.options import Precision
from convexport.exporter.stages import Facts, save
from convexport.exporter.targets import Target
from convexport.exporter.trt_lint import lint_file, require_no_errors
from convexport.runtime.batches import run_in_batches
from convexport.runtime.files import read_json
from convexport.runtime.ort_session import OrtSession


def flavour_stage(
    graphs: tuple[Path, Path],
    facts: Mapping[str, Any],
    precision: Precision,
    target: Target,
    reference: Path,
    directory: Path,
) -> Facts:
    """The artefact in the target's flavour, in parity with the reference and without findings.

    Args:
        graphs: the artefact, and the simplified FP32 graph. Beside an INT8 artefact lies its
            ``calibration.json`` with the ranges of every float tensor.
        facts: of the stage that made the artefact.

    Returns:
        With ``fp32_layers``: what FP16 cannot hold. A typed graph says so itself; whoever builds
        the other with the FP16 flag has to hold these layers to FP32.

    Raises:
        UnsupportedError: E0691, it cannot be written in the flavour's opset; E0693, the target's
            TensorRT would refuse or misread it; E0689.
        GateError: E0561 to E0564, as in the stages that made it.
    """
    flavour, what = flavour_of(target), f"{precision} for {target.name}"
    made, layers, kept = _written(graphs, facts, precision, flavour)
    save(made, directory / FLAVOURED)
    report = lint_file(directory / FLAVOURED, target)
    require_no_errors(FLAVOURED, report)
    parity = _compared(directory / FLAVOURED, reference)
    if precision == "int8":
        require_signal(parity, what)
    else:
        require_parity(parity, what, LIMITS[precision if flavour.typed else "fp32"])
    return {
        "flavour": flavour.name,
        "opset": flavour.opset,
        "typed": flavour.typed,
        "lint": report,
        "precisions": layers,
        "fp32_layers": sorted({*kept}),
        "parity": {**parity.to_dict(), "of": "the graph in ONNX Runtime, not of the engine"},
    }


def _compared(model: Path, reference: Path) -> Parity:
    inputs = np.load(reference / "parity_inputs.npy", mmap_mode="r")
    logits = run_in_batches(OrtSession(model, optimize=False), inputs)
    return compare(np.load(reference / "parity_logits.npy"), logits)


def _written(
    graphs: tuple[Path, Path], facts: Mapping[str, Any], precision: Precision, flavour: Flavour
) -> tuple[onnx.ModelProto, dict[str, str], list[str]]:
    """The graph, its layers' precisions, and those that FP16 cannot hold."""
    artefact, fp32 = graphs
    if precision == "int8":
        return _of_int8(artefact, flavour, facts["precisions"])
    # Untyped, FP16 is a flag of the builder.
    model = onnx.load(artefact if flavour.typed else fp32)
    kept = [row["node"] for row in facts.get("report", {}).get("kept", ())]
    return at_opset(model, flavour), dict(facts.get("precisions", {})), kept


def _of_int8(
    artefact: Path, flavour: Flavour, precisions: Mapping[str, str]
) -> tuple[onnx.ModelProto, dict[str, str], list[str]]:
    """The same of an INT8 graph, what is not in INT8 being in FP16."""
    seen = read_json(artefact.parent / CALIBRATION)["ranges"]
    magnitudes = {name: max(abs(each["min"]), abs(each["max"])) for name, each in seen.items()}
    original = onnx.load(artefact)
    # Q/DQ take FP16 from opset 19 on; what an untyped engine may do is looked up in the same graph.
    typed = ir.from_proto(at_opset(original, FLAVOURS["qdq-fp16"]))
    half = half_from_qdq(typed, magnitudes, precisions)
    # What is in INT8 is ordered to nothing else, though FP16 could not hold it.
    kept = [row.node for row in half.report.kept if precisions.get(row.node, "int8") != "int8"]
    if flavour.typed:
        made = ir.to_proto(half.model)
        onnx.checker.check_model(made, full_check=True)
        return made, dict(half.report.precisions), kept
    portable = ir.from_proto(original)
    with_float_weights(portable)
    return at_opset(ir.to_proto(portable), flavour), dict(precisions), kept
