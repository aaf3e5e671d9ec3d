"""Average pools, written as ONNX Runtime's CPU kernels compute them fast.

Its integer kernel of AveragePool goes through floats one value at a time. A depthwise
convolution of equal weights gives the same, 127 times a scale being exact, as long as padding
counts; where it does not, floats are the faster way.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import onnx_ir as ir

from convexport.calibration.names import Names

_SHARED = ("kernel_shape", "strides", "pads", "dilations")


def pools_to_convolutions(graph: ir.Graph, chosen: Callable[[ir.Node], bool]) -> None:
    """Replace each chosen average pool that is a convolution, in place; names stay."""
    names = Names(graph)
    for pool in [node for node in graph if _is_convolution(node) and chosen(node)]:
        data, pooled = pool.inputs[0], pool.outputs[0]
        assert data is not None and data.shape is not None
        channels, kernel = data.shape[1], pool.attributes.get_ints("kernel_shape")
        assert isinstance(channels, int)
        equal = np.full((channels, 1, *kernel), 1 / prod(kernel), np.float32)
        name = names.free(f"{pooled.name}.equal_weights")
        weights = ir.Value(name=name, const_value=ir.tensor(equal, name=name))
        weights.type, weights.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(equal.shape)
        graph.register_initializer(weights)
        attributes = [pool.attributes[each] for each in _SHARED if each in pool.attributes]
        convolution = ir.Node(
            "", "Conv", [data, weights], [*attributes, ir.AttrInt64("group", channels)]
        )
        convolution.name = pool.name
        ir.convenience.replace_nodes_and_values(
            graph, pool, [pool], [convolution], [pooled], convolution.outputs
        )


def keep_pools_in_floats(graph: ir.Graph) -> tuple[str, ...]:
    """Put a Clip without bounds before each average pool that reads integers, in place.

    It changes no value, and no runtime's integer kernel is found behind it.

    Returns:
        The names of these pools.
    """
    names = Names(graph)
    pools = [node for node in graph if node.op_type == "AveragePool"]
    found = [pool for pool in pools if _producer(pool) == "DequantizeLinear"]
    for pool in found:
        data = pool.inputs[0]
        assert data is not None
        clip = ir.node("Clip", [data])
        output = clip.outputs[0]
        clip.name = output.name = names.free(f"{pool.outputs[0].name}.in_floats")
        output.type, output.shape = data.type, data.shape
        graph.insert_before(pool, clip)
        pool.replace_input_with(0, output)
    return tuple(str(pool.name) for pool in found)


def _is_convolution(node: ir.Node) -> bool:
    if node.op_type != "AveragePool" or node.domain:
        return False
    data, get = node.inputs[0], node.attributes.get_int
    counted = get("count_include_pad", 0) or not any(node.attributes.get_ints("pads", (0,)))
    automatic = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    known = data is not None and data.shape is not None and isinstance(data.shape[1], int)
    return bool(counted) and known and not automatic and not get("ceil_mode", 0)


def _producer(node: ir.Node) -> str | None:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return None if producer is None else producer.op_type
