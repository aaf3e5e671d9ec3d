"""Q/DQ graphs against arithmetic written out, with onnx's reference evaluator as the runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from convexport.calibration.histograms import range_of
from convexport.calibration.placement import CPU, quantized_tensors
from convexport.calibration.qdq import insert_qdq, quantize_weight, scale_of
from convexport.calibration.scale_sources import scale_sources
from convexport.calibration.thresholds import Method, Threshold, threshold
from convexport.runtime.ort_session import OrtSession

# A residual block, a pool and a classifier: what the rules of placement speak of.
NET = """
<ir_version: 10, opset_import: ["" : 19]>
net (float[batch,3,8,8] x) => (float[batch,5] logits) {
  c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w1, b1)
  r1 = Relu (c1)
  p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r1)
  c2 = Conv <kernel_shape=[1,1]> (p1, w2)
  a = Add (c2, p1)
  r2 = Relu (a)
  g = GlobalAveragePool (r2)
  f = Flatten <axis=1> (g)
  logits = Gemm <transB=1> (f, w3, b3)
}
"""
TENSORS = ("x", "r1", "p1", "c2", "r2", "g", "f")


def net() -> ir.Model:
    rng = np.random.default_rng(3)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1), "w3": (5, 4), "b3": (5,)}
    proto = onnx.parser.parse_model(NET)
    for name, shape in shapes.items():
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def quantized() -> tuple[ir.Model, dict[str, str]]:
    model = net()
    scales = {
        name: scale_of(Threshold(4.0, 4.0 * (name in ("x", "c2")), 4.0), CPU.activations)
        for name in quantized_tensors(model.graph, CPU)
    }
    return model, insert_qdq(model, scales, CPU)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_cpu_rules_choose_both_ends_of_integer_kernels() -> None:
    assert quantized_tensors(net().graph, CPU) == TENSORS


def test_a_pool_takes_the_scale_of_its_input() -> None:
    sources = scale_sources(net().graph, CPU)
    assert (sources["p1"], sources["f"], sources["r2"]) == (("r1",), ("g",), ("r2",))


def test_there_is_nothing_between_a_convolution_and_its_activation() -> None:
    model, _ = quantized()
    for node in model.graph:
        if node.op_type == "Relu":
            assert node.inputs[0].producer().op_type in ("Conv", "Add")


def test_the_output_stays_float_and_every_integer_node_is_named() -> None:
    model, precisions = quantized()
    assert model.graph.outputs[0].producer().op_type == "Gemm"
    kept = {name for name, precision in precisions.items() if precision == "fp32"}
    assert kept == {"r1", "r2"}
    assert ops(model).count("QuantizeLinear") == len(TENSORS)


def test_the_graph_computes_what_the_formulas_say() -> None:
    """One Conv by hand: integers in, INT32 sum, bias at the product of the scales."""
    model, _ = quantized()
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    proto = ir.to_proto(model)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    q = np.clip(np.rint(x / np.float32(8 / 255)) + 128, 0, 255).astype(np.int64) - 128
    w = weights["c1.weight.quantized"].astype(np.int64)
    padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)))
    sums = np.zeros((2, 4, 8, 8), dtype=np.int64)
    for i in range(3):
        for j in range(3):
            window = padded[:, :, i : i + 8, j : j + 8]
            sums += np.einsum("ncyx,oc->noyx", window, w[:, :, i, j])
    sums += weights["c1.bias.quantized"].astype(np.int64)[:, None, None]
    expected = sums * weights["c1.bias.scale"].astype(np.float64)[:, None, None]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("c1", 1, ("n", 4, 8, 8)))
    actual = ReferenceEvaluator(proto).run(["c1"], {"x": x})[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_onnx_runtime_agrees_with_the_reference_evaluator(tmp_path: Path) -> None:
    model, _ = quantized()
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "q.onnx"
    path.write_bytes(proto.SerializeToString())
    x = np.random.default_rng(1).normal(size=(3, 3, 8, 8)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    actual = OrtSession(path).run({"x": x})["logits"]
    # A value on the border between two steps may go either way: one step of one tensor.
    assert np.abs(actual - expected).max() <= 0.05 * np.abs(expected).max()


def test_with_the_ranges_that_were_seen_little_is_lost() -> None:
    x = np.random.default_rng(2).normal(size=(8, 3, 8, 8)).astype(np.float32)
    floats = ir.to_proto(net())
    exact = ReferenceEvaluator(floats).run(None, {"x": x})[0]
    evaluator = ReferenceEvaluator(floats)
    seen = {"x": x, **evaluator.run(None, {"x": x}, intermediate=True)}
    chosen = {name: threshold(range_of(seen[name]), Method(name="minmax")) for name in TENSORS}
    model = net()
    sources = scale_sources(model.graph, CPU)
    scales = {name: scale_of(chosen[source], "uint8") for name, (source,) in sources.items()}
    insert_qdq(model, scales, CPU)
    rounded = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    noise = ((exact - rounded) ** 2).sum() / (exact**2).sum()
    assert 10 * np.log10(1 / noise) > 30


@pytest.mark.parametrize(
    ("dtype", "low", "scale", "zero"),
    [("int8", 1.27, 1.27 / 127, 0), ("int8", 0, 1.27 / 127, 0), ("uint8", 1.27, 2.54 / 255, 128),
     ("uint8", 0, 1.27 / 255, 0), ("uint8", 0.28, 1.55 / 255, 46)],
)  # fmt: skip
def test_scales(dtype: str, low: float, scale: float, zero: int) -> None:
    made = scale_of(Threshold(1.27, low, 1.27), dtype)
    assert made.scale == pytest.approx(scale)
    assert made.zero_point == zero
    assert made.zero_point.dtype == dtype


def test_a_dead_channel_has_a_scale_above_zero() -> None:
    weight = np.array([[0.0, 0.0], [1.0, -2.0]], dtype=np.float32)
    integers, scales = quantize_weight(weight)
    assert (scales > 0).all()
    assert integers.tolist() == [[0, 0], [64, -127]]


def test_a_large_bias_of_a_dead_channel_survives() -> None:
    model = net()
    graph = model.graph
    weight = graph.initializers["w1"].const_value.numpy().copy()
    bias = graph.initializers["b1"].const_value.numpy().copy()
    weight[0], bias[0] = 0.0, 5.0
    graph.initializers["w1"].const_value = ir.tensor(weight, name="w1")
    graph.initializers["b1"].const_value = ir.tensor(bias, name="b1")
    scales = {n: scale_of(Threshold(4.0, 4.0, 4.0), "uint8") for n in quantized_tensors(graph, CPU)}
    insert_qdq(model, scales, CPU)
    parts = {name: graph.initializers[f"c1.bias.{name}"].const_value.numpy() for name in
             ("quantized", "scale")}  # fmt: skip
    assert parts["quantized"][0] * np.float64(parts["scale"][0]) == pytest.approx(5.0, rel=1e-6)


def test_weights_shared_by_two_nodes_are_quantized_for_each() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    twice (float[batch,4,4,4] x) => (float[batch,4,4,4] y) {
      a = Conv <kernel_shape=[1,1]> (x, w)
      y = Conv <kernel_shape=[1,1]> (a, w)
    }"""
    proto = onnx.parser.parse_model(text)
    array = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    for node in proto.graph.node:
        node.name = node.output[0]
    model = ir.from_proto(proto)
    scales = {n: scale_of(Threshold(4.0, 4.0, 4.0), "uint8") for n in ("x", "a")}
    insert_qdq(model, scales, CPU)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert "w" not in model.graph.initializers
    assert {"a.weight.quantized", "y.weight.quantized"} <= set(model.graph.initializers)


