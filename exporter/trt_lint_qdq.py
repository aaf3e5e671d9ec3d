"""Rules on Q/DQ: what TensorRT wants of scales, zero points, axes and placement."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from convexport.calibration.placement import ACTIVATIONS
from convexport.exporter.trt_lint_rules import Hits, Rule, given, known, label, of_type
from convexport.exporter.trt_parsers import Parser

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1}


def _zero_points(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Value]]:
    for node in of_type(model, *_QDQ):
        if (zero := given(node, 2)) is not None:
            yield node, zero


def _type(value: ir.Value | None) -> str:
    return "" if value is None or value.dtype is None else value.dtype.name


def _made_by(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that computes a value, if it is one of these."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in operators else None


def _before(node: ir.Node) -> ir.Value | None:
    """What a Q, or a DQ with its Q, quantizes."""
    quantize = _made_by(node.inputs[0], "QuantizeLinear")
    return quantize.inputs[0] if quantize is not None else node.inputs[0]


def _missing(model: ir.Model, parser: Parser) -> Hits:
    bare = (node for node in of_type(model, *_QDQ) if given(node, 2) is None)
    return ((label(node), f"{node.op_type} has no zero point") for node in bare)


def _default(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "QuantizeLinear"):
        kind = node.attributes.get_int("output_dtype", 0)
        if given(node, 2) is None and kind in (0, ir.DataType.UINT8):
            yield label(node), "QuantizeLinear has no zero point"


def _unsigned(model: ir.Model, parser: Parser) -> Hits:
    for node, zero in _zero_points(model):
        if _type(zero).startswith("UINT"):
            yield label(node), f"a zero point of {_type(zero)}"


def _shifted(model: ir.Model, parser: Parser) -> Hits:
    for node, zero in _zero_points(model):
        array = known(zero)
        if array is not None and array.any():
            yield label(node), f"a zero point of {array.ravel()[np.flatnonzero(array)[0]]}"


def _sizes(model: ir.Model, parser: Parser) -> Hits:
    for node, zero in _zero_points(model):
        scale, array = known(node.inputs[1]), known(zero)
        if scale is not None and array is not None and scale.size != array.size:
            yield label(node), f"{scale.size} scales, {array.size} zero points"


def _computed(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_QDQ):
        if known(node.inputs[1]) is None:
            yield label(node), "the scale is computed"


def _not_positive(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_QDQ):
        scale = known(node.inputs[1])
        if scale is not None and not (scale.astype(np.float64) > 0).all():
            yield label(node), f"a scale of {scale.min()}"


def _narrow(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_QDQ):
        if _type(node.inputs[1]) not in ("FLOAT", ""):
            yield label(node), f"a scale of {_type(node.inputs[1])}"


def _mixed(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "QuantizeLinear"):
        types = [_type(value) for value in node.inputs[:2]]
        if all(types) and types[0] != types[1]:
            yield label(node), f"{types[0]} with a scale of {types[1]}"


def _no_axis(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_QDQ):
        scale = known(node.inputs[1])
        if scale is not None and scale.size > 1 and "axis" not in node.attributes:
            yield label(node), f"{scale.size} scales and no axis"


def _per_channel(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_QDQ):
        scale = known(node.inputs[1])
        if scale is not None and scale.size > 1 and known(_before(node)) is None:
            yield label(node), f"{scale.size} scales for what is computed"


def _weight_axis(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_WEIGHT_AXIS):
        dequantize, axis = _made_by(given(node, 1), "DequantizeLinear"), _WEIGHT_AXIS[node.op_type]
        scale = None if dequantize is None else known(dequantize.inputs[1])
        weights = None if dequantize is None else known(_before(dequantize))
        if dequantize is None or scale is None or weights is None or scale.size == 1:
            continue
        have = dequantize.attributes.get_int("axis", 1) % weights.ndim
        if have != axis:
            yield label(dequantize), f"scales of {node.op_type} on axis {have}, not {axis}"


def _stored(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "DequantizeLinear"):
        if known(node.inputs[0]) is not None:
            yield label(node), "integers are stored"


def _identities(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Identity"):
        if _type(node.inputs[0]) == "INT8" and known(node.inputs[0]) is not None:
            yield label(node), "Identity of an INT8 constant"


def _biases(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "DequantizeLinear"):
        if _type(node.inputs[0]) == "INT32":
            yield label(node), "DequantizeLinear of INT32"


def _outputs(model: ir.Model, parser: Parser) -> Hits:
    for value in model.graph.outputs:
        if (node := _made_by(value, *_QDQ)) is not None:
            yield label(node), f"{node.op_type} gives the output {value.name}"


def _transposed(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "ConvTranspose"):
        if _made_by(node.inputs[0], "DequantizeLinear") is not None:
            yield label(node), "ConvTranspose in INT8"


def _wide(model: ir.Model, parser: Parser) -> Hits:
    quantized = next(of_type(model, "DequantizeLinear"), None)
    values = (value for node in model.graph.all_nodes() for value in node.outputs)
    if quantized is not None and not any(_type(value) == "FLOAT16" for value in values):
        yield "model", "INT8 with float32"


def _concats(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Concat"):
        made = [_made_by(value, "DequantizeLinear") for value in node.inputs]
        scales = {s.tobytes() for each in made if each and (s := known(each.inputs[1])) is not None}
        if len(scales) > 1:
            yield label(node), f"its inputs have {len(scales)} scales"


def _pads(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Conv"):
        dequantize = _made_by(node.inputs[0], "DequantizeLinear")
        pad = None if dequantize is None else _made_by(_before(dequantize), "Pad")
        if pad is not None:
            yield label(node), f"Q/DQ stand behind {label(pad)}"


def _activations(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *ACTIVATIONS):
        dequantize = _made_by(node.inputs[0], "DequantizeLinear")
        if dequantize is not None and _made_by(_before(dequantize), "Conv") is not None:
            yield label(node), "Q/DQ stand before it"


# fmt: off
QDQ_RULES = (
    Rule(id="zero-point-missing", versions="<10", severity="error", check=_missing,
        why="the parser wants all three inputs",
        fix="give a zero point of INT8 zeros",
        source="QuantDequantLinearHelper, builtin_op_importers.cpp:1184 at 8.5-GA"),
    Rule(id="zero-point-default", versions=">=10", severity="error", check=_default,
        why="without one ONNX means UINT8, and the parser takes INT8",
        fix="give a zero point of INT8 zeros",
        source="onnxOpImporters.cpp:1346 at 10.1-GA"),
    Rule(id="zero-point-type", versions="", severity="error", check=_unsigned,
        why="8.x refuses UINT8, and 10 computes in INT8 instead",
        fix="quantize activations to INT8, symmetric",
        source="builtin_op_importers.cpp:1184 at 8.5-GA; onnxOpImporters.cpp:1346 at 10.1-GA"),
    Rule(id="zero-point-value", versions="", severity="error", check=_shifted,
        why="TensorRT quantizes symmetrically alone: a zero point is 0",
        fix="calibrate with symmetric INT8",
        source="builtin_op_importers.cpp:1184 at 8.5-GA; onnxOpImporters.cpp:1346 at 10.1-GA"),
    Rule(id="zero-point-size", versions="", severity="error", check=_sizes,
        why="scale and zero point need the same number of elements",
        fix="give a zero for every scale",
        source="builtin_op_importers.cpp:1184 at 8.5-GA; onnxOpImporters.cpp:1346 at 10.1-GA"),
    Rule(id="scale-computed", versions="", severity="error", check=_computed,
        why="a scale has to be a constant",
        fix="store the scale in the file",
        source="onnxOpImporters.cpp:1346 at 10.1-GA; TensorRT's IQuantizeLayer"),
    Rule(id="scale-value", versions="", severity="error", check=_not_positive,
        why="a scale has to be above 0",
        fix="calibrate again, or leave this tensor in floats",
        source="builtin_op_importers.cpp:1184 at 8.5-GA"),
    Rule(id="scale-type", versions="<10", severity="error", check=_narrow,
        why="the bytes are read as float32 whatever they are",
        fix="keep Q/DQ in float32, as the flavour qdq-portable",
        source="builtin_op_importers.cpp:1184 at 8.5-GA"),
    Rule(id="scale-and-input", versions=">=10", severity="error", check=_mixed,
        why="in a strongly typed network a scale has the type of what it quantizes",
        fix="give both the same type",
        source="TensorRT's IQuantizeLayer; onnxOpImporters.cpp:1625 at 10.1-GA"),
    Rule(id="axis-omitted", versions="", severity="error", check=_no_axis,
        why="ONNX means axis 1, the parser takes axis 0",
        fix="write the axis",
        source="builtin_op_importers.cpp:1184 at 8.5-GA; onnxOpImporters.cpp:1346 at 10.1-GA"),
    Rule(id="activation-axis", versions="", severity="error", check=_per_channel,
        why="an activation has one scale",
        fix="quantize it per tensor",
        source="TensorRT's IQuantizeLayer"),
    Rule(id="weight-axis", versions="", severity="error", check=_weight_axis,
        why="weights have their scales on axis 0, those of ConvTranspose on axis 1",
        fix="quantize weights by output channel",
        source="builtin_op_importers.cpp:1184 at 8.5-GA; NVIDIA's Model-Optimizer"),
    Rule(id="weight-int8", versions="<10", severity="warning", check=_stored,
        why="8.4 refused INT8 weights before a DQ; that 8.5.3 takes them was not confirmed",
        fix="store FP32 weights and Q, as the flavour qdq-portable",
        source="microsoft/onnxruntime#11535; messages in the 8.5.3.1 library"),
    Rule(id="int8-identity", versions="<10", severity="error", check=_identities,
        why="an INT8 constant may stand before a DQ alone",
        fix="give every Q and DQ a constant of its own",
        source="megvii-research/Sparsebit#16"),
    Rule(id="bias-quantized", versions="", severity="error", check=_biases,
        why="a DQ takes no INT32",
        fix="leave biases in floats",
        source="microsoft/onnxruntime#14229; TensorRT's IDequantizeLayer"),
    Rule(id="output-quantized", versions="<10", severity="error", check=_outputs,
        why="the builder stops at Q/DQ on an output of the network",
        fix="leave outputs in floats",
        source="NVIDIA/TensorRT#2604"),
    Rule(id="conv-transpose", versions=">=10,<11", severity="warning", check=_transposed,
        why="with Q after its activation alone a result was wrong in a report on 10.x",
        fix="compare the engine with the reference, or leave it in floats",
        source="NVIDIA/TensorRT#4366"),
    Rule(id="int8-with-fp32", versions=">=10.12", severity="warning", check=_wide,
        why="strongly typed, what is not in INT8 is computed in FP32, since the graph says so",
        fix="give what is between in FP16, as the flavour qdq-fp16",
        source="TensorRT documentation, strongly typed networks"),
    Rule(id="concat-scales", versions="", severity="warning", check=_concats,
        why="Q is moved before the Concat: each branch is quantized anew",
        fix="give all inputs and the output of a Concat one scale",
        source="NVIDIA/TensorRT#3861; NVIDIA's Model-Optimizer"),
    Rule(id="pad-apart", versions="", severity="warning", check=_pads,
        why="Q/DQ between Pad and Conv keep the two from becoming one kernel",
        fix="quantize before the Pad",
        source="NVIDIA/TensorRT#2592"),
    Rule(id="activation-apart", versions="", severity="warning", check=_activations,
        why="Q/DQ between a Conv and its activation keep the two from becoming one kernel",
        fix="quantize behind the activation",
        source="NVIDIA's Model-Optimizer"),
)
# fmt: on
