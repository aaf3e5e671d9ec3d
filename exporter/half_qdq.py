"""FP32 Q/DQ → typed FP16 with INT8: what Q and DQ have at their float ends is FP16 too.

The rules are those of ``exporter.half``: a layer that FP16 cannot hold stays in FP32. A Cast next
to a Q or DQ is taken into it, since either may have FP32 at its float end by the type of its scale:

    DQ(q, s16) → Cast → FP32      becomes   DQ(q, s32)
    FP32 → Cast → Q(x, s16)       becomes   Q(x, s32)

so that between an INT8 kernel and its Q/DQ there is never a Cast. s32 is s16, widened: a pair of
Q and DQ has one scale, whatever its types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from convexport.calibration.names import Names
from convexport.calibration.qdq import constant
from convexport.exporter.flavour_graphs import dequantized
from convexport.exporter.half import Half, half_from_ranges


def half_from_qdq(
    model: ir.Model,
    magnitudes: Mapping[str, float],
    precisions: Mapping[str, str],
    keep: Iterable[str] = (),
) -> Half:
    """A typed FP16 copy of an FP32 Q/DQ model in opset 19 or later.

    Args:
        magnitudes: as for ``half_from_ranges``, of the tensors that were there before Q/DQ.
        precisions: ``int8`` or ``fp32`` for every node that was there before Q/DQ.

    Raises:
        UsageError: E0289; UnsupportedError: E0689; as ``half_from_ranges``.
    """
    known = dict(magnitudes)
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            known[str(node.outputs[0].name)] = _magnitude(node, magnitudes)
    half = half_from_ranges(model, known, keep)
    _absorb_casts(half.model.graph)
    floats = half.report.precisions
    report = replace(
        half.report,
        precisions={
            name: was if was == "int8" else floats.get(name, was)
            for name, was in precisions.items()
        },
        casts=sum(node.op_type == "Cast" for node in half.model.graph),
    )
    return Half(half.model, report)


def _magnitude(node: ir.Node, magnitudes: Mapping[str, float]) -> float:
    """The largest value behind a DQ: of the tensor before its Q, or of the weights."""
    held = node.inputs[0]
    assert held is not None
    quantize = held.producer()
    if quantize is not None and quantize.inputs[0] is not None:
        return magnitudes[str(quantize.inputs[0].name)]
    return float(np.abs(dequantized(node)).max())


def _absorb_casts(graph: ir.Graph) -> None:
    names = Names(graph)
    for cast in [node for node in graph if node.op_type == "Cast"]:
        source, target = cast.inputs[0], cast.outputs[0]
        assert source is not None
        if target.dtype == ir.DataType.FLOAT16:
            for user, _ in target.uses():
                if user.op_type == "QuantizeLinear":
                    user.replace_input_with(0, source)
                    user.replace_input_with(1, _widened(graph, user.inputs[1], names))
        else:
            _widen_dq(graph, cast, source, names)
        if not target.uses() and not target.is_graph_output():
            graph.remove(cast, safe=True)
        dequantize = source.producer()
        if dequantize is not None and not source.uses() and not source.is_graph_output():
            graph.remove(dequantize, safe=True)


def _widen_dq(graph: ir.Graph, cast: ir.Node, source: ir.Value, names: Names) -> None:
    """Let who reads a DQ's output through a Cast read one that gives FP32 at once."""
    dequantize, target = source.producer(), cast.outputs[0]
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or target.is_graph_output():
        return
    held, scale, zero_point = dequantize.inputs
    inputs = [held, _widened(graph, scale, names), zero_point]
    twin = ir.node(
        "DequantizeLinear", inputs, dict(dequantize.attributes), name=f"{dequantize.name}.fp32"
    )
    output = twin.outputs[0]
    output.name, output.type, output.shape = target.name, target.type, target.shape
    graph.insert_before(cast, twin)
    ir.convenience.replace_all_uses_with(target, output)
    target.name = names.free(f"{target.name}.cast")


def _widened(graph: ir.Graph, scale: ir.Value | None, names: Names) -> ir.Value:
    assert scale is not None
    name = names.free(f"{scale.name}.fp32")
    wide = ir.Value(name=name, const_value=ir.tensor(constant(scale).astype(np.float32), name=name))
    wide.shape, wide.type = scale.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.register_initializer(wide)
    return wide
