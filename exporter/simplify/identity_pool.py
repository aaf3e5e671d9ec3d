"""Pool of 1×1 → nothing.

    AveragePool or MaxPool with kernel 1, stride 1, no padding  =  its input

``AdaptiveAvgPool2d`` becomes one where the image is already of the size that it makes: AlexNet's
and VGG's at 224×224. TensorRT and INT8 kernels would run it.
"""

from __future__ import annotations

import onnx_ir as ir

NAME = "identity pool"


def check(node: ir.Node) -> str | None:
    """Why the rule does not fit this node, or None where it fits."""
    if node.op_type not in ("AveragePool", "MaxPool") or node.domain or len(node.outputs) > 1:
        return "not a pool with one output"
    for name, identity in (("kernel_shape", 1), ("strides", 1), ("pads", 0)):
        attribute = node.attributes.get(name)
        if attribute is not None and any(each != identity for each in attribute.as_ints()):
            return f"{name} changes something"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "it pads by itself"
    if node.outputs[0].is_graph_output():
        return "it names the graph's output"
    return None


def rewrite(node: ir.Node) -> list[ir.Node]:
    """Nothing stands for it."""
    return []
