"""Operations against brute force, and the matrix product that is the roof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from convexport.benchmarks import roofline
from convexport.runtime.specs import TensorSpec


def test_products_are_counted_one_by_one(tmp_path: Path) -> None:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 4, 6, 5] x) => (float[N, 7] y) {
            a = Conv <group = 2, pads = [1, 1, 1, 1]> (x, c)
            b = ConvTranspose <strides = [2, 2]> (a, t)
            r = Relu (b)
            p = GlobalAveragePool (r)
            f = Flatten (p)
            g = Gemm <transB = 1> (f, w)
            y = MatMul (g, m)
        }""")
    shapes = {"c": (8, 2, 3, 3), "t": (8, 3, 2, 2), "w": (5, 3), "m": (5, 7)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    onnx.save(proto, tmp_path / "net.onnx")
    # Every output of Conv adds 2 x 3 x 3 products, every input of ConvTranspose gives 3 x 2 x 2.
    products = 8 * 6 * 5 * 18 + 8 * 6 * 5 * 12 + 3 * 5 + 5 * 7
    for batch in (1, 3):
        assert roofline.operations(tmp_path / "net.onnx", batch) == 2 * batch * products


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_matrix_product_is_one(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 4, "SIDE": 64, "PRODUCTS": 3}.items():
        monkeypatch.setattr(roofline, name, value)
    proto = onnx.load_from_string(roofline.matrix_product(precision))
    onnx.checker.check_model(proto, full_check=True)
    x = np.random.default_rng(0).standard_normal((4, 64), dtype=np.float32)
    found = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    w = np.random.default_rng(0).choice([-1, 0, 0, 1], (64, 64)) / 8
    exact = x @ w @ w @ w
    # No values are lost on the way: neither all zero nor all clipped.
    assert np.abs(found - exact).max() <= (0.3 if precision == "int8" else 1e-4)
    assert exact.std() > 0.2


def test_the_fastest_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    class Waiter:
        inputs = outputs = (TensorSpec("x", ("N", 1024)),)
        calls = 0

        def run(self, feed):
            self.calls += 1
            clock.now += 0.005 if self.calls % 2 else 0.05
            return {}

    clock, waiter = Clock(), Waiter()
    monkeypatch.setattr(roofline, "time", clock)
    assert roofline._fastest(waiter, 1) == pytest.approx(0.005)
    assert clock.now >= 1
    hasty = Waiter()
    assert roofline._fastest(hasty, 0.01) == pytest.approx(0.005)
    assert hasty.calls == 10


def test_a_peak_names_what_reached_it() -> None:
    peak = roofline.measured_peak("fp32", threads=1, seconds=0.05)
    assert peak.runtime.split()[0] in ("onnxruntime", "openvino") and peak.threads == 1
    # Between a microcontroller and ten times any core of today.
    assert 1e8 < peak.operations_per_s < 1e13
