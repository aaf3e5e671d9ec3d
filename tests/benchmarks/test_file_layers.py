"""Counts of layers against counts by hand, by loops, and those of the zoo's own tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from convexport.benchmarks.bandwidth import Bandwidth, _copy, measured_bandwidth
from convexport.benchmarks.executed import Kernel
from convexport.benchmarks.file_layers import FileLayers
from convexport.benchmarks.limits import against_roof, attributed
from convexport.benchmarks.paper_roofline import BATCHES, DEVICES, bounds
from convexport.benchmarks.roofline import Peak

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(body: str, given: str, result: str, **weights: np.ndarray) -> Path:
        proto = parser.parse_model(f"""
            <ir_version: 8, opset_import: ["": 17]> net ({given}) => ({result}) {{ {body} }}""")
        for name, array in weights.items():
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for node in proto.graph.node:
            node.name = f"m/{node.output[0]}"
        onnx.save(proto, tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    return make


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def test_a_convolution_by_hand(write: Write) -> None:
    """8 maps of 5x6 of 3 maps: each output adds 27 products, with its activation in place."""
    path = write(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w, b)\n y = Relu (c)",
        "float[N, 3, 5, 6] x", "float[N, 8, 5, 6] y", w=zeros(8, 3, 3, 3), b=zeros(8),
    )  # fmt: skip
    layer = FileLayers(path, batch=2).of(["m/c"], "Conv")
    assert layer is not None
    assert layer.operations == 2 * (2 * 8 * 5 * 6) * 27
    assert layer.bytes == 4 * (2 * 3 * 5 * 6 + 8 * 3 * 3 * 3 + 8 + 2 * 8 * 5 * 6)
    assert (layer.name, layer.module, layer.op) == ("m/c", "m", "Conv")


def test_a_depthwise_convolution_by_hand(write: Write) -> None:
    """Each of 16 maps by itself: 9 products an output, however many maps there are."""
    path = write(
        "y = Conv <group = 16, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)",
        "float[N, 16, 8, 8] x", "float[N, 16, 4, 4] y", w=zeros(16, 1, 3, 3),
    )  # fmt: skip
    layer = FileLayers(path).of(["m/y"], "Convolution")
    assert layer is not None
    assert layer.operations == 2 * 16 * 4 * 4 * 9
    assert layer.bytes == 4 * (16 * 64 + 16 * 9 + 16 * 16)


def test_a_matrix_by_hand(write: Write) -> None:
    path = write("y = Gemm <transB = 1> (x, w, b)", "float[N, 40] x", "float[N, 7] y",
                 w=zeros(7, 40), b=zeros(7))  # fmt: skip
    layer = FileLayers(path, batch=3).of(["m/y"], "FusedGemm")
    assert layer is not None
    assert layer.operations == 2 * 3 * 7 * 40
    assert layer.bytes == 4 * (3 * 40 + 7 * 40 + 7 + 3 * 7)


def test_quantized_tensors_are_moved_as_integers(write: Write) -> None:
    path = write(
        """q = QuantizeLinear (x, s, z)
           d = DequantizeLinear (q, s, z)
           e = DequantizeLinear (w, s, n)
           c = Conv (d, e)
           r = Relu (c)
           p = QuantizeLinear (r, s, z)
           f = DequantizeLinear (p, s, z)
           y = GlobalAveragePool (f)""",
        "float[N, 3, 4, 4] x", "float[N, 8, 1, 1] y",
        w=zeros(8, 3, 1, 1, dtype=np.int8), s=np.float32(0.1), z=np.uint8(0), n=np.int8(0),
    )  # fmt: skip
    file = FileLayers(path)
    # Whatever the runtime calls it by: the convolution, its activation, or what rounds it.
    layers = [file.of([name], "QLinearConv") for name in ("m/c", "m/r", "m/p")]
    assert {layer and layer.name for layer in layers} == {"m/c"}
    assert layers[0] is not None
    assert layers[0].bytes == 3 * 16 + 8 * 3 + 8 * 16
    pool = file.of(["m/y"], "QLinearGlobalAveragePool")
    assert pool is not None and pool.bytes == 8 * 16 + 4 * 8
    assert file.of(["m/q"], "QuantizeLinear") is None
    assert file.of(["ReorderInput"], "ReorderInput") is None
    # An activation that runs by itself is its own layer.
    relu = file.of(["m/r"], "Relu")
    assert relu is not None and (relu.name, relu.operations) == ("m/r", 0)


def test_a_sum_belongs_to_the_only_layer_behind_it(write: Write) -> None:
    """Two blocks: in the first a branch is the input's own, in the second both have weights."""
    path = write(
        """a = Conv (x, w)
           s = Add (x, a)
           r = Relu (s)
           b = Conv (r, w)
           t = Add (r, b)
           c = Conv (t, w)
           d = Conv (t, w)
           e = Relu (d)
           y = Add (e, c)""",
        "float[N, 8, 4, 4] x", "float[N, 8, 4, 4] y", w=zeros(8, 8, 1, 1),
    )  # fmt: skip
    file = FileLayers(path)

    def owner(*names: str, op: str = "Convolution") -> str | None:
        layer = file.of(names, op)
        return layer and layer.name

    assert [owner(name) for name in ("m/s", "m/r", "m/t")] == ["m/a", "m/a", "m/b"]
    assert owner("m/y") == "m/y"
    assert owner("m/r", "m/b") == "m/b"
    assert owner("m/r", op="Convert") == "m/r"


