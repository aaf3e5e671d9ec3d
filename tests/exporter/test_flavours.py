"""What TensorRT's versions are given: opsets, types, scales and numbers of both flavours."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from convexport.calibration.placement import TENSORRT
from convexport.calibration.qdq import half_above, insert_qdq, scale_of
from convexport.calibration.thresholds import Threshold
from convexport.exporter import flavour_stage
from convexport.exporter.cache import StageCache
from convexport.exporter.data import choose_images
from convexport.exporter.events import Events
from convexport.exporter.flavour_graphs import at_opset, with_float_weights
from convexport.exporter.flavours import FLAVOURS, flavour_of
from convexport.exporter.half_qdq import half_from_qdq
from convexport.exporter.options import BuildOptions, Precision
from convexport.exporter.pipeline import Build
from convexport.exporter.results import Made
from convexport.exporter.sources import find_source
from convexport.exporter.targets import TARGETS, find_target
from convexport.runtime.errors import MachineError, UnsupportedError

PORTABLE, TYPED = FLAVOURS["qdq-portable"], FLAVOURS["qdq-fp16"]
JETSONS = ("jetson-jp5", "jetson-jp6", "jetson-jp7")
Array = np.ndarray


@pytest.fixture(scope="module")
def made(cache: Path) -> Callable[[Precision, str], Made]:
    """The stages of LeNet-5 that knows digits, up to the flavour."""

    def make(precision: Precision, target: str) -> Made:
        options = BuildOptions(
            precision=precision, target=target, weights="digits", offline=True, cache_dir=cache
        )
        source = find_source("lenet5", options, print)
        images, stages = choose_images(source, options), StageCache(cache, 60, print)
        row = find_target(target)
        return Build(source, images, row, precision, options, stages, Events()).make()

    return make


def ran(model: onnx.ModelProto | Path, batch: Array) -> Array:
    """By ONNX Runtime, operator by operator as they stand."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


