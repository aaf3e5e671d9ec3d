"""Which tensors get Q/DQ: rules of a target as data, and the tensors they choose in a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

ACTIVATIONS = frozenset({"Relu", "Clip"})
# Not an operator: the two that x · sigmoid(x) is written as, or the same with a hard sigmoid.
SILU = "SiLU"
_GATES = frozenset({"Sigmoid", "HardSigmoid"})
# Operators with weights; what they compute depends on all of their input, not on its last bits.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The rules of one target.

    Attributes:
        integer_ops: operators that have an integer kernel there. Their activation inputs get Q/DQ.
        only_between: those of them that compute nothing: integer only where all that reads them
            is.
        outputs: whether their outputs get Q/DQ too, so that a kernel has integers at both ends;
            otherwise the runtime moves the next operator's Q/DQ to where it likes it.
        float_outputs: those of them whose kernel may also write floats: the output gets Q/DQ
            only where another integer operator reads it.
        bare_branch: operators that are fused into the convolution which gives one of their
            inputs: that input gets no Q/DQ.
        keep_scale: operators whose output takes its input's scale, because they only choose
            among values or move them.
        common_scale: operators whose inputs and output share one scale.
        lend_scale: operators that only move values, and lend their output's scale to what nothing
            else reads: rounded once, and not by two scales in turn.
        fused: activations that are computed within the operator before them, from its floats.
        activations: ``uint8`` or ``int8``.
        integer_bias: whether biases are stored as INT32 at the product of the two scales.
        half_scales: whether scales are numbers that FP16 holds, so that a graph whose Q/DQ have
            FP16 at their float ends has the same.
        rewritten_pools: whether average pools are written as in ``calibration.pools``.
        kept: names of nodes that stay in floats, whatever they are.
    """

    integer_ops: frozenset[str]
    only_between: frozenset[str] = frozenset()
    outputs: bool = True
    float_outputs: frozenset[str] = frozenset()
    bare_branch: frozenset[str] = frozenset()
    keep_scale: frozenset[str] = frozenset()
    common_scale: frozenset[str] = frozenset()
    lend_scale: frozenset[str] = frozenset()
    fused: frozenset[str] = ACTIVATIONS
    activations: str = "int8"
    integer_bias: bool = False
    half_scales: bool = False
    rewritten_pools: bool = False
    kept: frozenset[str] = frozenset()


# ONNX Runtime on a CPU: U8S8 is what its kernels are made for, S8S8
# gains nothing; an Add, a Mul (of SiLU and squeeze-and-excitation) or a pool between two
# convolutions in floats would undo the gain. A Concat that floats read, as all of DenseNet's,
# is left in floats: rounding it takes accuracy there, and slows OpenVINO down.
CPU = Placement(
    integer_ops=frozenset(
        {"Conv", "Gemm", "Add", "Mul", "MaxPool", "GlobalAveragePool", "AveragePool"}
        | {"Flatten", "Concat"}
    ),
    only_between=frozenset({"Concat"}),
    float_outputs=frozenset({"Gemm"}),
    keep_scale=frozenset({"MaxPool", "Flatten"}),
    lend_scale=frozenset({"Concat"}),
    activations="uint8",
    integer_bias=True,
    rewritten_pools=True,
)

# OpenVINO on a CPU: the same but for activations, which it computes within the convolution. Q/DQ
# before or within them keep it from that, and round once more. It chooses among the CPU's tensors,
# whose ranges serve both.
OPENVINO = replace(
    CPU,
    fused=ACTIVATIONS | {"HardSigmoid", "HardSwish", "LeakyRelu", "Sigmoid", "Tanh", SILU},
    float_outputs=CPU.integer_ops,
)

# TensorRT: inputs only, symmetric INT8; Conv + Add is one kernel that wants integers on the
# shortcut alone; a Concat of different scales costs a requantization a branch; an integer bias
# is refused (NVIDIA, TensorRT documentation, "Working with Quantized Types"). The rules were
# not run on a GPU.
TENSORRT = Placement(
    integer_ops=frozenset(
        {"Conv", "ConvTranspose", "Gemm", "Add", "MaxPool", "GlobalAveragePool", "AveragePool"}
    ),
    outputs=False,
    bare_branch=frozenset({"Add"}),
    keep_scale=frozenset({"MaxPool"}),
    common_scale=frozenset({"Concat"}),
    half_scales=True,
)


def quantized_tensors(graph: ir.Graph, placement: Placement) -> tuple[str, ...]:
    """The names of the activations that get Q/DQ, in the order of the graph.

    Never a graph output (its reader wants floats), never the tensor between an operator and
    the activation that is fused into it, and never a probability.
    """
    chosen: dict[str, None] = {}
    softened = probabilities(graph)
    for node in graph:
        if not is_integer(node, placement) or softened & set(activation_inputs(node)):
            continue
        bare = bare_input(node, placement)
        for value in activation_inputs(node):
            if value is not bare:
                chosen[str(value.name)] = None
        output = fused_output(node, placement)
        readers = (user for user, _ in output.uses())
        if placement.outputs and (
            node.op_type not in placement.float_outputs
            or any(is_integer(reader, placement) for reader in readers)
        ):
            chosen[str(output.name)] = None
    outputs = {value.name for value in graph.outputs}
    return tuple(name for name in chosen if name not in outputs)


