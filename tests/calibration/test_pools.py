"""Average pools in the form that ONNX Runtime's CPU kernels compute fast."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from convexport.calibration.placement import CPU, TENSORRT, quantized_tensors
from convexport.calibration.pools import pools_to_convolutions
from convexport.calibration.quantize import Recipe, quantize
from convexport.calibration.thresholds import Method, Thresholds
from tests.calibration.graphs import model, outputs, ranges

TEXT = """
net (float[batch,3,9,9] x) => (float[batch,4,N,N] y) {
  a = Conv <kernel_shape=[1,1]> (x, wa)
  p = AveragePool <POOL> (a)
  y = Conv <kernel_shape=[1,1]> (p, wb)
}"""
COUNTED = "kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1"
BARE = "kernel_shape=[2,3], strides=[2,2]"
EXCLUDED = "kernel_shape=[3,3], pads=[1,1,1,1]"
PARTIAL = "kernel_shape=[2,2], strides=[2,2], ceil_mode=1"


def net(pool: str) -> ir.Model:
    rng = np.random.default_rng(3)
    shapes = {"wa": (5, 3, 1, 1), "wb": (4, 5, 1, 1)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inferred = onnx.shape_inference.infer_shapes(
        ir.to_proto(model(TEXT.replace("POOL", pool), made))
    )
    return ir.from_proto(inferred)


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype(np.float32)


def quantized(pool: str, placement=CPU) -> tuple[ir.Model, dict[str, str]]:
    made = net(pool)
    seen = Thresholds(ranges(net(pool), images()))
    _, precisions = quantize(made, seen, Recipe(method=Method(name="minmax")), placement)
    return made, precisions


def executed(made: ir.Model, tmp_path) -> Counter[str]:
    """The operators of the graph that ONNX Runtime really runs."""
    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    ir.save(made, path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.parametrize("pool", [COUNTED, BARE])
def test_a_pool_whose_windows_are_all_alike_is_a_convolution(pool: str, tmp_path) -> None:
    rewritten = net(pool)
    pools_to_convolutions(rewritten.graph, lambda pool: True)
    assert [node.op_type for node in rewritten.graph] == ["Conv"] * 3
    expected, actual = outputs(net(pool), images())["y"], outputs(rewritten, images())["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    made, precisions = quantized(pool)
    assert set(precisions.values()) == {"int8"} and len(precisions) == 3
    assert executed(made, tmp_path)["QLinearConv"] >= 2


@pytest.mark.parametrize("pool", [COUNTED, BARE])
def test_its_integers_are_those_of_the_pool(pool: str) -> None:
    made, other = quantized(pool)[0], quantized(pool, replace(CPU, rewritten_pools=False))[0]
    run = (onnx.reference.ReferenceEvaluator(ir.to_proto(each)) for each in (made, other))
    found, expected = (each.run(None, {"x": images()})[0] for each in run)
    # A sum that lies between two steps may be rounded to either.
    step = np.abs(found - expected).max()
    assert np.mean(found != expected) < 0.05 and step < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("pool", [EXCLUDED, PARTIAL])
def test_other_pools_are_computed_in_floats(pool: str, tmp_path) -> None:
    made, precisions = quantized(pool)
    pools = [node for node in made.graph if node.op_type == "AveragePool"]
    assert [precisions[str(node.name)] for node in pools] == ["fp32"]
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    operators = executed(made, tmp_path)
    assert operators["AveragePool"] == 1 and not operators["QLinearAveragePool"]


def test_tensorrt_keeps_its_pools() -> None:
    made, _ = quantized(COUNTED, TENSORRT)
    assert [node.op_type for node in made.graph].count("AveragePool") == 1


def test_pools_of_one_tensor_and_pools_of_probabilities() -> None:
    """Two pools that stay read the same integers; what no range was seen of is left alone."""
    body = TEXT.replace(
        "  p = AveragePool <POOL> (a)\n",
        """  p1 = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (a)
  p2 = AveragePool <kernel_shape=[5,5], pads=[2,2,2,2]> (a)
  sum = Add (p1, p2)
  soft = Softmax <axis=1> (sum)
  gate = AveragePool <kernel_shape=[1,1]> (soft)
  p = Mul (gate, sum)
""",
    )
    rng = np.random.default_rng(3)
    made = {
        "wa": rng.normal(size=(5, 3, 1, 1)).astype(np.float32),
        "wb": rng.normal(size=(4, 5, 1, 1)).astype(np.float32),
    }

    def fresh() -> ir.Model:
        return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model(body, made))))

    graph = fresh()
    everything = ranges(fresh(), images())
    seen = {name: everything[name] for name in quantized_tensors(fresh().graph, CPU)}
    quantize(graph, Thresholds(seen), Recipe(method=Method(name="minmax")), CPU)
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node].count("AveragePool") == 3
    onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
