"""U8 about a zero point → S8 about zero, for kernels that multiply either.

What is of both signs has a zero point in U8, by which each sum of products has to be corrected. In
S8 it needs none if its range is made symmetric, which makes the step between two integers larger,
the more so the less even the two sides are: SiLU's output, from -0.28 up, would lose a whole bit,
and stays as it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from convexport.calibration.qdq import WEIGHTED, constant

# By how much the step may grow.
LIMIT = 1.25


def sign_activations(graph: ir.Graph) -> tuple[str, ...]:
    """Rewrite Q/DQ in place, with the INT32 biases whose scale depends on theirs.

    Returns:
        The names of the tensors that are S8 now.
    """
    signed = []
    for node in graph:
        if node.op_type == "QuantizeLinear" and (growth := _growth(node)) <= LIMIT:
            _sign(node, growth)
            assert node.inputs[0] is not None
            signed.append(str(node.inputs[0].name))
    return tuple(signed)


def _growth(quantize: ir.Node) -> float:
    """By how much the step grows; infinite where there is nothing to gain."""
    zero = constant(quantize.inputs[2])
    if zero.dtype != np.uint8 or zero.ndim or zero == 0:
        return np.inf
    return max(int(zero), 255 - int(zero)) / 127


def _sign(quantize: ir.Node, growth: float) -> None:
    _, scale, zero = quantize.inputs
    _set(scale, (constant(scale) * growth).astype(np.float32))
    _set(zero, np.array(0, dtype=np.int8))
    (quantized,) = quantize.outputs
    quantized.type = ir.TensorType(ir.DataType.INT8)
    for dequantize, _ in quantized.uses():
        for node, index in dequantize.outputs[0].uses():
            if index == 0 and node.op_type in WEIGHTED and len(node.inputs) > 2:
                _rescale(node.inputs[2], growth)


def _rescale(bias: ir.Value | None, growth: float) -> None:
    """A bias at (scale of the input) · (scale of the weight), the former having grown."""
    dequantize = bias.producer() if bias is not None else None
    if dequantize is None:
        return  # it is in floats
    integers, scales, _ = dequantize.inputs
    _set(scales, (constant(scales) * growth).astype(np.float32))
    _set(integers, np.rint(constant(integers) / growth).astype(np.int32))


def _set(value: ir.Value | None, array: NDArray[np.generic]) -> None:
    """Each Q, with its DQ, and each bias has constants of its own (see ``qdq``)."""
    assert value is not None
    value.const_value = ir.tensor(array, name=value.name)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
