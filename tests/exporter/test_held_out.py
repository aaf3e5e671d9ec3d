"""What a budget counts on images that were held out: right answers where folders are classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from convexport.benchmarks.accuracy import tango_interval
from convexport.benchmarks.statistics import proportion
from convexport.calibration.images import folder
from convexport.exporter.budget import Loss, loss_of
from convexport.exporter.held_out import HeldOut
from convexport.runtime.ort_session import OrtSession
from convexport.runtime.specs import Preprocess

GREY = Preprocess(crop=(8, 8), resize=(8,), channels="L", mean=(0.0,), std=(1.0,))
SHADES = np.array([0.2, 0.5, 0.8], np.float32)


def net(path: Path, shades: np.ndarray) -> Path:
    """The class of the nearest shade, from the mean of an image."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"]),
    ]
    constants = [("w", np.float32(2 * shades[None])), ("b", np.float32(-(shades**2)))]
    graph = helper.make_graph(
        nodes,
        "shades",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Ten images of each of three shades; of the middle one's, two are none."""
    for name, shade in zip(("dark", "grey", "light"), SHADES, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(10):
            pixels = np.full((8, 8), round(float(shade) * 255), np.uint8)
            pixels[0, 0] = index
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    for index in (3, 5):
        (tmp_path / "images" / "grey" / f"{index}.png").write_bytes(b"none")
    return tmp_path


def loss(shown: Path, labels: tuple[str, ...], shades: np.ndarray = SHADES) -> Loss:
    images = folder(shown / "images")
    return loss_of(HeldOut(images, GREY, labels), net(shown / "fp32.onnx", shades), shown)


def test_labels_count_where_the_folders_are_the_nets_classes(shown: Path) -> None:
    # FP32 takes a grey image for a light one; of two nets one repairs that, one takes all for dark.
    found = loss(shown, ("dark", "grey", "light"), SHADES * [1, 10, 1])
    assert found.measure.startswith("top-1 drop on 28 labelled 30 images")
    better, worse = (
        OrtSession(net(shown / "other.onnx", SHADES * factors))
        for factors in ([1, 1, 1], [1, 10, 10])
    )
    assert found.upper_bound(better, 1) == pytest.approx(tango_interval(0, 8, 28)[1])
    assert found.upper_bound(worse, 1) == pytest.approx(tango_interval(10, 0, 28)[1])
    assert found.upper_bound(worse, 6) > found.upper_bound(worse, 1)


def test_otherwise_each_other_answer_is_one_too_many(shown: Path) -> None:
    better = OrtSession(net(shown / "other.onnx", SHADES))
    wrong = SHADES * [1, 10, 1]
    # Strangers; and labels by which the net is no better than chance.
    for labels in (("a", "b", "c"), ("grey", "light", "dark")):
        found = loss(shown, labels, wrong)
        assert found.measure.startswith("top-1 disagreement with FP32")
        assert found.upper_bound(better, 1) == pytest.approx(proportion(8, 28).high)
