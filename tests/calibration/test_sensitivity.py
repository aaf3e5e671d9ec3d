"""A layer's own noise, against each layer computed alone."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from convexport.calibration.placement import CPU
from convexport.calibration.qdq import quantize_weight
from convexport.calibration.quantize import decide
from convexport.calibration.sensitivity import add_twins, measure
from convexport.calibration.thresholds import Method, Thresholds
from convexport.runtime.ort_session import OrtSession
from tests.calibration.graphs import model, outputs, ranges

TEXT = """
net (float[batch,3,8,8] x) => (float[batch,5] logits) {
  a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, wa, ba)
  ra = Relu (a)
  b = Conv <kernel_shape=[1,1]> (ra, wb)
  s = Add (b, ra)
  rs = Relu (s)
  g = GlobalAveragePool (rs)
  f = Flatten <axis=1> (g)
  logits = Gemm <transB=1> (f, w, bias)
}"""


def net() -> ir.Model:
    rng = np.random.default_rng(4)
    shapes = {"wa": (6, 3, 3, 3), "ba": (6,), "wb": (6, 6, 1, 1), "w": (5, 6), "bias": (5,)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["wb"][0, 0] = 40.0  # the others of that channel are left with few steps
    return model(TEXT, made)


def test_the_noise_is_that_of_each_layer_alone(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    graph = net()
    floats, seen = outputs(graph, x), Thresholds(ranges(graph, x))
    decided = decide(graph.graph, seen, Method(name="minmax"), CPU)
    layers = add_twins(graph, decided.scales, CPU)
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "twins.onnx"
    path.write_bytes(proto.SerializeToString())
    batches = (x[:4], x[4:5], x[5:])  # of what sizes says nothing
    found = measure(OrtSession(path), batches, [(node.name, node.op_type) for node in layers])
    assert {each.node for each in found} == {"a", "b", "logits"}
    assert [each.sqnr_db for each in found] == sorted(each.sqnr_db for each in found)
    original = net()
    for each in found:
        node = next(node for node in original.graph if node.name == each.node)
        data, weight = node.inputs[0].name, node.inputs[1]
        scale = decided.scales[data]
        zero = int(scale.zero_point)
        read = (np.clip(np.rint(floats[data] / scale.scale) + zero, 0, 255) - zero) * scale.scale
        integers, scales = quantize_weight(weight.const_value.numpy())
        column = scales.reshape(-1, *[1] * (integers.ndim - 1))
        weight.const_value = ir.tensor((integers * column).astype(np.float32), name=weight.name)
        exact = floats[node.outputs[0].name]
        alone = onnx.reference.ReferenceEvaluator(ir.to_proto(original)).run(
            [node.outputs[0].name], {data: read.astype(np.float32)}
        ) if data == "x" else [_alone(original, node, read.astype(np.float32))]  # fmt: skip
        over = tuple(axis for axis in range(exact.ndim) if axis != 1)
        signal = ((exact - exact.mean(axis=over, keepdims=True)) ** 2).sum()
        expected = 10 * np.log10(signal / ((alone[0] - exact) ** 2).sum())
        assert each.sqnr_db == pytest.approx(expected, abs=0.05), each.node


def _alone(graph: ir.Model, node: ir.Node, read: np.ndarray) -> np.ndarray:
    """One node on the given data."""
    proto = ir.to_proto(graph)
    (single,) = (each for each in proto.graph.node if each.name == node.name)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    inputs = {name: values.get(name, read) for name in single.input}
    evaluator = onnx.reference.ReferenceEvaluator(single, opsets={"": 19})
    return evaluator.run(None, inputs)[0]


def test_a_net_of_one_image_at_a_time_has_finite_figures(tmp_path) -> None:
    text = TEXT.replace("batch", "1")
    source = net()
    constants = {n: v.const_value.numpy() for n, v in source.graph.initializers.items()}
    graph = model(text, constants)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    decided = decide(graph.graph, Thresholds(ranges(graph, x[:1])), Method(name="minmax"), CPU)
    layers = add_twins(graph, decided.scales, CPU)
    path = tmp_path / "twins.onnx"
    path.write_bytes(ir.to_proto(graph).SerializeToString())
    images = (x[:1], x[1:])
    found = measure(OrtSession(path), images, [(node.name, node.op_type) for node in layers])
    assert all(0 < each.sqnr_db < 99 for each in found)


def test_names_of_the_users_are_left_alone() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    rng = np.random.default_rng(4)
    made = {
        "a.twin.weight": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
        "a.through.scale": rng.normal(size=6).astype(np.float32),
    }
    text = """
net (float[batch,3,8,8] x) => (float[batch,6,8,8] a) {
  a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, wa, ba)
}"""
    graph = model(text.replace("wa", '"a.twin.weight"').replace("ba)", '"a.through.scale")'), made)
    decided = decide(graph.graph, Thresholds(ranges(graph, x)), Method(name="minmax"), CPU)
    assert [node.name for node in add_twins(graph, decided.scales, CPU)] == ["a"]
    onnx.checker.check_model(ir.to_proto(graph), full_check=True)
