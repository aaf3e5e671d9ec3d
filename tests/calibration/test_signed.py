"""U8 about a zero point becomes S8 about zero where that costs little, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from convexport.calibration.placement import CPU
from convexport.calibration.qdq import insert_qdq, scale_of
from convexport.calibration.signed import sign_activations
from convexport.calibration.thresholds import Threshold

NET = """
    <ir_version: 8, opset_import: ["": 19]>
    net (float[N, 2, 6, 6] x) => (float[N, 3, 4, 4] y) {
        a = Conv<kernel_shape = [3, 3]> (x, v, b)
        r = Relu (a)
        y = Conv<kernel_shape = [1, 1]> (r, w, c)
    }"""


def quantized(low: float, high: float) -> ir.Model:
    """Two convolutions in INT8 with INT32 biases; x covers -low to high."""
    model = parser.parse_model(NET)
    random = np.random.default_rng(0)
    shapes = {"v": (4, 2, 3, 3), "b": (4,), "w": (3, 4, 1, 1), "c": (3,)}
    for name, shape in shapes.items():
        array = random.standard_normal(shape, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for at, node in enumerate(model.graph.node):
        node.name = f"n{at}"
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    thresholds = {"x": Threshold(max(low, high), low, high), "r": Threshold(9.0, 0.0, 9.0)}
    scales = {name: scale_of(each, "uint8") for name, each in thresholds.items()}
    insert_qdq(inferred, scales, CPU)
    return inferred


def constants(model: ir.Model) -> dict[str, np.ndarray]:
    held = model.graph.initializers.items()
    return {name: value.const_value.numpy() for name, value in held if value.const_value}


def ran(model: ir.Model) -> np.ndarray:
    batch = np.random.default_rng(1).uniform(-2, 2, (4, 2, 6, 6)).astype(np.float32)
    return np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": batch})[0])


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (2.0, 2.4), (2.5, 2.1)])
def test_both_signs_are_about_zero(low: float, high: float) -> None:
    model = quantized(low, high)
    before, expected = constants(model), ran(model)
    assert sign_activations(model.graph) == ("x",)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    after = constants(model)
    assert after["x.zero_point"].dtype == np.int8 and after["x.zero_point"] == 0
    assert after["x.scale"] * 127 == pytest.approx(max(low, high), rel=0.01)
    # What a ReLU gives has all of U8, as before; so have weights what they had.
    for name in ("r.scale", "r.zero_point", "n0.weight.quantized", "n2.bias.quantized"):
        np.testing.assert_array_equal(after[name], before[name])
    biases = [
        each["n0.bias.quantized"] * each["n0.bias.scale"].astype(np.float64)
        for each in (before, after)
    ]
    assert np.abs(biases[0] - biases[1]).max() <= after["n0.bias.scale"].max() / 2
    products = after["x.scale"] * after["n0.weight.scale"]
    np.testing.assert_allclose(after["n0.bias.scale"], products, rtol=1e-6)
    assert np.abs(ran(model) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (0.28, 4.0), (2.0, 1.0), (1.5, 2.5)])
def test_what_would_lose_steps_stays(low: float, high: float) -> None:
    model = quantized(low, high)
    before = ir.to_proto(model).SerializeToString()
    assert sign_activations(model.graph) == ()
    assert ir.to_proto(model).SerializeToString() == before