def test_shapes_are_those_that_really_come_out(write: Write) -> None:
    """Every tensor of the net computed by onnx's own evaluator, and the products counted one by
    one from what it gave."""
    path = write(
        """a = Conv <group = 2, pads = [1, 1, 1, 1], strides = [2, 1]> (x, c)
           b = ConvTranspose <strides = [2, 2]> (a, t)
           r = Clip (b)
           p = MaxPool <kernel_shape = [2, 2]> (r)
           f = Flatten (p)
           y = Gemm <transB = 1> (f, w)""",
        "float[N, 4, 6, 5] x", "float[N, 5] y",
        c=zeros(8, 2, 3, 3), t=zeros(8, 3, 2, 2), w=zeros(5, 3 * 5 * 9),
    )  # fmt: skip
    proto = onnx.load(path)
    for node in proto.graph.node:
        proto.graph.output.append(helper.make_tensor_value_info(node.output[0], 1, None))
    names = [node.output[0] for node in proto.graph.node]
    x = zeros(2, 4, 6, 5)
    found = dict(zip(names, ReferenceEvaluator(proto).run(names, {"x": x}), strict=True), x=x)
    weights = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    products = moved = 0
    file = FileLayers(path, batch=2)
    for node in proto.graph.node:
        out, (data, *rest) = found[node.output[0]], [{**found, **weights}[n] for n in node.input]
        if node.op_type == "Conv":
            products += sum(math.prod(rest[0].shape[1:]) for _ in np.ndindex(out.shape))
        elif node.op_type == "ConvTranspose":
            products += sum(math.prod(rest[0].shape[1:]) for _ in np.ndindex(data.shape))
        elif node.op_type == "Gemm":
            products += sum(1 for _ in np.ndindex(*out.shape, data.shape[1]))
        layer = file.of([node.name], node.op_type)
        assert layer is not None
        if node.op_type == "Flatten":
            assert layer.bytes == 0
        else:
            moved = data.nbytes + out.nbytes + sum(each.nbytes for each in rest)
            assert layer.bytes == moved, node.op_type
    assert file.operations == 2 * products


def kernel(name: str, op: str, ms: float, precision: str = "fp32") -> Kernel:
    return Kernel(name, op, ms, 100, precision, (name,))


def test_fractions_are_the_longer_of_two_roofs(write: Write) -> None:
    path = write(
        "c = Conv (x, w)\n r = Relu (c)\n y = MaxPool <kernel_shape = [2, 2]> (r)",
        "float[N, 64, 8, 8] x", "float[N, 64, 7, 7] y", w=zeros(64, 64, 1, 1),
    )  # fmt: skip
    file = FileLayers(path)
    ran = [kernel("m/r", "Conv", 0.5), kernel("m/y", "MaxPool", 0.1), kernel("Reorder", "R", 0.4)]
    peaks = {"fp32": Peak("x", "fp32", 1, 1e9)}
    bandwidth = Bandwidth(1, {1 << 14: 1e9, 1 << 20: 2e8})
    found = against_roof(attributed(ran, file), 2.0, file.operations, peaks, bandwidth)
    rows = {row["name"]: row for row in found["layers"]}
    ops = 2 * 64 * 64 * 64
    assert rows["m/c"]["bound"] == "compute" and rows["m/c"]["ops"] == ops == file.operations
    assert rows["m/c"]["fraction"] == pytest.approx(ops / 1e9 / 0.5e-3)
    pool = 4 * 64 * (64 + 49)
    assert rows["m/y"]["bound"] == "memory" and rows["m/y"]["bytes"] == pool
    assert rows["m/y"]["fraction"] == pytest.approx(pool / 1e9 / 0.1e-3)
    assert rows["Reorder"]["ops"] == 0 and rows["Reorder"]["bytes"] == 100
    assert [row["name"] for row in found["layers"]] == ["m/c", "Reorder", "m/y"]
    assert sum(row["share"] for row in found["layers"]) == pytest.approx(1)
    roof = 1e3 * (ops / 1e9 + (pool + 100) / 1e9)
    assert found["roof_ms"] == pytest.approx(roof)
    assert found["fraction"] == pytest.approx(roof / 2.0)
    assert any("too low" in note and "m/c is at 1.05" in note for note in found["notes"])


