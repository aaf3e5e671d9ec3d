"""Whose values set the scale of an activation: its own, or of those that share one with it."""

from __future__ import annotations

import onnx_ir as ir

from convexport.calibration.placement import (
    Placement,
    activation_inputs,
    is_integer,
    quantized_tensors,
)


def scale_sources(graph: ir.Graph, placement: Placement) -> dict[str, tuple[str, ...]]:
    """For each tensor that gets Q/DQ, the tensors whose ranges set its scale: mostly itself.

    Behind an operator that keeps its input's scale it is the first before it that has its own;
    before one that lends its output's scale it is that output; around one that wants a common
    scale it is all of its inputs.
    """
    producers = {str(value.name): node for node in graph for value in node.outputs}
    lent = _lent(graph, placement)

    def origin(name: str) -> str:
        while name in producers and producers[name].op_type in placement.keep_scale:
            name = str(activation_inputs(producers[name])[0].name)
        return origin(lent[name]) if name in lent else name

    groups: dict[str, frozenset[str]] = {}
    for node in graph:
        if node.op_type in placement.common_scale:
            members = [*activation_inputs(node), *node.outputs]
            names = {origin(str(value.name)) for value in members}
            joined = frozenset(names).union(*(groups.get(name, ()) for name in names))
            groups.update(dict.fromkeys(joined, joined))
    return {
        name: tuple(sorted(groups.get(origin(name), {origin(name)})))
        for name in quantized_tensors(graph, placement)
    }


def _lent(graph: ir.Graph, placement: Placement) -> dict[str, str]:
    """Whose scale a tensor takes that only an operator reads which lends its output's."""
    found = {}
    for node in graph:
        if node.op_type not in placement.lend_scale or not is_integer(node, placement):
            continue
        output = node.outputs[0]
        for value in activation_inputs(node):
            producer = value.producer()
            own = producer is None or producer.op_type in placement.keep_scale
            # A kernel that clips where its integers end must not be given others to end at.
            clipped = _never_negative(value) and not _never_negative(output)
            clipped |= producer is not None and producer.op_type == "Clip"
            if not own and not clipped and len(value.uses()) == 1 and not value.is_graph_output():
                found[str(value.name)] = str(output.name)
    return found


def _never_negative(value: ir.Value | None) -> bool:
    """Whether the operator before it says so; of those that only move values, what they move."""
    producer = None if value is None else value.producer()
    if producer is None:
        return False
    if producer.op_type in ("Concat", "MaxPool"):
        return all(_never_negative(each) for each in producer.inputs)
    if producer.op_type == "Clip" and len(producer.inputs) > 1 and producer.inputs[1] is not None:
        low = producer.inputs[1].const_value
        return low is not None and float(low.numpy()) >= 0
    return producer.op_type == "Relu"