def reads_integers(node: ir.Node, index: int, placement: Placement) -> bool:
    """Whether a node that reads a tensor with Q/DQ reads it behind them, or as it was."""
    if placement.outputs:
        return True  # a second reader of the floats would keep the kernel from writing integers
    value = node.inputs[index]
    return is_integer(node, placement) and value is not bare_input(node, placement)


def bare_input(node: ir.Node, placement: Placement) -> ir.Value | None:
    """The branch of an addition that ends in the convolution with which a runtime fuses it.

    Where both do, the longer one: the other is the projection of the shortcut.
    """
    if node.op_type not in placement.bare_branch:
        return None
    branches = [
        value
        for value in activation_inputs(node)
        if (producer := value.producer()) is not None
        and producer.op_type == "Conv"
        and len(value.uses()) == 1
    ]
    return max(branches, key=_depth, default=None)


def _depth(value: ir.Value) -> int:
    """How many nodes lie before a value, along the longest path."""
    depths: dict[ir.Value, int] = {}
    waiting = [value]
    while waiting:
        current = waiting[-1]
        producer = current.producer()
        before = [] if producer is None else activation_inputs(producer)
        missing = [each for each in before if each not in depths]
        if missing:
            waiting.extend(missing)
            continue
        depths[waiting.pop()] = 1 + max((depths[each] for each in before), default=0)
    return depths[value]


def probabilities(graph: ir.Graph) -> set[ir.Value]:
    """What Softmax gives and what is made of it: most are near 0, where one scale has no steps."""
    found: set[ir.Value] = set()
    for node in graph:
        follows = node.op_type not in _WEIGHTED and not found.isdisjoint(node.inputs)
        if node.op_type in ("Softmax", "LogSoftmax") or follows:
            found.update(node.outputs)
    return found


def is_integer(node: ir.Node, placement: Placement) -> bool:
    """Whether the runtime has an integer kernel for this very node, not only for its operator."""
    if node.op_type not in placement.integer_ops or node.domain or node.name in placement.kept:
        return False
    computed = activation_inputs(node)
    if not computed or any(value.dtype not in (None, ir.DataType.FLOAT) for value in computed):
        return False
    if SILU in placement.fused and _gated(node) is not None:
        return False
    if node.op_type in placement.only_between:
        readers = [user for user, _ in node.outputs[0].uses()]
        return all(is_integer(user, placement) for user in readers)
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        # The data is computed; weights and bias are constant, and nothing else is scaled.
        plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        plain &= computed == [node.inputs[0]] and not node.attributes.get_int("transA", 0)
        return plain and _one_bias_a_channel(node)
    if node.op_type == "AveragePool":
        # ONNX Runtime's integer kernel counts the padding of a partial window differently.
        padded = node.attributes.get_int("count_include_pad", 0)
        return not (padded and node.attributes.get_int("ceil_mode", 0))
    return len(computed) == len(node.inputs)


def _one_bias_a_channel(node: ir.Node) -> bool:
    if node.op_type == "ConvTranspose":
        return node.attributes.get_int("group", 1) == 1
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = () if bias is None or bias.const_value is None else bias.const_value.shape.numpy()
    # A Gemm may add a whole matrix, or one value to each image.
    return len(shape) < 2 or (prod(shape[:-1]) == 1 and shape[-1] > 1)


def stranded(graph: ir.Graph, placement: Placement) -> frozenset[str]:
    """Integer operators without weights that stand beside no integer one with weights.

    Integers would cost them accuracy, and save no time where floats come and go.
    """

    def weighted(value: ir.Value) -> bool:
        nodes = [value.producer(), *(user for user, _ in value.uses())]
        return any(
            node is not None and node.op_type in _WEIGHTED and is_integer(node, placement)
            for node in nodes
        )

    found = set()
    for node in graph:
        if node.op_type in _WEIGHTED or not is_integer(node, placement):
            continue
        beside = [fused_output(node, placement), *activation_inputs(node)]
        before = [value.producer() for value in beside]
        # An activation between a convolution and this operator belongs to the convolution.
        beside += [
            value
            for producer in before
            if producer is not None and producer.op_type in placement.fused
            for value in activation_inputs(producer)
        ]
        if not any(weighted(value) for value in beside):
            found.add(str(node.name))
    return frozenset(found)


def activation_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are computed, not constant."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def fused_output(node: ir.Node, placement: Placement) -> ir.Value:
    """The node's output, or that of the activation which a runtime fuses into the node."""
    output = node.outputs[0]
    users = {user for user, _ in output.uses()}
    if output.is_graph_output():
        return output
    if len(users) == 1 and (user := next(iter(users))).op_type in placement.fused:
        return user.outputs[0]
    if SILU in placement.fused and len(users) == 2:
        products = [user for user in users if _gated(user) is output]
        gates = users - {*products}
        if products and all(gate.op_type in _GATES for gate in gates):
            return products[0].outputs[0]
    return output


def _gated(node: ir.Node) -> ir.Value | None:
    """The x of a product that is x · sigmoid(x)."""
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        gate = None if other is None else other.producer()
        if gate is not None and gate.op_type in _GATES and gate.inputs[0] is value:
            return value
    return None
