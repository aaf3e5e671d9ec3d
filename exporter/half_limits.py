"""What FP16 cannot hold: which nodes have to stay in FP32, each with its reason.

FP16 reaches 65504. From 2^-14 on it rounds by at most 2^-11 of a value; below, numbers are
2^-24 apart, so that rounding errs by up to 2^-25 however small the value is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf, prod

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

LARGEST = 65504.0
ROUNDING = 2.0**-11
_SMALLEST_ERROR = 2.0**-25
# Images that were not among those observed reach further, and FP16's own rounding adds up on the
# way. Two bits, of the ten or so that activations of trained nets leave free.
MARGIN = 4.0
# Twenty times what rounding costs where there are no subnormal numbers.
UNDERFLOW = 1e-2

# The one finding that keeps no node in FP32.
HARMLESS = "harmless underflow"
REASONS: Mapping[str, str] = {
    "weight overflow": "weights are beyond FP16's largest number",
    "weight underflow": f"FP16 rounds away more than {UNDERFLOW:.0%} of a channel's weights",
    "activation overflow": f"what was observed, times {MARGIN:g}, is beyond FP16's largest number",
    "activation underflow": f"all is so small that FP16 errs by more than {UNDERFLOW:.0%} of it",
    "sum": "a kernel that sums in FP16 could overflow before it divides",
    "operator": "it sums squares or exponentials, or makes infinity of what FP16 rounds to 0",
    "probabilities": "most probabilities are near 0, where FP16 has few bits or none",
    "type": "the operator is not defined for FP16 in this opset, or holds a graph of its own",
    "requested": "--keep-fp32 names it",
    "between": "only FP32 feeds and reads it, and it has no weights: FP16 would take two Casts",
    HARMLESS: "weights underflow, but the output moves by less than FP16's rounding of it",
}

_OPERATORS = frozenset(
    {"LRN", "Softmax", "LogSoftmax", "Log", "Reciprocal"}
    | {"ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}
    | {"LpPool", "GlobalLpPool", "LpNormalization", "MeanVarianceNormalization"}
    | {"InstanceNormalization", "LayerNormalization", "GroupNormalization"}
)
_SUMS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL1"})
# Operators that multiply their first input by the second, and the axis of its output channels.
CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}


@dataclass(frozen=True)
class Finding:
    """Something that FP16 cannot hold.

    Attributes:
        node: whose input, output or operator it is.
        reason: a key of ``REASONS``.
        tensor: the weight or activation; empty where it is the operator itself.
        magnitude: its largest absolute value; of a sum the largest that is possible; where
            weights underflow the largest of the channels in question; None: not known.
        limit: what the magnitude would have to be within.
        count: how many weights, or channels of them; 0 where nothing is counted.
    """

    node: str
    operator: str
    reason: str
    tensor: str = ""
    magnitude: float | None = None
    limit: float | None = None
    count: int = 0


@dataclass(frozen=True)
class Limits:
    """What is known of a graph: its opset, and the largest absolute value of each activation."""

    opset: int
    magnitudes: Mapping[str, float]
    probabilities: frozenset[ir.Value]

    def findings(self, node: ir.Node) -> Iterator[Finding]:
        """Why the node has to stay in FP32, and what underflows without harm."""
        if reason := self._operator(node):
            yield Finding(str(node.name), node.op_type, reason)
        elif node.op_type in _SUMS:
            yield from self._sum(node)
        for place in half_inputs(node, self.opset):
            value = node.inputs[place]
            if value is not None and value.is_initializer():
                yield from self._overflow(node, value)
                yield from self._underflow(node, place, value)
            elif value is not None:
                yield from self._activation(node, value)
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                yield from self._activation(node, value)

    def magnitude(self, value: ir.Value) -> float:
        """The largest absolute value of a weight or an activation."""
        if value.is_initializer():
            array = array_of(value)
            return float(max(array.max(initial=0.0), -array.min(initial=0.0)))
        return self.magnitudes[str(value.name)]

    def _overflow(self, node: ir.Node, value: ir.Value) -> Iterator[Finding]:
        largest = self.magnitude(value)
        if largest > LARGEST:
            names = str(node.name), node.op_type, "weight overflow", str(value.name)
            yield Finding(*names, largest, LARGEST, int((np.abs(array_of(value)) > LARGEST).sum()))

    def _underflow(self, node: ir.Node, place: int, value: ir.Value) -> Iterator[Finding]:
        rows = _by_channel(node, place, array_of(value))
        least = _SMALLEST_ERROR / UNDERFLOW
        rows = rows[np.abs(rows).mean(axis=1) < 2 * least]  # no other channel can lose so much
        sizes, errors = (
            np.abs(each).sum(axis=1, dtype=np.float64)
            for each in (rows, rows - rows.astype(np.float16))
        )
        bad = errors > UNDERFLOW * sizes
        if bad.any():
            effect = self._effect(node, place, float(errors[bad].max()))
            reason = HARMLESS if effect <= ROUNDING else "weight underflow"
            names = str(node.name), node.op_type, reason, str(value.name)
            yield Finding(*names, float(np.abs(rows[bad]).max()), least, int(bad.sum()))

    def _effect(self, node: ir.Node, place: int, error: float) -> float:
        """How far at most the node's output moves, as a share of the largest value it had."""
        if place == 1 and node.op_type in CHANNELS and node.inputs[0] is not None:
            error *= self.magnitude(node.inputs[0])
        elif place != 2 or node.op_type not in {*CHANNELS, "BatchNormalization"}:
            return inf  # not known; of a bias it is the error itself
        output = self.magnitude(node.outputs[0])
        return error / output if output else inf

    def _operator(self, node: ir.Node) -> str:
        divides = node.op_type == "Div" and not (node.inputs[1] and node.inputs[1].is_initializer())
        if not _has_half(node, self.opset):
            return "type"
        if node.op_type in _OPERATORS or divides:
            return "operator"
        weighted = node.op_type in CHANNELS
        return "" if weighted or self.probabilities.isdisjoint(node.inputs) else "probabilities"

    def _sum(self, node: ir.Node) -> Iterator[Finding]:
        value = node.inputs[0]
        assert value is not None
        extent, limit = _extent(node), LARGEST / MARGIN
        total = None if extent is None else extent * self.magnitude(value)
        if total is None or total > limit:
            yield Finding(str(node.name), node.op_type, "sum", str(value.name), total, limit)

    def _activation(self, node: ir.Node, value: ir.Value) -> Iterator[Finding]:
        largest, least = self.magnitude(value), _SMALLEST_ERROR / UNDERFLOW
        names = str(node.name), node.op_type
        if largest * MARGIN > LARGEST:
            reason, limit = "activation overflow", LARGEST / MARGIN
            yield Finding(*names, reason, str(value.name), largest, limit)
        elif 0 < largest < least:
            yield Finding(*names, "activation underflow", str(value.name), largest, least)


