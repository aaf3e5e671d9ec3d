"""What a graph tells of its inside, against every value of it."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from convexport.calibration import observed
from convexport.calibration.collect import collect
from convexport.calibration.histograms import range_of
from convexport.calibration.observed import Outputs, write_observed
from convexport.runtime.errors import InputError
from convexport.runtime.ort_session import OrtSession
from tests.calibration.graphs import outputs

TENSORS = ("x", "c", "r", "six", "s", "p", "f", "y")
RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(size=(n, 3, 30, 40)).astype(np.float32) for n in (2, 1, 3)]


def net(opset: int = 20, sides: str = "30, 40") -> onnx.ModelProto:
    proto = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        net (float[N, 3, {sides}] x) => (float[N, 4] y)
        <float zero = {{0.0}}, float six_ = {{6.0}}> {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu (c)
            six = Clip (r, zero, six_)
            s = Add (six, c)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            y = MatMul (f, m)
        }}""")
    weights = RNG.normal(size=(16, 3, 3, 3)), RNG.normal(size=(16, 4))
    for name, array in zip("wm", weights, strict=True):
        initializer = numpy_helper.from_array(array.astype(np.float32), name)
        proto.graph.initializer.append(initializer)
    return onnx.shape_inference.infer_shapes(proto)


def watched(tmp_path: Path, proto: onnx.ModelProto) -> tuple[OrtSession, dict[str, Outputs]]:
    onnx.save(proto, tmp_path / "net.onnx")
    found = write_observed(tmp_path / "net.onnx", TENSORS, tmp_path / "observed.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "observed.onnx"), full_check=True)
    return OrtSession(tmp_path / "observed.onnx", early=True), found


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_bounds_are_of_all_values_and_an_even_grid_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset: int
) -> None:
    monkeypatch.setattr(observed, "COUNTED", 16 * 10 * 14)
    proto = net(opset)
    session, found = watched(tmp_path, proto)
    assert list(found) == list(TENSORS)
    seen = collect(session, BATCHES, found, workers=2)
    everything = outputs(ir.from_proto(proto), np.concatenate(BATCHES))
    for name in TENSORS:
        values, ranges = everything[name], seen[name]
        assert ranges.maximum == pytest.approx(values.max(), rel=1e-5)
        assert ranges.minimum == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        large = name in ("c", "r", "six", "s")
        counted = values[:, :, ::3, ::3] if large else values
        assert ranges.counts.sum() == counted.size
        np.testing.assert_allclose(
            ranges.channels.mean,
            counted.astype(np.float64).reshape(*counted.shape[:2], -1).mean(axis=(0, 2)),
            atol=1e-5,
        )
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        np.testing.assert_allclose(ranges.channels.maximum, values.max(axes), rtol=1e-5, atol=1e-6)
        # Kernels differ in the last bits, and so do bins.
        ours, theirs = ranges.counts.cumsum(), range_of(counted).counts.cumsum()
        shared = min(len(ours), len(theirs))
        assert np.abs(ours[:shared] - theirs[:shared]).max() <= 0.002 * counted.size


def test_what_never_is_negative_is_not_read_again_for_its_minimum(tmp_path: Path) -> None:
    watched(tmp_path, net())
    graph = onnx.load(tmp_path / "observed.onnx").graph
    read = {n.input[0] for n in graph.node if n.op_type == "ReduceMin"}
    assert read == {"c", "s", "p", "r/observed/grid", "six/observed/grid"}


def test_tensors_without_a_known_size_are_given_whole(tmp_path: Path) -> None:
    session, found = watched(tmp_path, net(sides="H, W"))
    assert all(outputs_.channels is None for name, outputs_ in found.items() if name != "p")
    seen = collect(session, BATCHES, found)
    assert seen["c"].counts.sum() == 6 * 16 * 30 * 40


def test_the_model_is_left_as_it_was_and_computes_the_same(tmp_path: Path) -> None:
    session, _ = watched(tmp_path, net())
    before = (tmp_path / "net.onnx").read_bytes()
    plain = OrtSession(tmp_path / "net.onnx")
    x = {"x": BATCHES[0]}
    np.testing.assert_allclose(session.run(x)["y"], plain.run(x)["y"], rtol=1e-4, atol=1e-5)
    assert (tmp_path / "net.onnx").read_bytes() == before


def test_values_that_are_not_finite_are_found_inside(tmp_path: Path) -> None:
    proto = net()
    weights = numpy_helper.to_array(proto.graph.initializer[2]).copy()
    weights[3] = np.inf
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "w"))
    session, found = watched(tmp_path, proto)
    with pytest.raises(InputError, match="E0350"):
        collect(session, BATCHES, found)


def test_names_of_the_users_are_left_alone(tmp_path: Path) -> None:
    proto = net()
    for old, new in (("m", "observed/axes"), ("w", "c/observed/min")):
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
        next(each for each in proto.graph.initializer if each.name == old).name = new
    session, found = watched(tmp_path, proto)
    seen = collect(session, BATCHES, found)
    everything = outputs(ir.from_proto(proto), np.concatenate(BATCHES))
    assert seen["c"].minimum == pytest.approx(everything["c"].min(), rel=1e-5)
