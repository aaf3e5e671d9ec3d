"""How much of each layer's output INT8 turns into noise: all layers in one pass.

Beside every Conv and Gemm stands its twin, which reads the same floats through Q/DQ and has
rounded weights. What it gives is compared in the graph itself, so that a few moments a layer come
out and no tensor. The noise is a layer's own: none is inherited from the layers before it.
The signal is what differs from a channel's mean over all images: a mean that is the same for all
tells them not apart, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.names import Names
from convexport.calibration.placement import Placement, activation_inputs, is_integer
from convexport.calibration.qdq import WEIGHTED, Scale, constant, output_axis, quantize_weight
from convexport.runtime.specs import Runner

_MEAN, _SQUARE, _NOISE = "convexport.mean.", "convexport.square.", "convexport.noise."


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
    """Put a twin beside every layer, in place; the outputs become three moments a layer.

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
    names = Names(graph)
    graph.outputs.clear()
    for node in layers:
        data, name = activation_inputs(node)[0], str(node.name)
        beside = _Beside(graph, node, names)
        if str(data.name) not in read:
            read[str(data.name)] = beside.through_integers(data, scales[str(data.name)])
        weight = beside.constant(f"{name}.twin.weight", _rounded(node))
        attributes = list(node.attributes.values())
        inputs = [read[str(data.name)], weight, *node.inputs[2:]]
        twin = beside.add(ir.Node("", node.op_type, inputs, attributes), f"{name}.twin")
        exact = node.outputs[0]
        difference = beside.add(ir.node("Sub", [twin, exact]), f"{name}.difference")
        beside.mean_of_channels(exact, _MEAN + name)
        beside.mean_of_channels(beside.squared(exact, name), _SQUARE + name)
        beside.mean_of_channels(beside.squared(difference, f"{name}.noise"), _NOISE + name)
    return layers


def measure(
    runner: Runner, batches: Iterable[NDArray[np.float32]], layers: Iterable[tuple[str, str]]
) -> tuple[Sensitivity, ...]:
    """Run a graph with twins; the noisiest layer comes first.

    Args:
        layers: name and operator of each.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    images, name = 0, runner.inputs[0].name
    for batch in batches:
        images += len(batch)
        for key, value in runner.run({name: batch}).items():
            sums[key] = sums.get(key, np.zeros(())) + len(batch) * value.astype(np.float64)
    moments = {key: value / images for key, value in sums.items()}
    found = [Sensitivity(node, operator, _decibels(node, moments)) for node, operator in layers]
    return tuple(sorted(found, key=lambda each: each.sqnr_db))


def _decibels(node: str, moments: Mapping[str, NDArray[np.float64]]) -> float:
    # Channels may be so far from zero that rounding leaves less than nothing of their variance.
    signal = np.maximum(moments[_SQUARE + node] - moments[_MEAN + node] ** 2, 0).sum()
    noise = moments[_NOISE + node].sum()
    # Bounded, so that it is a number in JSON: a layer that is all zeros has neither.
    tiny = float(np.finfo(np.float32).tiny)
    return float(np.clip(10 * np.log10(max(signal, tiny) / max(noise, tiny)), -99.0, 99.0))


def _rounded(node: ir.Node) -> NDArray[np.float32]:
    axis = output_axis(node)
    channels = np.moveaxis(constant(node.inputs[1]), axis, 0)
    integers, scales = quantize_weight(channels)
    column = scales.reshape(-1, *[1] * (channels.ndim - 1))
    return np.ascontiguousarray(np.moveaxis(integers * column, 0, axis), dtype=np.float32)


class _Beside:
    """Nodes right behind a layer, so that a runtime need not keep what they read for long."""

    def __init__(self, graph: ir.Graph, layer: ir.Node, names: Names) -> None:
        self._graph, self._layer, self._last, self._names = graph, layer, layer, names

    def add(self, node: ir.Node, name: str) -> ir.Value:
        node.name = node.outputs[0].name = self._names.free(name)
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        free = self._names.free(name)
        value = ir.Value(name=free, const_value=ir.tensor(array, name=free))
        self._graph.register_initializer(value)
        return value

    def through_integers(self, value: ir.Value, scale: Scale) -> ir.Value:
        name = f"{value.name}.through"
        parameters = [
            self.constant(f"{name}.scale", np.array(scale.scale, np.float32)),
            self.constant(f"{name}.zero_point", scale.zero_point),
        ]
        quantized = self.add(ir.node("QuantizeLinear", [value, *parameters]), f"{name}.Q")
        return self.add(ir.node("DequantizeLinear", [quantized, *parameters]), f"{name}.DQ")

    def squared(self, value: ir.Value, name: str) -> ir.Value:
        return self.add(ir.node("Mul", [value, value]), f"{name}.squared")

    def mean_of_channels(self, value: ir.Value, name: str) -> None:
        """An output of one number a channel, the mean over images and places."""
        over = [0, *range(2, constant(self._layer.inputs[1]).ndim)]
        if self._graph.opset_imports.get("", 0) < 18:  # where axes are no input yet
            mean = ir.node("ReduceMean", [value], {"axes": over, "keepdims": 0})
        else:
            axes = self.constant(f"{name}.axes", np.array(over, np.int64))
            mean = ir.node("ReduceMean", [value, axes], {"keepdims": 0})
        found = self.add(mean, name)
        found.type, found.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None])
        self._graph.outputs.append(found)
