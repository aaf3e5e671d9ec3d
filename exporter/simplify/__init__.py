"""ONNX → the same function in fewer, better known nodes.

First a library (onnxsim; onnxslim where onnxsim cannot), then the rules of our own, one a file.
Neither's word is taken for the result: the pipeline compares it with the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from convexport.exporter.simplify.rules import apply_rules
from convexport.runtime.errors import InputError


@dataclass(frozen=True)
class Simplified:
    """The model, who simplified it, and how often each rule of ours was applied."""

    model: onnx.ModelProto
    tool: str
    applied: dict[str, int]


def simplify(model: onnx.ModelProto) -> Simplified:
    """Simplify with the library, then with our rules.

    Raises:
        InputError: E0382, neither library can take the model.
    """
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    slimmer, tool = _with_library(model)
    graph = ir.from_proto(slimmer)
    applied = apply_rules(graph)
    graph.metadata_props.clear()
    graph.metadata_props.update(metadata)
    LiftConstantsToInitializersPass(lift_all_constants=True)(graph)
    graph.graph.sort()
    RemoveUnusedNodesPass()(graph)
    return Simplified(ir.to_proto(graph), tool, applied)


def _with_library(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    reasons = []
    for tool, run in (("onnxsim", _onnxsim), ("onnxslim", _onnxslim)):
        try:
            return run(model), tool
        except Exception as error:  # either raises whatever its C++ or Python core raised
            reasons.append(f"{tool}: {type(error).__name__}: {error}"[:200])
    raise InputError("E0382", "the model cannot be simplified", why="; ".join(reasons))


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified: onnx.ModelProto = onnxsim.simplify(model)[0]
    return simplified


def _onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    return slimmed
