"""Reshape to (batch, everything else) → Flatten(1).

    Reshape(x, [-1, C·H·W])  =  Flatten(x, axis=1)        for x of shape (batch, C, H, W)

``Flatten`` needs no shape constant, keeps the batch free by construction and is understood by
every runtime; ``Reshape`` comes with an ``allowzero`` that older parsers do not know.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

NAME = "flatten"


def check(node: ir.Node) -> str | None:
    """Why the rule does not fit this node, or None where it fits."""
    if node.op_type != "Reshape" or node.domain:
        return "not a Reshape"
    value, shape = node.inputs[:2]
    constant = None if shape is None else ir.convenience.get_const_tensor(shape)
    if value is None or value.shape is None or constant is None:
        return "the shapes are not known"
    rest = list(value.shape)[1:]
    if not rest or not all(isinstance(dim, int) for dim in rest):
        return "the dimensions after the batch are not known"
    if isinstance(value.shape[0], int):
        return "the batch is a constant"
    target = constant.numpy().tolist()
    if target not in ([-1, prod(rest)], [0, prod(rest)], [0, -1]):
        return f"reshapes to {target}"
    return None


def rewrite(node: ir.Node) -> list[ir.Node]:
    """The node that stands for it."""
    return [ir.node("Flatten", [node.inputs[0]], {"axis": 1}, name=node.name)]
