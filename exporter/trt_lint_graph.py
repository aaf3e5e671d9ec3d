"""Rules on what a graph consists of: opset, operators, types, shapes and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from packaging.version import Version

from convexport.exporter.trt_lint_rules import Hits, Rule, given, known, label, of_type
from convexport.exporter.trt_parsers import Parser

_INT32 = np.iinfo(np.int32)
_REDUCE = frozenset(
    {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
)
# From which version on these take axes that are computed.
_AXES_SINCE = {"Slice": Version("10.3"), "Pad": Version("10.4")}
_NEVER = Version("999")
_COORDINATES = frozenset(
    {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
)


def _opset(model: ir.Model, parser: Parser) -> Hits:
    opset = model.opset_imports[""]
    if opset > parser.opset:
        yield "model", f"opset {opset}; documented are up to {parser.opset}"


def _axes_input(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_REDUCE):
        if given(node, 1) is not None:
            yield label(node), f"{node.op_type} has its axes as an input"


def _computed_axes(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, *_REDUCE, "ReduceSum", *_AXES_SINCE):
        axes = given(node, 3 if node.op_type in _AXES_SINCE else 1)
        taken = parser.version >= _AXES_SINCE.get(node.op_type, _NEVER)
        if axes is not None and known(axes) is None and not taken:
            yield label(node), f"the axes of {node.op_type} are computed"


def _pad_axes(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Pad"):
        if given(node, 3) is not None:
            yield label(node), "Pad has axes"


def _computed_pads(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Pad"):
        if given(node, 1) is not None and known(node.inputs[1]) is None:
            yield label(node), "the pads are computed"


def _operators(model: ir.Model, parser: Parser) -> Hits:
    for node in model.graph.all_nodes():
        if not node.domain and node.op_type not in parser.operators:
            yield label(node), node.op_type


def _domains(model: ir.Model, parser: Parser) -> Hits:
    for node in model.graph.all_nodes():
        if node.domain:
            yield label(node), f"{node.domain}::{node.op_type}"


def _data_dependent(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "NonMaxSuppression", "NonZero", "RoiAlign"):
        yield label(node), node.op_type


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    yield from (value for node in model.graph.all_nodes() for value in node.outputs)


def _types(model: ir.Model, parser: Parser) -> Hits:
    for value in _values(model):
        if value.dtype is not None and value.dtype.name not in parser.types:
            yield str(value.name), value.dtype.name


def _doubles(model: ir.Model, parser: Parser) -> Hits:
    for value in _values(model):
        if value.dtype == ir.DataType.DOUBLE:
            yield str(value.name), "float64"


def _int64_range(model: ir.Model, parser: Parser) -> Hits:
    for value in _values(model):
        array = known(value) if value.dtype == ir.DataType.INT64 else None
        # Where a slice begins and ends, the largest number means as far as there is.
        bounds = all(user.op_type == "Slice" and place in (1, 2) for user, place in value.uses())
        if array is None or bounds or not array.size:
            continue
        if array.min() < _INT32.min or array.max() > _INT32.max:
            yield str(value.name), f"reaches from {array.min()} to {array.max()}"


def _int64_ends(model: ir.Model, parser: Parser) -> Hits:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.INT64:
            yield str(value.name), "int64 at the model's boundary"


def _free_sizes(model: ir.Model, parser: Parser) -> Hits:
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        sizes = list(value.shape or [])[1:]
        if value.shape is None or not all(isinstance(size, int) for size in sizes):
            yield str(value.name), f"its shape is {value.shape}"


def _batchnorms(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "BatchNormalization"):
        yield label(node), "BatchNormalization is still there"


def _resizes(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Resize"):
        text = node.attributes.get_string
        how = text("coordinate_transformation_mode", "half_pixel")
        if how not in _COORDINATES:
            yield label(node), f"coordinate_transformation_mode {how}"
        if node.attributes.get_int("antialias", 0):
            yield label(node), "antialias"
        if (policy := text("keep_aspect_ratio_policy", "stretch")) != "stretch":
            yield label(node), f"keep_aspect_ratio_policy {policy}"


def _cubic(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "Resize"):
        if node.attributes.get_string("mode", "nearest") == "cubic":
            yield label(node), "mode cubic"


def _pool_indices(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "MaxPool"):
        if len(node.outputs) > 1 and node.outputs[1].name:
            yield label(node), "its second output is used"


def _pool_dilations(model: ir.Model, parser: Parser) -> Hits:
    for node in of_type(model, "MaxPool", "AveragePool"):
        dilations = node.attributes.get_ints("dilations", [1])
        if {*dilations} != {1}:
            yield label(node), f"dilations {list(dilations)}"


def _external(model: ir.Model, parser: Parser) -> Hits:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            yield str(value.name), f"lies in {value.const_value.location}"


def _names(model: ir.Model, parser: Parser) -> Hits:
    names = Counter(str(node.name or "") for node in model.graph.all_nodes())
    for name, times in names.items():
        if times > 1 or not name:
            yield name or "(no name)", f"the name of {times} nodes"


# fmt: off
GRAPH_RULES = (
    Rule(id="opset-misread", versions="<10", severity="error", check=_opset,
        why="it does not look at the opset, and reads what is newer as if it knew it",
        fix="build for this target, or export in opset 17",
        source="ModelImporter.cpp:526 at 8.5-GA; docs/operators.md at 8.5-GA and 8.6-GA"),
    Rule(id="opset-newer", versions=">=10", severity="warning", check=_opset,
        why="operators of a newer opset may be refused",
        fix="export in an opset that is documented",
        source="docs/operators.md at 10.1-GA; TensorRT 11's ONNX opset guide; CHANGELOG"),
    Rule(id="reduce-axes-input", versions="<10", severity="error", check=_axes_input,
        why="the input is ignored: it reduces over all axes, and says nothing",
        fix="make it opset 17, where axes are an attribute, or write GlobalAveragePool",
        source="builtin_op_importers.cpp:3647 at 8.5-GA"),
    Rule(id="computed-axes", versions="", severity="error", check=_computed_axes,
        why="axes have to be an initializer",
        fix="make the axes constant",
        source="docs/operators.md at 8.5-GA and 10.1-GA; NVIDIA/TensorRT's CHANGELOG"),
    Rule(id="pad-axes", versions="<10", severity="error", check=_pad_axes,
        why="the parser refuses a Pad with axes",
        fix="write pads for all axes",
        source="builtin_op_importers.cpp:3270 at 8.5-GA"),
    Rule(id="computed-pads", versions="", severity="warning", check=_computed_pads,
        why="they become a shape tensor, and the Pad is not fused into a convolution",
        fix="export with a fixed size, so that the pads are constant",
        source="builtin_op_importers.cpp:3279 at 8.5-GA; NVIDIA/TensorRT#2592"),
    Rule(id="operator", versions="<10.4", severity="error", check=_operators,
        why="the parser has no importer for it",
        fix="export without it, or write a plugin",
        source="importers at 8.5-GA, 8.6-GA and 10.1-GA; the 8.5.3.1 library"),
    Rule(id="operator-unknown", versions=">=10.4", severity="warning", check=_operators,
        why="10.1 had no importer for it, and no release notes since have named it",
        fix="look it up in the parser's operators.md",
        source="importers at 10.1-GA; NVIDIA/TensorRT's CHANGELOG to 11.1"),
    Rule(id="domain", versions="", severity="error", check=_domains,
        why="operators outside the ONNX standard need a plugin",
        fix="export without them",
        source="docs/operators.md at 8.5-GA"),
    Rule(id="data-dependent", versions="<10", severity="warning", check=_data_dependent,
        why="there is an importer, but supports_operator says no: tools leave it to others",
        fix="keep what depends on data outside of the model",
        source="ModelImporter.cpp:468 at 8.5-GA"),
    Rule(id="type", versions="", severity="error", check=_types,
        why="there are no tensors of that type",
        fix="cast it, or keep it outside of the model",
        source="docs/operators.md at 8.5-GA and 10.1-GA"),
    Rule(id="float64", versions="", severity="warning", check=_doubles,
        why="it is narrowed to float32, and clamped",
        fix="export in float32",
        source="docs/operators.md at 8.5-GA and 10.1-GA"),
    Rule(id="int64-range", versions="<10", severity="error", check=_int64_range,
        why="int64 is narrowed to int32: these numbers are clamped",
        fix="keep integers within int32",
        source="onnx2trt_utils.cpp:388 at 8.5-GA"),
    Rule(id="int64-boundary", versions="<10", severity="warning", check=_int64_ends,
        why="the engine has int32 there, and from TensorRT 10 on int64",
        fix="cast it to int32 in the model",
        source="onnx2trt_utils.cpp:361 at 8.5-GA"),
    Rule(id="free-size", versions="", severity="warning", check=_free_sizes,
        why="only the batch is free in the profiles that are written here",
        fix="export with a fixed size",
        source="TensorRT's IOptimizationProfile: every free size needs a range"),
    Rule(id="batchnorm", versions="", severity="warning", check=_batchnorms,
        why="one that no convolution takes in is computed in floats, between Q and DQ",
        fix="fold it at the export, where it follows a convolution",
        source="TensorRT documentation, explicit quantization"),
    Rule(id="resize-mode", versions="", severity="error", check=_resizes,
        why="it is refused or, as an attribute that is not known, passed over",
        fix="use another mode",
        source="docs/operators.md at 8.5-GA and 10.1-GA"),
    Rule(id="resize-cubic", versions="", severity="warning", check=_cubic,
        why="there is an importer, but the documentation names nearest and linear alone",
        fix="compare the engine with the reference",
        source="docs/operators.md and builtin_op_importers.cpp:3712 at 8.5-GA"),
    Rule(id="pool-indices", versions="", severity="error", check=_pool_indices,
        why="MaxPool's indices are not supported",
        fix="export without them",
        source="docs/operators.md at 8.5-GA and 10.1-GA"),
    Rule(id="pool-dilations", versions="", severity="error", check=_pool_dilations,
        why="pools with dilations are not supported",
        fix="write the pool without them",
        source="onnx2trt_utils.cpp:1662 at 8.5-GA; docs/operators.md at 10.1-GA"),
    Rule(id="external-data", versions="", severity="warning", check=_external,
        why="the parser finds it only if it is given the file's path, not its bytes",
        fix="keep the files together and parse by path",
        source="NvOnnxParser.h: parseFromFile"),
    Rule(id="node-names", versions="", severity="warning", check=_names,
        why="a layer that has to stay in FP32 is found by its name",
        fix="name every node once",
        source="INetworkDefinition: layers are set and inspected by name"),
)
# fmt: on