@pytest.mark.parametrize(
    ("body", "chosen"),
    [
        ("y = Add (x, k)", ()),
        ("a = Conv <kernel_shape=[1,1]> (x, w) y = Add (a, x)", ("x", "a")),
        ("y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", ("x",)),
        (
            "y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1,"
            " count_include_pad=1> (x)",
            (),
        ),
        ("i = Shape (x) j = Add (i, i) z = Reshape (x, i) y = Identity (z)", ()),
        ("a, b = Split <axis=1, num_outputs=2> (x) c = Conv <kernel_shape=[1,1]> (b, v)"
         " y = Sigmoid (c)", ("b", "c")),
        ("a = Conv <kernel_shape=[1,1]> (x, w) y = Relu (a)", ("x",)),
    ],
)  # fmt: skip
def test_only_nodes_with_an_integer_kernel_are_chosen(body: str, chosen: tuple[str, ...]) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 19]>
    g (float[batch,4,8,8] x) => (float[n,c,h,w] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, shape in {"w": (4, 4, 1, 1), "v": (2, 2, 1, 1), "k": (1,)}.items():
        array = np.ones(shape, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    assert quantized_tensors(model.graph, CPU) == chosen
    insert_qdq(model, {name: scale_of(Threshold(1.0, 1.0, 1.0), "uint8") for name in chosen}, CPU)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_name_of_the_users_is_not_taken_for_ours(tmp_path: Path) -> None:
    model = net()
    graph = model.graph
    for name in ("x.scale", "c1.weight.scale"):
        value = ir.Value(name=name, const_value=ir.tensor(np.float32(5), name=name))
        graph.register_initializer(value)
    scales = {n: scale_of(Threshold(4.0, 4.0, 4.0), "uint8") for n in quantized_tensors(graph, CPU)}
    insert_qdq(model, scales, CPU)
    assert graph.initializers["x.scale"].const_value.numpy() == 5
    (quantize,) = (node for node in graph if node.name == "x.Q")
    assert quantize.inputs[1].const_value.numpy() == np.float32(8 / 255)


@pytest.mark.parametrize("trans", [0, 1])
def test_a_classifier_of_either_layout_is_quantized_along_its_outputs(trans: int) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 19]>
    g (float[batch,6] x) => (float[batch,3] y) {{ y = Gemm <transB={trans}> (x, w, b) }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(3, 6)).astype(np.float32) * np.array([[1], [10], [100]], "f4")
    for name, array in {"w": weight if trans else weight.T.copy(), "b": weight[:, 0]}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.graph.node[0].name = "fc"
    model = ir.from_proto(proto)
    insert_qdq(model, {"x": scale_of(Threshold(4.0, 4.0, 4.0), "uint8")}, CPU)
    x = rng.uniform(-4, 4, size=(5, 6)).astype(np.float32)
    exact = x @ weight.T + weight[:, 0]
    rounded = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    per_channel = ((exact - rounded) ** 2).sum(0) / (exact**2).sum(0)
    assert (10 * np.log10(1 / per_channel) > 35).all()
