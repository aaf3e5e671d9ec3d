"""ReduceMean over H and W → GlobalAveragePool.

    mean over the last two axes of (N, C, H, W), keepdims  =  GlobalAveragePool
    the same without keepdims                              =  GlobalAveragePool, Flatten(1)

``torch`` writes global average pooling as ``ReduceMean``, from opset 18 on with its axes as an
input. TensorRT 8.x ignores that input and averages over everything, without a word; and INT8
kernels know the pool only.
"""

from __future__ import annotations

import onnx_ir as ir

NAME = "global average pool"


def check(node: ir.Node) -> str | None:
    """Why the rule does not fit this node, or None where it fits."""
    if node.op_type != "ReduceMean" or node.domain:
        return "not a ReduceMean"
    value = node.inputs[0]
    if value is None or value.shape is None or len(value.shape) != 4:
        return "the input is not known to have four dimensions"
    axes = _axes(node)
    if axes is None:
        return "the axes are not constant"
    if sorted(axis % 4 for axis in axes) != [2, 3]:
        return f"reduces over {axes}, not over height and width"
    return None


def rewrite(node: ir.Node) -> list[ir.Node]:
    """The nodes that stand for it; the last one gives its output."""
    pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=f"{node.name}.pool")
    if node.attributes.get_int("keepdims", 1):
        return [pool]
    value, pooled = node.inputs[0], pool.outputs[0]
    pooled.name = pool.name
    if value is not None and value.shape is not None:
        pooled.type = value.type
        pooled.shape = ir.Shape([*value.shape[:2], 1, 1])
    return [pool, ir.node("Flatten", [pooled], {"axis": 1}, name=f"{node.name}.flatten")]


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = ir.convenience.get_const_tensor(node.inputs[1])
        return None if constant is None else [int(axis) for axis in constant.numpy().ravel()]
    attribute = node.attributes.get("axes")  # where they stood before opset 18
    return None if attribute is None else [int(axis) for axis in attribute.as_ints()]
