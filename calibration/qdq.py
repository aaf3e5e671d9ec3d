"""Thresholds → explicit Q/DQ in the graph.

    Q(x)  = clip(round(x / scale) + zero_point)         DQ(q) = (q - zero_point) · scale

Activations have one scale a tensor. With T the threshold:

    int8             scale = T / 127   zero point 0
    uint8, signed    scale = T / 127   zero point 128      (the same grid, moved)
    uint8, unsigned  scale = T / 255   zero point 0        (a ReLU's output uses all of 0..255)

Weights have one scale an output channel, symmetric INT8 in -127..127, zero point 0. A bias is
INT32 at (scale of the input) · (scale of the weight), where the placement asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.placement import Placement, activation_inputs, is_integer
from convexport.calibration.thresholds import Threshold

# A channel of zeros still needs a scale that a float16 copy of it could hold.
_SMALLEST_SCALE = 1e-7
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Scale:
    """How one activation is quantized."""

    scale: np.float32
    zero_point: NDArray[np.generic]


def scale_of(threshold: Threshold, dtype: str) -> Scale:
    """The scale and zero point for a threshold, by the table above."""
    unsigned = dtype == "uint8" and not threshold.signed
    levels = 255 if unsigned else 127
    zero = 128 if dtype == "uint8" and threshold.signed else 0
    scale = np.float32(max(threshold.value / levels, _SMALLEST_SCALE))
    return Scale(scale, np.array(zero, dtype=dtype))


def insert_qdq(
    model: ir.Model, scales: Mapping[str, Scale], placement: Placement
) -> dict[str, str]:
    """Put Q/DQ on the named activations and on the weights of their Conv and Gemm, in place.

    Returns:
        The precision in which every node that was there before is placed: ``int8`` or ``fp32``.
    """
    nodes = list(model.graph)
    placed = [_all_quantized(node, scales, placement) for node in nodes]
    values = {str(value.name): value for node in nodes for value in node.outputs}
    values.update((str(value.name), value) for value in model.graph.inputs)
    graph = _Graph(model.graph, {*values, *map(str, model.graph.initializers)})
    for node, integer in zip(nodes, placed, strict=True):
        if integer and node.op_type in ("Conv", "Gemm"):
            (data,) = activation_inputs(node)
            _quantize_weights(graph, node, scales[str(data.name)], placement)
    for name, scale in scales.items():
        _quantize_activation(graph, values[name], scale)
    model.graph.sort()
    return {
        str(node.name): "int8" if integer else "fp32"
        for node, integer in zip(nodes, placed, strict=True)
    }


@dataclass(frozen=True)
class _Graph:
    """A graph and the names in it, so that what is added clashes with nothing of the user's."""

    inner: ir.Graph
    names: set[str]

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        free = self._free(name)
        value = ir.Value(name=free, const_value=ir.tensor(array, name=free))
        value.shape = ir.Shape(array.shape)
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        self.inner.register_initializer(value)
        return value

    def add(self, node: ir.Node, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        output = node.outputs[0]
        output.name = node.name = self._free(str(node.name))
        output.type, output.shape = ir.TensorType(dtype), shape
        self.inner.append(node)
        return output

    def _free(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


def quantize_weight(
    weight: NDArray[np.float32], least_scale: NDArray[np.float64] | float = _SMALLEST_SCALE
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric INT8, one scale an output channel (the first axis).

    Args:
        weight: (out, ...).
        least_scale: no channel's scale is smaller than this.
    """
    flat = weight.reshape(len(weight), -1)
    scales = np.maximum(np.abs(flat).max(axis=1) / 127.0, least_scale).astype(np.float32)
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight / column), -127, 127).astype(np.int8), scales


def _all_quantized(node: ir.Node, scales: Mapping[str, Scale], placement: Placement) -> bool:
    computed = activation_inputs(node)
    return is_integer(node, placement) and all(str(value.name) in scales for value in computed)


def _quantize_activation(graph: _Graph, value: ir.Value, scale: Scale) -> None:
    name = str(value.name)
    parameters = [
        graph.constant(f"{name}.scale", np.array(scale.scale, dtype=np.float32)),
        graph.constant(f"{name}.zero_point", scale.zero_point),
    ]
    users = list(value.uses())
    integer = ir.DataType.from_numpy(scale.zero_point.dtype)
    quantize = ir.node("QuantizeLinear", [value, *parameters], name=f"{name}.Q")
    quantized = graph.add(quantize, integer, value.shape)
    dequantize = ir.node("DequantizeLinear", [quantized, *parameters], name=f"{name}.DQ")
    dequantized = graph.add(dequantize, ir.DataType.FLOAT, value.shape)
    for user, index in users:
        user.replace_input_with(index, dequantized)


def _quantize_weights(graph: _Graph, node: ir.Node, data: Scale, placement: Placement) -> None:
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    array = weight.const_value.numpy()
    transposed = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
    bias = node.inputs[2] if len(node.inputs) > 2 and placement.integer_bias else None
    least: NDArray[np.float64] | float = _SMALLEST_SCALE
    offsets = np.zeros(0)
    if bias is not None and bias.const_value is not None:
        channels = array.shape[1] if transposed else array.shape[0]
        offsets = np.broadcast_to(bias.const_value.numpy().astype(np.float64).ravel(), channels)
        # An INT32 bias must hold the offset: where it would not, the weights get coarser.
        least = np.maximum(_SMALLEST_SCALE, np.abs(offsets) / (_INT32_MAX * float(data.scale)))
    integers, scales = quantize_weight(array.T if transposed else array, least)
    axis = 1 if transposed else 0
    quantized = integers.T if transposed else integers
    node.replace_input_with(1, _dequantized(graph, f"{node.name}.weight", quantized, scales, axis))
    if bias is not None:
        products = (scales * data.scale).astype(np.float32)
        rounded = np.clip(np.rint(offsets / products), -_INT32_MAX, _INT32_MAX).astype(np.int32)
        node.replace_input_with(2, _dequantized(graph, f"{node.name}.bias", rounded, products, 0))
    for value in (weight, bias):
        if value is not None and not value.uses():
            graph.inner.initializers.pop(str(value.name), None)


def _dequantized(
    graph: _Graph,
    name: str,
    integers: NDArray[np.generic],
    scales: NDArray[np.float32],
    axis: int,
) -> ir.Value:
    inputs = [
        graph.constant(f"{name}.quantized", np.ascontiguousarray(integers)),
        graph.constant(f"{name}.scale", scales),
        graph.constant(f"{name}.zero_point", np.zeros(scales.shape, integers.dtype)),
    ]
    node = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{name}.DQ")
    return graph.add(node, ir.DataType.FLOAT, ir.Shape(integers.shape))