def test_what_no_row_has_is_said_and_counts_for_the_whole(write: Write) -> None:
    path = write("c = Gemm (x, w)\n y = Gemm (c, w)", "float[N, 8] x", "float[N, 8] y",
                 w=zeros(8, 8))  # fmt: skip
    file = FileLayers(path)
    peaks, bandwidth = {"fp32": Peak("x", "fp32", 1, 1e6)}, Bandwidth(1, {1: 1e12})
    rows = attributed([kernel("m/c", "Gemm", 1.0)], file)
    found = against_roof(rows, 10.0, file.operations, peaks, bandwidth)
    assert found["roof_ms"] == pytest.approx(2 * 1e3 * 128 / 1e6)
    assert found["notes"] == ["50.0% of the operations are of no row: the runtime renamed them"]


def test_kernels_of_one_layer_are_one_row(write: Write) -> None:
    path = write("y = Gemm (x, w)", "float[N, 8] x", "float[N, 8] y", w=zeros(8, 8))
    ran = [kernel("m/y", "Gemm", 1.0), kernel("m/y", "MatMul", 0.5)]
    (row,) = attributed(ran, FileLayers(path))
    assert (row["ms"], row["ops"], row["bytes"]) == (1.5, 128, 4 * (8 + 64 + 8))
    # Of no layer, but of one name: each moves its own.
    (row,) = attributed([kernel("ReorderInput", "R", 1.0)] * 3, FileLayers(path))
    assert (row["ms"], row["ops"], row["bytes"]) == (3.0, 0, 300)


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidth_is_of_bytes_that_moved(threads: int) -> None:
    found = measured_bandwidth(threads=threads, seconds=0.05)
    assert found.threads == threads and found.memory == found.rates[max(found.rates)]
    # Between a microcontroller and ten times any memory or cache of today.
    assert all(1e7 < rate < 1e13 for rate in found.rates.values())
    source, target = np.arange(9, dtype=np.uint8), np.zeros(9, np.uint8)
    _copy(2, (source, target))
    assert (source == target).all()


def test_a_layer_is_held_against_copies_of_its_size_or_larger() -> None:
    found = Bandwidth(1, {10: 1.0, 100: 4.0, 1000: 2.0})
    assert [found.rate(n) for n in (1, 10, 99, 100, 999, 1000, 5000)] == [4, 4, 4, 4, 4, 2, 2]
    assert found.seconds(5000) == 2500


def test_bounds_on_paper_by_hand(write: Write) -> None:
    """One layer that computes long and one that moves long, each at its own roof."""
    path = write(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w)\n f = Flatten (c)\n y = Gemm (f, v)",
        "float[N, 64, 4, 4] x", "float[N, 1000] y", w=zeros(64, 64, 3, 3), v=zeros(1024, 1000),
    )  # fmt: skip
    found = {(each.device, each.precision, each.batch): each for each in bounds(path)}
    assert len(found) == len(DEVICES) * len(BATCHES) * 2
    t4 = next(device for device in DEVICES if device.name == "T4")
    computed = 2 * 128 * 64 * 16 * 576 / t4.operations_per_s["int8"]
    moved = (128 * 1024 + 1024 * 1000 + 128 * 1000) / t4.bytes_per_s
    bound = found["T4", "int8", 128]
    assert bound.milliseconds == pytest.approx((computed + moved) * 1e3)
    assert bound.memory_bound == pytest.approx(moved / (computed + moved))
    assert bound.images_per_s == pytest.approx(128 / (computed + moved))
