"""A model that tells what there is to see of tensors inside it.

Bounds are computed in the graph, where a tensor lies anyway; what leaves it is a value a channel,
and of a large tensor an even grid of values to be counted. Handing out whole tensors would cost
more than the statistics: most have to be brought back from the layout of the kernels first.
"""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from convexport.calibration.names import Names

# Values an image that are counted of one tensor, about: of a hundred images more than a million,
# which leaves a percentile of 99.999 some ten beyond it. Fewer move thresholds more.
COUNTED = 1 << 14

_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})


@dataclass(frozen=True)
class Outputs:
    """Names of the outputs that tell of one tensor.

    Attributes:
        values: the tensor, or an even grid of it.
        channels: minimum, maximum and mean of each image's channels, (N, C, 1, 1), or none where
            ``values`` is all of the tensor. The mean is of the grid, and so is the minimum of what
            is never negative.
    """

    values: str
    channels: tuple[str, str, str] | None = None


def write_observed(model: Path, tensors: Iterable[str], path: Path) -> dict[str, Outputs]:
    """Copy a model, with outputs that tell of the named tensors.

    Args:
        model: ONNX in one file.
        tensors: names of values; inputs are passed over, a runner's caller has them.

    Returns:
        Where to find each tensor.
    """
    loaded = ir.load(model)
    opset = loaded.opset_imports.get("", 0)
    known = {value.name for value in loaded.graph.outputs}
    names = Names(loaded.graph)
    axes = names.free("observed/axes")
    found, more = {name: Outputs(name) for name in tensors}, onnx.ModelProto()
    # Backwards: ONNX Runtime takes the last of them first, while what they read is in the cache.
    for value in reversed([value for node in loaded.graph for value in node.outputs]):
        name, shape = str(value.name), _static(value)
        if name in found and shape is not None:
            found[name] = _observe(value, shape, axes if opset >= 18 else None, more.graph, names)
        elif name in found and name not in known:
            more.graph.output.append(ir.to_proto(value))
    if any(node.op_type == "ReduceMin" and len(node.input) > 1 for node in more.graph.node):
        more.graph.initializer.append(helper.make_tensor(axes, TensorProto.INT64, [2], [2, 3]))
    # Models of onnx_ir refer to themselves in cycles: uncollected, their weights would stay.
    del loaded, value
    gc.collect()
    shutil.copyfile(model, path)
    with path.open("ab") as file:
        # Messages of protobuf that follow one another are merged, lists by appending: no second
        # copy of the weights is made in memory.
        file.write(more.SerializeToString())
    return found


def _observe(
    value: ir.Value,
    shape: tuple[int, int, int],
    axes: str | None,
    graph: onnx.GraphProto,
    names: Names,
) -> Outputs:
    """Append the nodes and outputs that tell of one tensor, (N, *shape).

    Args:
        axes: the constant of height and width; None where axes are no input yet.
    """
    name = str(value.name)
    grid, low, high, mean = (
        names.free(f"{name}/observed/{what}") for what in ("grid", "min", "max", "mean")
    )
    step = math.ceil(math.sqrt(math.prod(shape) / COUNTED))
    # Pools are what kernels have in their own layout: of 1x1 one takes every so manieth value.
    strides = [min(step, side) for side in shape[1:]]
    lowest = grid if _never_negative(value.producer()) else name
    graph.node.extend([
        helper.make_node("MaxPool", [name], [grid], kernel_shape=[1, 1], strides=strides),
        helper.make_node("GlobalMaxPool", [name], [high]),
        helper.make_node("GlobalAveragePool", [grid], [mean]),
        helper.make_node("ReduceMin", [lowest, axes], [low])
        if axes
        else helper.make_node("ReduceMin", [lowest], [low], axes=[2, 3]),
    ])  # fmt: skip
    graph.output.extend(
        helper.make_tensor_value_info(each, TensorProto.FLOAT, ["N", shape[0], None, None])
        for each in (grid, low, high, mean)
    )
    return Outputs(grid, (low, high, mean))


def _static(value: ir.Value) -> tuple[int, int, int] | None:
    """Channels, height and width of a float32 (N, C, H, W) where they are known."""
    tensor = isinstance(value.type, ir.TensorType)  # and no sequence, which has a dtype too
    if not tensor or value.dtype != ir.DataType.FLOAT:
        return None
    if value.shape is None or len(value.shape) != 4:
        return None
    sides = [side for side in value.shape[1:] if isinstance(side, int)]
    return (sides[0], sides[1], sides[2]) if len(sides) == 3 else None


def _never_negative(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "Clip":
        return node is not None and node.op_type in _NEVER_NEGATIVE
    low = node.inputs[1] if len(node.inputs) > 1 else None
    constant = None if low is None else low.const_value
    return constant is not None and float(constant.numpy()) >= 0
