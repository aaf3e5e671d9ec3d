"""TensorRT's rules on a graph that holds every case they speak of."""

import numpy as np
import onnx
import onnx_ir as ir

from convexport.calibration.placement import CPU, TENSORRT, quantized_tensors
from convexport.calibration.quantize import Recipe, quantize
from convexport.calibration.scale_sources import scale_sources
from convexport.calibration.thresholds import Method, Thresholds
from tests.calibration.graphs import decibels, model, outputs, ranges

# A projected shortcut, an identity one, a Concat whose branches are read elsewhere too, a gate.
TEXT = """
net (float[batch,4,8,8] x) => (float[batch,5] logits) {
  c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w1, b1)
  r1 = Relu (c1)
  c2 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (r1, w2, b2)
  short = Conv <kernel_shape=[1,1]> (x, w3, b3)
  a1 = Add (c2, short)
  r2 = Relu (a1)
  c3 = Conv <kernel_shape=[1,1]> (r2, w4, b4)
  a2 = Add (r2, c3)
  r3 = Relu (a2)
  c4 = Conv <kernel_shape=[1,1]> (r3, w5, b5)
  r4 = Relu (c4)
  cat = Concat <axis=1> (r3, r4)
  c5 = Conv <kernel_shape=[1,1]> (cat, w6, b6)
  gate = Sigmoid (c5)
  m = Mul (c5, gate)
  g = GlobalAveragePool (m)
  f = Flatten <axis=1> (g)
  logits = Gemm <transB=1> (f, w7, b7)
}"""


def net() -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 1, 1), "w4": (4, 4, 1, 1),
              "w5": (4, 4, 1, 1), "w6": (6, 8, 1, 1), "w7": (5, 6)}  # fmt: skip
    made = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    made |= {f"b{name[1]}": rng.normal(size=len(array)).astype(np.float32)
             for name, array in made.items()}  # fmt: skip
    return model(TEXT, made)


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(16, 4, 8, 8)).astype(np.float32)


def made() -> onnx.ModelProto:
    graph = net()
    quantize(
        graph, Thresholds(ranges(graph, images())), Recipe(method=Method(name="minmax")), TENSORRT
    )
    return ir.to_proto(graph)


def test_only_inputs_are_quantized_and_of_an_addition_only_the_shortcut() -> None:
    assert quantized_tensors(net().graph, TENSORRT) == (
        "x", "r1", "short", "r2", "r3", "cat", "m", "f",
    )  # fmt: skip


def test_a_concat_that_floats_read_is_left_in_floats() -> None:
    """As in DenseNet, where a batch normalization and the next Concat read each of them."""
    assert "cat" in quantized_tensors(net().graph, CPU)
    text = TEXT.replace("(cat, w6", "(s, w6").replace("c5 =", "s = Sigmoid (cat)\n  c5 =")
    chained = text.replace("s = S", "more = Concat <axis=1> (cat, r4)\n  e = Exp (more)\n  s = S")
    for changed in (text, chained):
        constants = {n: v.const_value.numpy() for n, v in net().graph.initializers.items()}
        chosen = quantized_tensors(model(changed, constants).graph, CPU)
        assert not {"cat", "more"} & {*chosen} and {"r3", "r4"} <= {*chosen}


def test_a_concat_and_its_inputs_share_one_scale() -> None:
    sources = scale_sources(net().graph, TENSORRT)
    assert sources["r3"] == sources["cat"] == ("cat", "r3", "r4")
    proto = made()
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert scales["r3.scale"] == scales["cat.scale"]


def test_the_integers_are_what_tensorrt_takes() -> None:
    """Zero points are given, INT8 and zero; biases and outputs stay floats."""
    proto = made()
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert len(node.input) == 3
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()
            assert zero.size == constants[node.input[1]].size
        if node.op_type == "Conv":
            assert constants[node.input[2]].dtype == np.float32
    produced = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert produced["logits"] == "Gemm"


def test_what_is_not_quantized_reads_the_floats() -> None:
    readers = {}
    for node in made().graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    assert sorted(readers["c5"]) == ["Mul", "Sigmoid"]
    assert sorted(readers["r3"]) == ["Concat", "QuantizeLinear"]
    assert readers["c2"] == ["Add"]


def test_both_targets_compute_what_the_floats_do() -> None:
    x = images()
    exact = outputs(net(), x)["logits"]
    for placement in (CPU, TENSORRT):
        graph = net()
        quantize(
            graph, Thresholds(ranges(graph, x)), Recipe(method=Method(name="minmax")), placement
        )
        onnx.checker.check_model(ir.to_proto(graph), full_check=True)
        assert decibels(exact, outputs(graph, x)["logits"]) > 25


def test_kept_layers_compute_in_floats_and_leave_no_integers_beside_them() -> None:
    weighted = {"c1", "c2", "short", "c3", "c4", "c5", "logits"}
    graph, seen = net(), ranges(net(), images())
    recipe = Recipe(method=Method(name="minmax"), kept=frozenset(weighted))
    _, precisions = quantize(graph, Thresholds(seen), recipe, CPU)
    assert set(precisions.values()) == {"fp32"}
    exact, x = net(), images()
    assert np.array_equal(outputs(graph, x)["logits"], outputs(exact, x)["logits"])
    graph = net()
    recipe = Recipe(method=Method(name="minmax"), kept=frozenset({"c4"}))
    _, precisions = quantize(graph, Thresholds(seen), recipe, CPU)
    assert {name for name in weighted if precisions[name] == "fp32"} == {"c4"}
    assert "c4.weight.quantized" not in graph.graph.initializers
