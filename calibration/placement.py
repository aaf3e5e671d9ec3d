"""Which tensors get Q/DQ: rules of a target as data, and the tensors they choose in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

ACTIVATIONS = frozenset({"Relu", "Clip"})
# Operators with weights; what they compute depends on all of their input, not on its last bits.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


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

    Never a graph output (its reader wants floats), never the tensor between an operator and
    the activation that is fused into it, and never a probability.
    """
    chosen: dict[str, None] = {}
    probabilities = _probabilities(graph)
    for node in graph:
        if not is_integer(node, placement) or probabilities & set(activation_inputs(node)):
            continue
        for value in activation_inputs(node):
            chosen[str(value.name)] = None
        output = fused_output(node)
        read_by = {user.op_type for user, _ in output.uses()}
        if node.op_type not in placement.float_outputs or read_by & placement.integer_ops:
            chosen[str(output.name)] = None
    outputs = {value.name for value in graph.outputs}
    return tuple(name for name in chosen if name not in outputs)


def _probabilities(graph: ir.Graph) -> set[ir.Value]:
    """What Softmax gives and what is made of it: most are near 0, where one scale has no steps."""
    found: set[ir.Value] = set()
    for node in graph:
        follows = node.op_type not in _WEIGHTED and not found.isdisjoint(node.inputs)
        if node.op_type in ("Softmax", "LogSoftmax") or follows:
            found.update(node.outputs)
    return found


def is_integer(node: ir.Node, placement: Placement) -> bool:
    """Whether the runtime has an integer kernel for this very node, not only for its operator."""
    if node.op_type not in placement.integer_ops or node.domain:
        return False
    computed = activation_inputs(node)
    if not computed or any(value.dtype not in (None, ir.DataType.FLOAT) for value in computed):
        return False
    if node.op_type in ("Conv", "Gemm"):
        # The data is computed; weights and bias are constant, and nothing else is scaled.
        plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        return plain and computed == [node.inputs[0]] and not node.attributes.get_int("transA", 0)
    if node.op_type == "AveragePool":
        # ONNX Runtime's integer kernel counts the padding of a partial window differently.
        padded = node.attributes.get_int("count_include_pad", 0)
        return not (padded and node.attributes.get_int("ceil_mode", 0))
    return len(computed) == len(node.inputs)


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


def scale_sources(graph: ir.Graph, placement: Placement) -> dict[str, str]:
    """For each tensor that gets Q/DQ, the tensor whose scale it takes: mostly itself.

    Behind an operator that keeps its input's scale it is the first before it that has its own.
    """
    producers = {str(value.name): node for node in graph for value in node.outputs}
    sources = {}
    for tensor in quantized_tensors(graph, placement):
        name = tensor
        while name in producers and producers[name].op_type in placement.keep_scale:
            name = str(activation_inputs(producers[name])[0].name)
        sources[tensor] = name
    return sources
