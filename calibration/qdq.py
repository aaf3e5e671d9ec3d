"""Thresholds → explicit Q/DQ in the graph.

    Q(x)  = clip(round(x / scale) + zero_point)         DQ(q) = (q - zero_point) · scale

Activations have one scale a tensor. With T the threshold, which covers -low to high:

    int8    scale = T / 127              zero point 0
    uint8   scale = (low + high) / 255   zero point low / scale, rounded

A ReLU's output uses all of 0..255 so, and one of SiLU, which goes down to -0.28, nearly all.

Weights have one scale an output channel, symmetric INT8 in -127..127, zero point 0. A bias is
INT32 at (scale of the input) · (scale of the weight), where the placement asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.names import Names
from convexport.calibration.placement import (
    Placement,
    activation_inputs,
    bare_input,
    is_integer,
    reads_integers,
)
from convexport.calibration.thresholds import Threshold

# A channel of zeros still needs a scale that a float16 copy of it could hold.
_SMALLEST_SCALE = 1e-7
_INT32_MAX = 2**31 - 1
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class Scale:
    """How one activation is quantized."""

    scale: np.float32
    zero_point: NDArray[np.generic]


def scale_of(threshold: Threshold, dtype: str) -> Scale:
    """The scale and zero point for a threshold, by the table above."""
    step = threshold.step(dtype)
    zero = round(threshold.low / step) if dtype == "uint8" else 0
    return Scale(np.float32(max(step, _SMALLEST_SCALE)), np.array(zero, dtype=dtype))


def insert_qdq(
    model: ir.Model,
    scales: Mapping[str, Scale],
    placement: Placement,
    means: Mapping[str, NDArray[np.float64]] | None = None,
) -> dict[str, str]:
    """Put Q/DQ on the named activations and on the weights of their Conv and Gemm, in place.

    Args:
        means: of each channel of an activation, (C,). Where they are given, biases take back by
            how much the rounding of the weights moves the mean output (M. Nagel et al.,
            Data-Free Quantization, 2019, section 4.2).

    Returns:
        The precision in which every node that was there before is placed: ``int8`` or ``fp32``.
    """
    if placement.half_scales:
        scales = {
            name: replace(each, scale=np.float32(half_above(np.array(each.scale))))
            for name, each in scales.items()
        }
    nodes = list(model.graph)
    placed = [_all_quantized(node, scales, placement) for node in nodes]
    values = {str(value.name): value for node in nodes for value in node.outputs}
    values.update((str(value.name), value) for value in model.graph.inputs)
    graph = _Graph(model.graph, Names(model.graph))
    readers = {
        name: [use for use in values[name].uses() if reads_integers(*use, placement)]
        for name in scales
    }
    for node, integer in zip(nodes, placed, strict=True):
        if integer and node.op_type in WEIGHTED:
            (data,) = activation_inputs(node)
            mean = (means or {}).get(str(data.name))
            _quantize_weights(graph, node, scales[str(data.name)], placement, mean)
    for name, scale in scales.items():
        _quantize_activation(graph, values[name], scale, readers[name])
    model.graph.sort()
    return {
        str(node.name): "int8" if integer else "fp32"
        for node, integer in zip(nodes, placed, strict=True)
    }


@dataclass(frozen=True)
class _Graph:
    """A graph that Q/DQ and constants are added to."""

    inner: ir.Graph
    names: Names

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        free = self.names.free(name)
        value = ir.Value(name=free, const_value=ir.tensor(array, name=free))
        value.shape = ir.Shape(array.shape)
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        self.inner.register_initializer(value)
        return value

    def add(self, node: ir.Node, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        output = node.outputs[0]
        output.name = node.name = self.names.free(str(node.name))
        output.type, output.shape = ir.TensorType(dtype), shape
        self.inner.append(node)
        return output


def quantize_weight(
    weight: NDArray[np.float32],
    least_scale: NDArray[np.float64] | float = _SMALLEST_SCALE,
    *,
    half_scales: bool = False,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric INT8, one scale an output channel (the first axis).

    Args:
        weight: (out, ...).
        least_scale: no channel's scale is smaller than this.
        half_scales: as in the placement.
    """
    flat = weight.reshape(len(weight), -1)
    scales = np.maximum(np.abs(flat).max(axis=1) / 127.0, least_scale).astype(np.float32)
    if half_scales:
        scales = half_above(scales)
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight / column), -127, 127).astype(np.int8), scales


