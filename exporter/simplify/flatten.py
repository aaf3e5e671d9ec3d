"""Reshape to (batch, everything else) → Flatten(1).

    Reshape(x, [-1, C·H·W])                =  Flatten(x, axis=1)     for x of (batch, C, H, W)
    Reshape(x, Concat(Shape(x)[0], [-1]))  =  the same, as ``x.view(x.shape[0], -1)`` writes it

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
    if value is None or value.shape is None or shape is None:
        return "the shapes are not known"
    rest = list(value.shape)[1:]
    if not rest or not all(isinstance(dim, int) for dim in rest):
        return "the dimensions after the batch are not known"
    if isinstance(value.shape[0], int):
        return "the batch is a constant"
    target = _target(value, shape)
    if target not in ([-1, prod(rest)], [0, prod(rest)], [0, -1]):
        return f"reshapes to {target}"
    return None


def _target(value: ir.Value, shape: ir.Value) -> list[int] | None:
    """What is reshaped to; 0 stands for the input's own batch, None for what is not known."""
    constant = ir.convenience.get_const_tensor(shape)
    if constant is not None:
        return [int(dim) for dim in constant.numpy().ravel()]
    concat = shape.producer()
    if concat is None or concat.op_type != "Concat" or len(concat.inputs) != 2:
        return None
    batch, rest = concat.inputs
    size = None if rest is None else ir.convenience.get_const_tensor(rest)
    if batch is None or size is None or size.numpy().size != 1 or not _is_batch(batch, value):
        return None
    return [0, int(size.numpy().item())]


def _is_batch(dim: ir.Value, value: ir.Value) -> bool:
    """Whether ``dim`` is computed as the first dimension of a tensor with this one's batch."""
    node = dim.producer()
    if node is None or node.op_type != "Shape" or node.inputs[0] is None:
        return False
    first = node.attributes.get_int("start", 0) == 0 and node.attributes.get_int("end", -1) == 1
    shape = node.inputs[0].shape
    return first and shape is not None and value.shape is not None and shape[0] == value.shape[0]


def rewrite(node: ir.Node) -> list[ir.Node]:
    """The node that stands for it."""
    return [ir.node("Flatten", [node.inputs[0]], {"axis": 1}, name=node.name)]