def scales(model: onnx.ModelProto) -> dict[str, Array]:
    """Of every Q and DQ, by the name of the tensor that it stands at."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return {
        node.output[0]: held[node.input[1]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("target", JETSONS)
def test_a_flavour_is_what_its_version_reads(
    made: Callable[..., Made], precision: Precision, target: str
) -> None:
    stages = made(precision, target)
    facts, model = stages.facts["flavour"], onnx.load(stages.entrant.model)
    flavour = FLAVOURS[TARGETS[target].flavour]
    assert (facts["flavour"], facts["typed"]) == (flavour.name, target == "jetson-jp7")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", flavour.opset)]
    assert model.ir_version == flavour.ir_version
    onnx.checker.check_model(model, full_check=True)
    types = {each.data_type for each in model.graph.initializer}
    assert (TensorProto.FLOAT16 in types) == (flavour.typed and precision != "fp32")
    assert (TensorProto.INT8 in types) == (precision == "int8")
    assert not types & {TensorProto.UINT8, TensorProto.INT32}
    assert "not of the engine" in facts["parity"]["of"]
    assert facts["parity"]["top1"] == {**facts["parity"]["top1"], "k": 64, "n": 64}
    assert stages.facts["accuracy"]["actual"]["k"] >= 495


def test_both_flavours_come_from_one_set_of_scales(made: Callable[..., Made]) -> None:
    portable, typed = (onnx.load(made("int8", each).entrant.model) for each in JETSONS[::2])
    quantized = onnx.load(
        next(r.directory for r in made("int8", "jetson-jp5").done if r.name == "quantize")
        / "quantized.onnx"
    )
    want = scales(quantized)
    assert want and all((each == each.astype(np.float16)).all() for each in want.values())
    for model in (portable, typed):
        have = scales(model)
        assert want.keys() <= have.keys()
        assert all((have[name] == want[name]).all() for name in want)


def test_portable_gives_the_same_bits_as_integer_weights(made: Callable[..., Made]) -> None:
    stages = made("int8", "jetson-jp5")
    quantized = next(each.directory for each in stages.done if each.name == "quantize")
    batch = np.load(stages.done[0].directory / "parity_inputs.npy")[:4]
    portable = onnx.load(stages.entrant.model)
    assert (ran(portable, batch) == ran(quantized / "quantized.onnx", batch)).all()
    weights = {each.name: each for each in portable.graph.initializer}
    fed = [node for node in portable.graph.node if node.op_type == "DequantizeLinear"]
    assert not any(node.input[0] in weights for node in fed)
    assert (
        sum(
            node.op_type == "QuantizeLinear" and node.input[0] in weights
            for node in portable.graph.node
        )
        == 5
    ), "three convolutions and two dense layers"


@pytest.mark.parametrize("target", ["jetson-jp5", "jetson-jp7"])
def test_onnxs_reference_computes_the_same(made: Callable[..., Made], target: str) -> None:
    stages = made("int8", target)
    image = np.load(stages.done[0].directory / "parity_inputs.npy")[:2]
    model = onnx.load(stages.entrant.model)
    # It knows Q/DQ from opset 19 on.
    newer = at_opset(model, TYPED)
    (expected,) = ReferenceEvaluator(newer).run(None, {model.graph.input[0].name: image})
    actual = ran(model, image)
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_what_is_quantized_has_no_cast_beside_it(made: Callable[..., Made]) -> None:
    model = onnx.load(made("int8", "jetson-jp7").entrant.model)
    quantizers = {"QuantizeLinear", "DequantizeLinear"}
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        around = {made_by.get(name) for name in node.input} | {node.op_type}
        assert not ("Cast" in around and around & quantizers)


NET = """
    <ir_version: 8, opset_import: ["": 18]>
    net (float[N, 2, 6, 6] x) => (float[N, 3, 2, 2] y) {
        a = Conv<kernel_shape = [3, 3]> (x, v)
        r = Relu (a)
        y = Conv<kernel_shape = [3, 3]> (r, w)
    }"""


def quantized_net() -> tuple[ir.Model, dict[str, str], dict[str, float]]:
    """Two convolutions in INT8, as the quantizer writes them."""
    model = parser.parse_model(NET)
    random = np.random.default_rng(0)
    for name, shape in (("v", (4, 2, 3, 3)), ("w", (3, 4, 3, 3))):
        array = random.standard_normal(shape, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for at, node in enumerate(model.graph.node):
        node.name = f"n{at}"
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    limits = {"x": 3.0, "r": 9.0}
    found = {name: scale_of(Threshold(each, 0.0, each), "int8") for name, each in limits.items()}
    precisions = insert_qdq(inferred, found, TENSORRT)
    typed = ir.from_proto(at_opset(ir.to_proto(inferred), TYPED))
    return typed, precisions, {**limits, "a": 9.0, "y": 20.0}


@pytest.mark.parametrize("keep", [(), ("n0",), ("n2",), ("n0", "n1", "n2")])
def test_layers_that_stay_in_fp32_have_fp32_q_dq(keep: tuple[str, ...]) -> None:
    """Whatever FP16 cannot hold: between Q/DQ and what computes there is no Cast."""
    model, precisions, magnitudes = quantized_net()
    batch = np.random.default_rng(1).standard_normal((2, 2, 6, 6), dtype=np.float32)
    expected = ran(ir.to_proto(model), batch)
    if len(keep) == 3:
        magnitudes = dict.fromkeys(magnitudes, 1e5)
        with pytest.raises(UnsupportedError, match="E0689"):
            half_from_qdq(model, magnitudes, precisions)
        return
    typed = ir.to_proto(half_from_qdq(model, magnitudes, precisions, keep).model)
    onnx.checker.check_model(typed, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(typed, strict_mode=True, data_prop=True)
    types = {each.name: each.type.tensor_type.elem_type for each in inferred.graph.value_info}
    for node in typed.graph.node:
        if node.op_type == "Conv":
            want = TensorProto.FLOAT if node.name in keep else TensorProto.FLOAT16
            assert {types[name] for name in node.input} == {want}
    casts = [node for node in typed.graph.node if node.op_type == "Cast"]
    fed = {name for node in typed.graph.node for name in node.input if "Quant" in node.op_type}
    assert not any(cast.output[0] in fed for cast in casts)
    assert np.abs(ran(typed, batch) - expected).max() < 0.02 * np.abs(expected).max()


def test_scales_are_the_next_numbers_of_fp16() -> None:
    grid = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = np.random.default_rng(0)
    given = (10.0 ** random.uniform(-7, 4, 500)).astype(np.float32)
    brute = np.array([grid[grid >= each].min() for each in given])
    assert (half_above(given) == brute).all()
    assert half_above(np.array([1e6], np.float32)) == [1e6]


def test_what_a_version_cannot_parse_fails_the_stage(
    home: Path, cache: Path, small_onnx: Callable[..., onnx.ModelProto]
) -> None:
    """TensorRT 8.5 has no importer for LayerNormalization; 10.3 has."""
    model = small_onnx()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    normalize = onnx.helper.make_node("LayerNormalization", ["c", "g"], ["r"], name="norm")
    relu.CopyFrom(normalize)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(14, dtype=np.float32), "g"))
    onnx.save(model, home / "normed.onnx")
    for target, expected in (("jetson-jp5", "E0693"), ("jetson-jp6", "")):
        options = BuildOptions(target=target, offline=True, cache_dir=cache, parity_images=8)
        source = find_source(str(home / "normed.onnx"), options, print)
        images, stages = choose_images(source, options), StageCache(cache, 60, print)
        build = Build(source, images, TARGETS[target], "fp32", options, stages, Events())
        if not expected:
            assert build.make().facts["flavour"]["lint"]["errors"] == 0
            continue
        with pytest.raises(UnsupportedError, match=expected) as error:
            build.make()
        assert "norm" in error.value.where and "LayerNormalization" in error.value.where


def model_of(text: str) -> onnx.ModelProto:
    return parser.parse_model(text)


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (18, "(float[N, 4, 8, 8] x) => (float[N, 4, 1, 1] y) <int64[2] a = {2, 3}>"
             " { y = ReduceMean<keepdims = 1> (x, a) }"),
        (18, "(float[N, 4, 8, 8] x) => (float[N, 4, 9, 9] y) <int64[8] p = {0,0,0,0,0,0,1,1}>"
             " { y = Pad (x, p) }"),
        (22, "(float[N, 4, 8, 8] x) => (float[N, 4, 4, 4] y)"
             " { y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]> (x) }"),
    ],
)  # fmt: skip
def test_another_opset_computes_the_same(opset: int, body: str) -> None:
    model = model_of(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}')
    older = at_opset(model, PORTABLE)
    assert older.opset_import[0].version == 17 and older.ir_version == 8
    batch = np.random.default_rng(0).standard_normal((2, 4, 8, 8), dtype=np.float32)
    assert (ran(older, batch) == ran(model, batch)).all()


@pytest.mark.parametrize(
    "body",
    [
        "(float[N, 4, 8, 8] x) => (float[N, 2, 8, 8] y, float[N, 2, 8, 8] z)"
        " { y, z = Split<axis = 1, num_outputs = 2> (x) }",
        "(float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Mish (x) }",
        "(float[N, 4, 8, 8] x) => (float[N, 4, 9, 8] y) <int64[2] p = {0, 1}, float v = {0.0},"
        ' int64[1] a = {2}> { y = Pad<mode = "constant"> (x, p, v, a) }',
    ],
)  # fmt: skip
def test_what_an_older_opset_cannot_say_is_refused(body: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        at_opset(model_of(f'<ir_version: 8, opset_import: ["": 18]> g {body}'), PORTABLE)
    assert error.value.code == "E0691" and "opset 17" in error.value.what


def test_weights_that_are_floats_stay_as_they_are() -> None:
    model = ir.from_proto(model_of(NET))
    with_float_weights(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize(
    ("version", "flavour"),
    [("8.5.3.1", PORTABLE), ("10.3.0", PORTABLE), ("10.12.0", TYPED), ("11.1.0.9", TYPED)],
)
def test_the_version_found_here_decides(
    monkeypatch: pytest.MonkeyPatch, version: str, flavour: Any
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))
    assert flavour_of(TARGETS["tensorrt"]) is flavour


def test_a_version_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="7.2.3"))
    with pytest.raises(UnsupportedError, match="E0690"):
        flavour_of(TARGETS["tensorrt"])
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MachineError, match="E0401"):
        flavour_of(TARGETS["tensorrt"])


def test_an_unknown_board_is_answered_with_those_that_exist(refused: Callable[..., Any]) -> None:
    done = refused(2, "E0280", "build", "lenet5", "--target", "jetson-jp4")
    assert all(name in done.err for name in JETSONS) and "8.5.2" in done.err


@pytest.mark.parametrize("target", JETSONS)
def test_a_build_for_a_board_ends_with_all_that_it_needs(
    invoke: Any, quick: tuple[str, ...], home: Path, target: str
) -> None:
    request = ("build", "lenet5", "--weights", "digits", "--int8", "--target", target)
    done = invoke(*request, "--batch", "1:4:16", *quick, "-o", "net")
    assert done.code == 0, done.err
    assert "no engine is built here" in done.err and "build_on_device.py" in done.out
    assert "of that file, and of no engine" in done.out.replace("\n", " ")
    manifest = json.loads((home / "net/manifest.json").read_text())
    asked = manifest["tensorrt"]
    assert asked["versions"] == TARGETS[target].tensorrt
    assert asked["options"]["batch"] == [1, 4, 16]
    assert asked["options"]["int8"] is not asked["options"]["typed"]
    for name in ("build_on_device.py", "ON_DEVICE.md", "SHA256SUMS", "calibration.json"):
        assert (home / "net" / name).is_file()
    assert invoke("inspect", "net", "--target", target).code == 0


def test_a_build_for_the_tensorrt_here_needs_one(
    refused: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = refused(4, "E0401", "build", "lenet5", "--target", "tensorrt")
    assert "pip install 'convexport[tensorrt]'" in done.err


def test_what_is_in_int8_is_not_ordered_to_fp32(tmp_path: Path) -> None:
    """Though FP16 could not hold what it computes: an engine would take the order before Q/DQ."""
    model, precisions, magnitudes = quantized_net()
    magnitudes["a"] = 1e5
    model.opset_imports[""] = 18
    ranges = {name: {"min": -each, "max": each} for name, each in magnitudes.items()}
    onnx.save(ir.to_proto(model), tmp_path / "quantized.onnx")
    model.opset_imports[""] = TYPED.opset
    rows = half_from_qdq(model, magnitudes, precisions).report.kept
    assert precisions["n0"] == "int8" and "n0" in {row.node for row in rows}
    (tmp_path / "calibration.json").write_text(json.dumps({"ranges": ranges}))
    _, _, kept = flavour_stage._of_int8(tmp_path / "quantized.onnx", PORTABLE, precisions)
    assert "n0" not in kept