def half_above(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The next numbers that FP16 holds, none smaller: a threshold is still within its scale.

    What is beyond its largest number stays as it is.
    """
    with np.errstate(over="ignore"):
        near = scales.astype(np.float16)
    above = np.where(near < scales, np.nextafter(near, np.float16(np.inf)), near)
    return np.where(np.isfinite(above), above.astype(np.float32), scales)


def output_axis(node: ir.Node) -> int:
    """The axis of a node's weights that belongs to its output channels."""
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def constant(value: ir.Value | None) -> NDArray[np.float32]:
    """The array that a constant input holds."""
    assert value is not None and value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _all_quantized(node: ir.Node, scales: Mapping[str, Scale], placement: Placement) -> bool:
    bare = bare_input(node, placement)
    computed = (value for value in activation_inputs(node) if value is not bare)
    return is_integer(node, placement) and all(str(value.name) in scales for value in computed)


def _quantize_activation(
    graph: _Graph, value: ir.Value, scale: Scale, readers: Sequence[tuple[ir.Node, int]]
) -> None:
    name = str(value.name)
    parameters = [
        graph.constant(f"{name}.scale", np.array(scale.scale, dtype=np.float32)),
        graph.constant(f"{name}.zero_point", scale.zero_point),
    ]
    integer = ir.DataType.from_numpy(scale.zero_point.dtype)
    quantize = ir.node("QuantizeLinear", [value, *parameters], name=f"{name}.Q")
    quantized = graph.add(quantize, integer, value.shape)
    dequantize = ir.node("DequantizeLinear", [quantized, *parameters], name=f"{name}.DQ")
    dequantized = graph.add(dequantize, ir.DataType.FLOAT, value.shape)
    for user, index in readers:
        user.replace_input_with(index, dequantized)


def _quantize_weights(
    graph: _Graph,
    node: ir.Node,
    data: Scale,
    placement: Placement,
    mean: NDArray[np.float64] | None,
) -> None:
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    array, axis = constant(weight), output_axis(node)
    channels = np.moveaxis(array, axis, 0)
    offsets = np.zeros(len(channels))
    if bias is not None:
        offsets = np.broadcast_to(constant(bias).astype(np.float64).ravel(), len(channels))
    # An INT32 bias must hold the offset: where it would not, the weights get coarser.
    limit = _INT32_MAX * float(data.scale)
    least = np.maximum(_SMALLEST_SCALE, np.abs(offsets) / limit) if placement.integer_bias else None
    integers, scales = quantize_weight(
        channels,
        _SMALLEST_SCALE if least is None else least,
        half_scales=placement.half_scales,
    )
    if mean is not None and node.op_type != "ConvTranspose":
        column = scales.astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))
        offsets = offsets - _mean_output(integers * column - channels, mean)
    quantized = np.moveaxis(integers, 0, axis)
    node.replace_input_with(1, _dequantized(graph, f"{node.name}.weight", quantized, scales, axis))
    if placement.integer_bias and (bias is not None or mean is not None):
        products = (scales * data.scale).astype(np.float32)
        rounded = np.clip(np.rint(offsets / products), -_INT32_MAX, _INT32_MAX).astype(np.int32)
        new: ir.Value | None = _dequantized(graph, f"{node.name}.bias", rounded, products, 0)
    elif mean is not None:
        new = graph.constant(f"{node.name}.bias", offsets.astype(np.float32))
    else:
        new = bias
    if new is not bias:
        node.resize_inputs(3)
        node.replace_input_with(2, new)
    for value in (weight, bias):
        if value is not None and not value.uses():
            graph.inner.initializers.pop(str(value.name), None)


def _mean_output(change: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a change of weights (out, in a group, ...) moves the mean of each output.

    Borders are left out of account: there the padding's zeros lower the mean of the inputs.
    """
    taps = change.reshape(*change.shape[:2], -1).sum(axis=2)
    groups = len(mean) // taps.shape[1]
    inputs = np.repeat(mean.reshape(groups, -1), len(taps) // groups, axis=0)
    return np.asarray((taps * inputs).sum(axis=1))


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
