"""A graph into a flavour's form: another opset that says the same, and weights as floats."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, version_converter

from convexport.calibration.qdq import constant
from convexport.exporter.flavours import Flavour
from convexport.runtime.errors import UnsupportedError

# Their versions from opset 13 to 23 differ in what they take in addition: types, attributes,
# inputs. A graph that uses those does not pass the checker at an older opset; for any other the
# number alone is another. onnx's converter knows no way for some of them.
_ADDITIVE = frozenset(
    {"AveragePool", "Cast", "Constant", "Conv", "ConvTranspose", "DequantizeLinear", "Flatten"}
    | {"GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "MaxPool"}
    | {"Pad", "QuantizeLinear", "Reshape", "Resize", "Shape", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)


def at_opset(model: onnx.ModelProto, flavour: Flavour) -> onnx.ModelProto:
    """The same function in the opset and IR version of the flavour.

    Raises:
        UnsupportedError: E0691, it cannot be written exactly in that opset.
    """
    before = next(entry.version for entry in model.opset_import if not entry.domain)
    same = {
        operator
        for operator in {str(node.op_type) for node in model.graph.node}
        if operator in _ADDITIVE or _schema(operator, before) == _schema(operator, flavour.opset)
    }
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    try:
        if all(node.op_type in same for node in model.graph.node):
            for node in converted.graph.node:
                _drop_defaults(node, before, flavour.opset)
            del converted.opset_import[:]
            converted.opset_import.append(helper.make_opsetid("", flavour.opset))
        else:
            converted = version_converter.convert_version(model, flavour.opset)
        converted.ir_version = flavour.ir_version
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # the converter's C++ raises RuntimeError, the checker its own
        raise UnsupportedError(
            "E0691",
            f"the graph of opset {before} cannot be written in opset {flavour.opset}",
            where=f"flavour {flavour.name}",
            why=str(error).strip()[-300:],
            hint=f"export the model in opset {flavour.opset}, or choose another target",
        ) from error
    return converted


def with_float_weights(model: ir.Model) -> None:
    """INT8 weights → DQ becomes FP32 weights → Q → DQ, which 8.x is known to read; in place.

    The FP32 weights are what DQ gave, so that Q gives the same integers again: q · s is rounded
    once, (q · s) / s once more, and neither moves it by half a step.
    """
    for node in list(model.graph):
        held = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if held is None or not held.is_initializer():
            continue
        name, axis = str(held.name), node.attributes.get_int("axis", 1)
        floats = ir.Value(name=name, const_value=ir.tensor(dequantized(node), name=name))
        floats.shape, floats.type = held.shape, ir.TensorType(ir.DataType.FLOAT)
        inputs = [floats, *node.inputs[1:]]
        quantize = ir.node("QuantizeLinear", inputs, {"axis": axis}, name=f"{name}.Q")
        integers = quantize.outputs[0]
        integers.name, integers.type, integers.shape = f"{name}.Q", held.type, held.shape
        node.replace_input_with(0, integers)
        del model.graph.initializers[name]
        model.graph.register_initializer(floats)
        model.graph.insert_before(node, quantize)


def dequantized(node: ir.Node) -> NDArray[np.float32]:
    """What a DQ makes of constant integers, with one scale or one a channel."""
    integers, scales = constant(node.inputs[0]), constant(node.inputs[1])
    shape = [1] * integers.ndim
    if scales.ndim:
        shape[node.attributes.get_int("axis", 1)] = -1
    return (integers * scales.reshape(shape)).astype(np.float32)


def _drop_defaults(node: onnx.NodeProto, before: int, after: int) -> None:
    """Leave out attributes that an opset does not know, if they say what goes without saying."""
    if _schema(node.op_type, before) == _schema(node.op_type, after):
        return
    old, new = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (before, after))
    kept = [
        each
        for each in node.attribute
        if each.name in new.attributes or each != old.attributes[each.name].default_value
    ]
    del node.attribute[:]
    node.attribute.extend(kept)


def _schema(operator: str, opset: int) -> int:
    """Since which opset an operator is as it is in this one; 0 where there is none."""
    if not onnx.defs.has(operator, opset, ""):
        return 0
    return int(onnx.defs.get_schema(operator, opset, "").since_version)
