"""How much of each layer's output INT8 turns into noise: all layers in one pass.

Beside every Conv and Gemm stands its twin, which reads the same floats through Q/DQ and has
rounded weights. What it gives is compared in the graph itself, so that two numbers a layer come
out and no tensor. The noise is a layer's own: none is inherited from the layers before it.
The signal is what differs from a channel's mean: a mean that is the same for all images tells them
not apart, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.placement import Placement, activation_inputs, is_integer
from convexport.calibration.qdq import WEIGHTED, Scale, constant, output_axis, quantize_weight
from convexport.runtime.specs import Runner

_SIGNAL, _NOISE = "convexport.signal.", "convexport.noise."


@dataclass(frozen=True)
class Sensitivity:
    """One layer's own noise.

    Attributes:
        node: its name in the graph.
        operator: as ``Conv``.
        sqnr_db: of its output before the activation, 10 log10(variance / noise).
    """

    node: str
    operator: str
    sqnr_db: float


def add_twins(model: ir.Model, scales: Mapping[str, Scale], placement: Placement) -> list[ir.Node]:
    """Put a twin beside every layer, in place; the outputs become two sums of squares a layer.

    Returns:
        The layers that got one, in the order of the graph.
    """
    graph = model.graph
    layers = [
        node
        for node in graph
        if node.op_type in WEIGHTED
        and is_integer(node, placement)
        and str(activation_inputs(node)[0].name) in scales
    ]
    read: dict[str, ir.Value] = {}
    graph.outputs.clear()
    for node in layers:
        data = activation_inputs(node)[0]
        if str(data.name) not in read:
            read[str(data.name)] = _through_integers(graph, data, scales[str(data.name)])
        weight = _constant(graph, f"{node.name}.twin.weight", _rounded(node))
        rest = node.inputs[2:]
        attributes = list(node.attributes.values())
        twin = ir.Node("", node.op_type, [read[str(data.name)], weight, *rest], attributes)
        difference = ir.node("Sub", [_added(graph, twin, f"{node.name}.twin"), node.outputs[0]])
        centred = _centred(graph, node.outputs[0], str(node.name))
        _sum_of_squares(graph, centred, _SIGNAL + str(node.name))
        _sum_of_squares(
            graph, _added(graph, difference, f"{node.name}.difference"), _NOISE + str(node.name)
        )
    graph.sort()
    return layers


def measure(
    runner: Runner, batches: Iterable[NDArray[np.float32]], layers: Iterable[tuple[str, str]]
) -> tuple[Sensitivity, ...]:
    """Run a graph with twins; the noisiest layer comes first.

    Args:
        layers: name and operator of each.
    """
    sums: dict[str, float] = {}
    name = runner.inputs[0].name
    for batch in batches:
        for key, value in runner.run({name: batch}).items():
            sums[key] = sums.get(key, 0.0) + float(value)
    found = [
        Sensitivity(node, operator, _decibels(sums[_SIGNAL + node], sums[_NOISE + node]))
        for node, operator in layers
    ]
    return tuple(sorted(found, key=lambda each: each.sqnr_db))


def _decibels(signal: float, noise: float) -> float:
    # Bounded, so that it is a number in JSON: a layer that is all zeros has neither.
    tiny = float(np.finfo(np.float32).tiny)
    return float(np.clip(10 * np.log10(max(signal, tiny) / max(noise, tiny)), -99.0, 99.0))


def _rounded(node: ir.Node) -> NDArray[np.float32]:
    axis = output_axis(node)
    channels = np.moveaxis(constant(node.inputs[1]), axis, 0)
    integers, scales = quantize_weight(channels)
    column = scales.reshape(-1, *[1] * (channels.ndim - 1))
    return np.ascontiguousarray(np.moveaxis(integers * column, 0, axis), dtype=np.float32)


def _through_integers(graph: ir.Graph, value: ir.Value, scale: Scale) -> ir.Value:
    name = f"{value.name}.through"
    parameters = [
        _constant(graph, f"{name}.scale", np.array(scale.scale, np.float32)),
        _constant(graph, f"{name}.zero_point", scale.zero_point),
    ]
    quantized = _added(graph, ir.node("QuantizeLinear", [value, *parameters]), f"{name}.Q")
    return _added(graph, ir.node("DequantizeLinear", [quantized, *parameters]), f"{name}.DQ")


def _centred(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """The value without its channels' means over a batch."""
    if value.shape is None or value.shape[0] == 1:
        return value  # of one image, a classifier's mean would be the signal itself
    over = np.array([axis for axis in range(len(value.shape)) if axis != 1], np.int64)
    if graph.opset_imports.get("", 0) < 18:  # where axes are no input yet
        mean = ir.node("ReduceMean", [value], {"axes": over.tolist()})
    else:
        mean = ir.node("ReduceMean", [value, _constant(graph, f"{name}.twin.axes", over)])
    _added(graph, mean, f"{name}.mean")
    return _added(graph, ir.node("Sub", [value, mean.outputs[0]]), f"{name}.centred")


def _sum_of_squares(graph: ir.Graph, value: ir.Value, name: str) -> None:
    reduced = _added(graph, ir.node("ReduceSumSquare", [value], {"keepdims": 0}), name)
    reduced.type, reduced.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    graph.outputs.append(reduced)


def _constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _added(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    node.name = node.outputs[0].name = name
    graph.append(node)
    return node.outputs[0]
