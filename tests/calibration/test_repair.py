"""Repair: the function stays, and what INT8 lost comes back."""

import numpy as np
import onnx_ir as ir
import pytest

from convexport.calibration.placement import CPU
from convexport.calibration.quantize import Recipe, quantize
from convexport.calibration.repair import equalize
from convexport.calibration.thresholds import Method, Thresholds
from tests.calibration.graphs import decibels, model, outputs, ranges

MINMAX = Method(name="minmax")
CHANNELS = 16


def chain(activation: str = "Relu", *, spread: float = 1000, seed: int = 0) -> ir.Model:
    """Pointwise, depthwise, pointwise, classifier: channels differ by a factor of ``spread``."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(1 / spread, 1, CHANNELS).astype(np.float32)
    rng.shuffle(sizes)
    column = sizes[:, None, None, None]
    act = activation if activation == "Relu" else "Clip"
    more = "" if activation == "Relu" else ", zero, six"
    text = f"""
    net (float[batch,3,8,8] x) => (float[batch,5] logits) {{
      a = Conv <kernel_shape=[1,1]> (x, wa, ba)
      ra = {act} (a{more})
      d = Conv <kernel_shape=[3,3], pads=[1,1,1,1], group={CHANNELS}> (ra, wd, bd)
      rd = {act} (d{more})
      p = Conv <kernel_shape=[1,1]> (rd, wp, bp)
      rp = Relu (p)
      g = GlobalAveragePool (rp)
      f = Flatten <axis=1> (g)
      logits = Gemm <transB=1> (f, w, b)
    }}"""
    shapes = {"wa": (16, 3, 1, 1), "ba": (16,), "wd": (16, 1, 3, 3), "bd": (16,),
              "wp": (8, 16, 1, 1), "bp": (8,), "w": (5, 8), "b": (5,)}  # fmt: skip
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["wa"], made["ba"] = made["wa"] * column, made["ba"] * sizes
    made["wd"] = made["wd"] / column
    made |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    return model(text, made)


def images(seed: int, n: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("activation", ["Relu", "ReLU6"])
def test_equalizing_keeps_the_function(activation: str) -> None:
    graph = chain(activation, spread=30)
    exact = outputs(graph, images(1))["logits"]
    pairs = equalize(graph, ranges(chain(activation, spread=30), images(0, 32)))
    assert {(pair.first, pair.second) for pair in pairs} >= {("a", "d")}
    np.testing.assert_allclose(
        outputs(graph, images(1))["logits"], exact, atol=1e-5 * np.abs(exact).max()
    )


@pytest.mark.parametrize(("activation", "spread"), [("Relu", 1000), ("ReLU6", 1000), ("Relu", 1e6)])
def test_a_hostile_net_is_repaired(activation: str, spread: float) -> None:
    plain, even = chain(activation, spread=spread), chain(activation, spread=spread)
    seen, x = ranges(plain, images(0, 32)), images(1)
    exact = outputs(plain, x)["logits"]
    assert equalize(even, seen)
    lost = [
        decibels(exact, quantized(graph, ranges(graph, images(0, 32)), x))
        for graph in (plain, even)
    ]
    assert lost[1] > 35 and lost[1] > lost[0] + 10, lost


def quantized(graph: ir.Model, seen: dict, x: np.ndarray, **recipe: bool) -> np.ndarray:
    quantize(graph, Thresholds(seen), Recipe(method=MINMAX, **recipe), CPU)
    return outputs(graph, x)["logits"]


def test_even_channels_are_left_alone() -> None:
    graph = chain(spread=1.5)
    assert [pair.first for pair in equalize(graph, ranges(graph, images(0)))] == []


def test_an_output_that_others_read_too_is_left_alone() -> None:
    text = """
    net (float[batch,2,4,4] x) => (float[batch,2,4,4] y) {
      a = Conv <kernel_shape=[1,1]> (x, wa)
      b = Conv <kernel_shape=[1,1]> (a, wb)
      y = Add (a, b)
    }"""
    weights = np.array([[1, 0], [0, 100]], np.float32)[:, :, None, None]
    graph = model(text, {"wa": weights, "wb": weights.copy()})
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    assert equalize(graph, ranges(graph, x)) == ()


def test_weights_that_two_layers_share_are_left_alone() -> None:
    text = """
    net (float[batch,2,4,4] x) => (float[batch,2,4,4] y) {
      a = Conv <kernel_shape=[1,1]> (x, w)
      y = Conv <kernel_shape=[1,1]> (a, w)
    }"""
    weights = np.array([[1, 0], [0, 100]], np.float32)[:, :, None, None]
    graph = model(text, {"w": weights})
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    assert equalize(graph, ranges(graph, x)) == ()


def test_a_dead_channel_does_not_blow_up_the_next_weights() -> None:
    graph = chain()
    dead = graph.graph.initializers["wa"].const_value.numpy().copy()
    dead[3], bias = 0, graph.graph.initializers["ba"].const_value.numpy().copy()
    bias[3] = -1
    for name, array in {"wa": dead, "ba": bias}.items():
        graph.graph.initializers[name].const_value = ir.tensor(array, name=name)
    before = np.abs(graph.graph.initializers["wd"].const_value.numpy()[3]).max()
    equalize(graph, ranges(graph, images(0)))
    assert np.abs(graph.graph.initializers["wd"].const_value.numpy()[3]).max() <= before


@pytest.mark.parametrize("bias", [True, False])
def test_a_corrected_bias_takes_the_mean_error_back(bias: bool) -> None:
    """Weights are integers already, but for one that rounds to zero and meets a large mean."""
    text = f"""
    net (float[batch,2,4,4] x) => (float[batch,1,4,4] y) {{
      y = Conv <kernel_shape=[1,1]> (x, w{", b" if bias else ""})
    }}"""
    weights = {"w": np.array([127.0, 0.45], np.float32).reshape(1, 2, 1, 1),
               "b": np.array([3.0], np.float32)}  # fmt: skip
    x = np.random.default_rng(0).normal(size=(8, 2, 4, 4)).astype(np.float32)
    x[:, 1] += 50
    errors = []
    for corrected in (False, True):
        graph = model(text, {name: weights[name] for name in (["w", "b"] if bias else ["w"])})
        exact, seen = outputs(graph, x)["y"], ranges(graph, x)
        quantize(graph, Thresholds(seen), Recipe(method=MINMAX, corrected=corrected), CPU)
        errors.append(abs(float((outputs(graph, x)["y"] - exact).mean())))
    assert errors[0] == pytest.approx(0.45 * 50, rel=0.15)
    assert errors[1] < 0.1 * errors[0]


def test_without_clipped_pairs_a_relu6_is_left_alone() -> None:
    graph = chain("ReLU6")
    seen = ranges(graph, images(0))
    pairs = {(pair.first, pair.second) for pair in equalize(graph, seen, clipped=False)}
    assert not pairs & {("a", "d"), ("d", "p")}