def computes_floats(node: ir.Node) -> bool:
    """Whether a node has a float32 input or output, so that it has a precision at all."""
    values = (*node.inputs, *node.outputs)
    return any(value is not None and value.dtype == ir.DataType.FLOAT for value in values)


def half_inputs(node: ir.Node, opset: int) -> list[int]:
    """The places of the float32 inputs that the operator takes as float16 too."""
    return [place for place, may in _floats(node, opset, "inputs") if may]


def array_of(value: ir.Value) -> NDArray[np.float32]:
    """An initializer's values."""
    assert value.const_value is not None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _has_half(node: ir.Node, opset: int) -> bool:
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    if any(attribute.type in graphs for attribute in node.attributes.values()):
        return False
    # What makes floats of no floats says their type in an attribute; of a Cast we can change it.
    typed = bool(half_inputs(node, opset)) or node.op_type == "Cast"
    return typed and all(may for _, may in _floats(node, opset, "outputs"))


def _floats(node: ir.Node, opset: int, side: str) -> Iterator[tuple[int, bool]]:
    """The places of float32 tensors on one side of a node, and whether they may be float16."""
    formal = _half_allowed(node.domain, node.op_type, opset, side)
    for place, value in enumerate(getattr(node, side)):
        if value is not None and value.dtype == ir.DataType.FLOAT:
            yield place, bool(formal) and formal[min(place, len(formal) - 1)]


@cache
def _half_allowed(domain: str, operator: str, opset: int, side: str) -> tuple[bool, ...]:
    if domain or not onnx.defs.has(operator, opset, domain):
        return ()
    schema = onnx.defs.get_schema(operator, opset, domain)
    return tuple("tensor(float16)" in formal.types for formal in getattr(schema, side))


def _by_channel(node: ir.Node, place: int, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, weights of each): by output channel, or all as one where there are none."""
    axis = CHANNELS.get(node.op_type)
    if place != 1 or axis is None or array.ndim < 2:
        return array.reshape(1, -1)
    if node.op_type == "Gemm" and node.attributes.get_int("transB"):
        axis = 0
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _extent(node: ir.Node) -> int | None:
    """How many values go into one output of a sum or mean; None where shapes do not tell."""
    if node.op_type == "AveragePool":
        return prod(node.attributes.get_ints("kernel_shape"))
    before, after = (side[0].shape for side in (node.inputs, node.outputs) if side[0] is not None)
    if before is None or after is None:
        return None
    free = {str(size) for size in before if not isinstance(size, int)}
    if not free <= {str(size) for size in after}:
        return None
    sizes = [prod(size for size in shape if isinstance(size, int)) for shape in (before, after)]
    return sizes[0] // max(sizes[1], 1)
