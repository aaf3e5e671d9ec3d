"""Which tensors get Q/DQ: rules of a target as data, and the tensors they choose in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

ACTIVATIONS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The rules of one target.

    Attributes:
        integer_ops: operators that have an integer kernel there. Their activation inputs get
            Q/DQ, and so do their outputs, so that a kernel has integers at both ends.
        float_outputs: those of them whose kernel may also write floats: the output gets Q/DQ
            only where another integer operator reads it.
        keep_scale: operators whose output takes its input's scale, because they only choose
            among values or move them.
        activations: ``uint8`` or ``int8``.
        integer_bias: whether biases are stored as INT32 at the product of the two scales.
    """

    integer_ops: frozenset[str]
    float_outputs: frozenset[str] = frozenset()
    keep_scale: frozenset[str] = frozenset()
    activations: str = "int8"
    integer_bias: bool = False


# ONNX Runtime on a CPU: U8S8 is what its kernels run about three times as fast as FP32, S8S8
# gains nothing; an Add or a pool between two convolutions in floats would undo the gain.
CPU = Placement(
    integer_ops=frozenset(
        {"Conv", "Gemm", "Add", "MaxPool", "GlobalAveragePool", "AveragePool", "Flatten", "Concat"}
    ),
    float_outputs=frozenset({"Gemm"}),
    keep_scale=frozenset({"MaxPool", "Flatten"}),
    activations="uint8",
    integer_bias=True,
)


def quantized_tensors(graph: ir.Graph, placement: Placement) -> tuple[str, ...]:
    """The names of the activations that get Q/DQ, in the order of the graph.

    Never a graph output (its reader wants floats) and never the tensor between an operator and
    the activation that is fused into it.
    """
    chosen: dict[str, None] = {}
    for node in graph:
        if node.op_type not in placement.integer_ops or not is_integer(node, placement):
            continue
        for value in activation_inputs(node):
            chosen[str(value.name)] = None
        output = fused_output(node)
        read_by = {user.op_type for user, _ in output.uses()}
        if node.op_type not in placement.float_outputs or read_by & placement.integer_ops:
            chosen[str(output.name)] = None
    outputs = {value.name for value in graph.outputs}
    return tuple(name for name in chosen if name not in outputs)


def is_integer(node: ir.Node, placement: Placement) -> bool:
    """Whether this node can run in integers: a Conv or Gemm needs constant weights."""
    if node.op_type in ("Conv", "Gemm"):
        weight = node.inputs[1]
        return weight is not None and ir.convenience.get_const_tensor(weight) is not None
    return node.op_type in placement.integer_ops


def activation_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are computed, not constant."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def fused_output(node: ir.Node) -> ir.Value:
    """The node's output, or that of the activation which a runtime fuses into the node."""
    output = node.outputs[0]
    users = [user for user, _ in output.uses()]
    if len(users) == 1 and users[0].op_type in ACTIVATIONS and not output.is_graph_output():
        return users[0].outputs[0]
    return output


def scale_source(graph: ir.Graph, name: str, placement: Placement) -> str:
    """The tensor whose scale this one takes: itself, or the first before it that has its own."""
    producers = {str(node.outputs[0].name): node for node in graph}
    while name in producers and producers[name].op_type in placement.keep_scale:
        name = str(activation_inputs(producers[name])[0].name)
    return name
