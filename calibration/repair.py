"""Repair before INT8: the same function, with channels of equal size.

An activation has one scale, so a channel that is a hundred times smaller than the largest is left
with two or three steps. Where nothing but a positively homogeneous operator stands between two
weighted ones, a channel can be scaled in the first and back in the second (M. Nagel et al.,
Data-Free Quantization, 2019, section 4.1). Weights have a scale an output channel, which takes
such a factor up without loss in the first operator, and in a depthwise second one too: there all
channels get the same range. A dense second one mixes its inputs in one scale: there the factor is
the geometric mean between evening out the activations and leaving the weights alone (G. Xiao et
al., SmoothQuant, 2022, section 4).

A ReLU6 stays as it is: no channel is scaled so far that values up to twice the largest one seen
would reach the 6, and one that reaches it is not scaled at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.histograms import TensorRange
from convexport.calibration.placement import ACTIVATIONS
from convexport.calibration.qdq import constant, output_axis

# They keep channels apart and commute with a positive factor a channel.
_HOMOGENEOUS = frozenset({"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten"})
# A channel that is smaller yet is noise; its factor would blow up the next weights. A depthwise
# operator has a scale a channel, which takes any factor up: there it ends where floats do.
_LARGEST_FACTOR, _LARGEST_DEPTHWISE = 1e4, 1e7
# Below a spread of 4, the median channel lacks less than two of its eight bits.
_WORTHWHILE = 4.0
_MARGIN = 2.0

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Equalized:
    """A pair of operators between which channels were evened out.

    Attributes:
        first: name of the node whose outputs were scaled.
        second: name of the node that scales back.
        spread: largest channel over the median one before, at least 1.
    """

    first: str
    second: str
    spread: float


def equalize(
    model: ir.Model, ranges: Mapping[str, TensorRange], *, clipped: bool = True
) -> tuple[Equalized, ...]:
    """Even out channels wherever two weighted operators allow it, in place.

    Args:
        model: Conv and Gemm with constant weights that no other node reads are taken.
        ranges: of activations, with channels; pairs without are left alone.
        clipped: whether to scale before a ReLU6 too, which is exact only as far as the ranges are.

    Returns:
        What was done, in the order of the graph. The ranges hold no longer where it is not empty.
    """
    done = []
    for node in model.graph:
        between = _values_behind(node)
        second = _only_user(between[-1]) if _scalable(node) else None
        names = [str(value.name) for value in _quantized(between)]
        seen = next((ranges[name] for name in names if name in ranges), None)
        if second is None or seen is None or seen.channels is None or not _scalable(second):
            continue
        magnitude = seen.channels.magnitude.astype(np.float64)
        sizes = {constant(node.inputs[1]).shape[output_axis(node)], _inputs_of(second)}
        largest = _LARGEST_DEPTHWISE if _depthwise(second) else _LARGEST_FACTOR
        alive = magnitude > seen.magnitude / largest
        if sizes != {len(magnitude)} or second.inputs[0] is not between[-1] or not alive.any():
            continue
        spread = seen.magnitude / float(np.median(magnitude[alive]))
        if spread < _WORTHWHILE:
            continue
        factor = _factors(magnitude, second)
        # The largest channel stays as large as it is.
        factor *= (magnitude[alive] / factor[alive]).max() / seen.magnitude
        ceiling = _ceiling(between)
        if ceiling is not None and not clipped:
            continue
        if ceiling is not None:
            factor = np.clip(factor, np.minimum(_MARGIN * magnitude / ceiling, 1.0), 1.0)
        factor = np.where(alive, factor, 1.0)
        _scale(node, 1 / factor, output_axis(node))
        _scale(second, factor, 0 if _depthwise(second) else 1 - output_axis(second), bias=False)
        done.append(Equalized(str(node.name), str(second.name), spread))
    return tuple(done)


def _quantized(between: list[ir.Value]) -> list[ir.Value]:
    """The same without what an activation cuts off, which is in no INT8 range."""
    producer = between[1].producer() if len(between) > 1 else None
    return between[producer is not None and producer.op_type in ACTIVATIONS :]


def _inputs_of(node: ir.Node) -> int:
    """How many input channels a node's weights speak of; 0 for groups of several."""
    shape = constant(node.inputs[1]).shape
    if node.attributes.get_int("group", 1) == 1:
        return int(shape[1 - output_axis(node)])
    return int(shape[0]) if _depthwise(node) else 0


def _factors(magnitude: _Array, second: ir.Node) -> _Array:
    """What each channel is divided by, up to a common factor."""
    safe = np.maximum(magnitude, np.finfo(np.float32).tiny)
    if _depthwise(second):
        return safe
    weights = np.moveaxis(constant(second.inputs[1]), output_axis(second), 0)
    largest = np.abs(weights).reshape(len(weights), weights.shape[1], -1).max(axis=(0, 2))
    return np.asarray(np.sqrt(safe / np.maximum(largest, np.finfo(np.float32).tiny)))


def _values_behind(node: ir.Node) -> list[ir.Value]:
    """A node's output, and those of the homogeneous operators that alone follow it."""
    values = [node.outputs[0]]
    while (user := _only_user(values[-1])) is not None:
        if user.op_type not in _HOMOGENEOUS and _clipped_at(user) is None:
            break
        values.append(user.outputs[0])
    return values


def _ceiling(values: list[ir.Value]) -> float | None:
    """The largest value that a clipped activation among these lets through."""
    producers = [value.producer() for value in values[1:]]
    found = [limit for node in producers if node and (limit := _clipped_at(node)) is not None]
    return min(found, default=None)


def _clipped_at(node: ir.Node) -> float | None:
    """The upper limit of a Clip whose lower one is 0."""
    bounds = [value.const_value for value in node.inputs[1:] if value is not None]
    if node.op_type != "Clip" or len(bounds) != 2 or None in bounds:
        return None
    low, high = (float(bound.numpy()) for bound in bounds if bound is not None)
    return high if low == 0 < high else None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def _scalable(node: ir.Node) -> bool:
    """Whether its weights and bias are constants of its own, in the layout of a Conv or Gemm."""
    if node.op_type not in ("Conv", "Gemm") or node.domain:
        return False
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return False
    own = [value for value in node.inputs[1:] if value is not None]
    constants = all(value.const_value is not None and len(value.uses()) == 1 for value in own)
    return constants and not node.attributes.get_int("transA", 0)


def _depthwise(node: ir.Node) -> bool:
    """One filter a channel: as many groups as outputs, one input each."""
    shape = constant(node.inputs[1]).shape
    return node.op_type == "Conv" and node.attributes.get_int("group", 1) == shape[0] > 1


def _scale(node: ir.Node, factor: _Array, axis: int, *, bias: bool = True) -> None:
    """Multiply the weights by a factor along one axis, and the bias by the same."""
    array = constant(node.inputs[1])
    _replace(
        node.inputs[1], array * factor.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    )
    if bias and len(node.inputs) > 2 and node.inputs[2] is not None:
        _replace(node.inputs[2], constant(node.inputs[2]) * factor)


def _replace(value: ir.Value | None, array: NDArray[np.floating]) -> None:
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
