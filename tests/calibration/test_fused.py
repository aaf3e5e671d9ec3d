"""What is computed within the operator before it, and what takes the scale of what reads it."""

import numpy as np
import onnx_ir as ir
import pytest

from convexport.calibration.placement import CPU, OPENVINO, quantized_tensors
from convexport.calibration.quantize import Recipe, quantize
from convexport.calibration.scale_sources import scale_sources
from convexport.calibration.thresholds import Method, Thresholds
from tests.calibration.graphs import decibels, model, outputs, ranges

# Squeeze-and-excitation, as EfficientNet has it: two gates, of which one is SiLU's own.
GATED = """
net (float[batch,4,8,8] x) => (float[batch,5] logits) {
  a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w1)
  sa = Sigmoid (a)
  ra = Mul (a, sa)
  p = GlobalAveragePool (ra)
  e = Conv <kernel_shape=[1,1]> (p, w2)
  se = Sigmoid (e)
  g = Mul (ra, se)
  b = Conv <kernel_shape=[1,1]> (g, w3)
  hs = HardSigmoid (b)
  rb = Mul (hs, b)
  c = Conv <kernel_shape=[1,1]> (rb, w4)
  rc = HardSwish (c)
  m = GlobalAveragePool (rc)
  f = Flatten <axis=1> (m)
  logits = Gemm <transB=1> (f, w5)
}"""

# Branches: of a ReLU that only the Concat reads, of a pool, of one that others read, clipped.
JOINED = """
net (float[batch,4,8,8] x) => (float[batch,2,8,8] y) {
  a = Conv <kernel_shape=[1,1]> (x, w1)
  ra = Relu (a)
  b = Conv <kernel_shape=[1,1]> (ra, w2)
  rb = Relu (b)
  p = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (ra)
  c = Conv <kernel_shape=[1,1]> (ra, w3)
  rc = Clip (c, zero, six)
  cat = Concat <axis=1> (rb, p, rc, ra)
  more = Conv <kernel_shape=[1,1]> (cat, w4)
  rm = Relu (more)
  whole = Concat <axis=1> (cat, rm)
  y = Conv <kernel_shape=[1,1]> (whole, w5)
}"""


def net(text: str) -> ir.Model:
    rng = np.random.default_rng(0)
    joined = "Concat" in text
    widths = {"w1": (4, 4), "w2": (4, 4), "w3": (4, 4), "w4": (4, 16 if joined else 4),
              "w5": (2, 20) if joined else (5, 4)}  # fmt: skip
    made = {}
    for name, shape in widths.items():
        size = (3, 3) if name == "w1" and not joined else (1, 1)
        shape = shape if name == "w5" and not joined else (*shape, *size)
        made[name] = rng.normal(0, 0.5, shape).astype(np.float32)
    if joined:
        made |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    return model(text, made)


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(16, 4, 8, 8)).astype(np.float32)


def test_openvino_rounds_nothing_between_a_convolution_and_its_activation() -> None:
    graph = net(GATED).graph
    assert quantized_tensors(graph, OPENVINO) == ("x", "ra", "p", "se", "g", "rb", "rc", "m", "f")
    # ONNX Runtime computes the activations by themselves, from integers to integers.
    assert {"a", "sa", "e", "b", "hs", "c"} <= {*quantized_tensors(graph, CPU)}


@pytest.mark.parametrize("text", [GATED, JOINED])
def test_openvino_chooses_among_what_was_observed_for_the_cpu(text: str) -> None:
    graph = net(text).graph
    assert {*quantized_tensors(graph, OPENVINO)} <= {*quantized_tensors(graph, CPU)}


@pytest.mark.parametrize("text", [GATED, JOINED])
def test_fewer_roundings_lose_less(text: str) -> None:
    x, lost, name = images(), [], str(net(text).graph.outputs[0].name)
    exact = outputs(net(text), x)
    for placement in (CPU, OPENVINO):
        graph = net(text)
        seen = ranges(graph, x)
        quantize(graph, Thresholds(seen), Recipe(method=Method(name="minmax")), placement)
        lost.append(decibels(exact[name], outputs(graph, x)[name]))
    assert lost[1] >= lost[0] > 20, lost


def test_a_branch_that_only_a_concat_reads_takes_its_scale() -> None:
    sources = scale_sources(net(JOINED).graph, CPU)
    assert sources["rb"] == sources["cat"] == ("cat",) and sources["rm"] == ("whole",)
    # Within a Concat within another: the outermost one's.
    alone = JOINED.replace("(cat, w4)", "(ra, w4a)").replace("more =", "q = Relu (ra)\n  more =")
    original = {n: v.const_value.numpy() for n, v in net(JOINED).graph.initializers.items()}
    constants = {n: array for n, array in original.items() if n != "w4"}
    constants["w4a"] = original["w4"][:, :4]
    sources = scale_sources(model(alone, constants).graph, CPU)
    assert sources["cat"] == sources["rm"] == sources["whole"] == ("whole",)
    assert sources["rb"] == ("whole",)
    # What has a scale of another, what others read, and what ends at its own scale's end, keeps it.
    assert sources["p"] == sources["ra"] == ("ra",) and sources["rc"] == ("rc",)
    # A ReLU is left out where integers end at zero: not in the scale of what has both signs.
    signed = JOINED.replace("(cat, rm)", "(cat, more)").replace("  rm = Relu (more)\n", "")
    sources = scale_sources(model(signed, original).graph, CPU)
    assert sources["more"] == ("whole",) and sources["cat"] == ("cat",)
