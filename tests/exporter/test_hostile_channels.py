"""A net that reads digits, with channels of very different size: the same in FP32, not in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from convexport.benchmarks.accuracy import PairedAccuracy, paired_accuracy
from convexport.calibration.collect import collect
from convexport.calibration.digits import digits
from convexport.calibration.histograms import TensorRange
from convexport.calibration.observed import write_observed
from convexport.calibration.placement import CPU, scale_sources
from convexport.calibration.quantize import Recipe, quantize
from convexport.calibration.repair import equalize
from convexport.calibration.thresholds import Method, Thresholds
from convexport.runtime.batches import run_in_batches
from convexport.runtime.bundle import read_manifest
from convexport.runtime.ort_session import OrtSession


def unclipped(path: Path) -> ir.Model:
    """The net with ReLU for ReLU6, which no factor could pass."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "Clip":
            node.op_type = "Relu"
            node.resize_inputs(1)
    return model


def rescale(model: ir.Model) -> int:
    """Each channel between a convolution and its only reader, a depthwise one, by a power of two.

    Returns:
        Before how many depthwise convolutions.
    """
    rng, done = np.random.default_rng(0), 0
    for node in model.graph:
        if node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1:
            continue
        activation = node.inputs[0].producer()
        assert activation is not None and activation.op_type == "Relu"
        before = activation.inputs[0].producer()
        assert before is not None and before.op_type == "Conv"
        factors = 2.0 ** rng.integers(-6, 7, node.inputs[1].shape[0])
        for value, by in ((before.inputs[1], factors), (before.inputs[2], factors),
                          (node.inputs[1], 1 / factors)):  # fmt: skip
            array = value.const_value.numpy()
            scaled = array * by.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
            value.const_value = ir.tensor(scaled, name=value.name)
        done += 1
    return done


@pytest.mark.slow
def test_channels_of_very_different_size_cost_nothing_once_they_are_evened_out(
    invoke: Any, quick: tuple[str, ...], home: Path
) -> None:
    done = invoke("build", "mobilenet_v1_025", "--weights", "digits", *quick, "-o", "out")
    assert done.code == 0, done.err
    spec = read_manifest(home / "out").preprocess
    inputs, labels = digits("test").arrays(spec)
    images, _ = digits("calibration").sample(128).arrays(spec)

    def saved(model: ir.Model) -> Path:
        ir.save(model, home / "some.onnx")
        return home / "some.onnx"

    def logits(model: ir.Model) -> np.ndarray:
        return run_in_batches(OrtSession(saved(model)), inputs)

    def ranges(model: ir.Model) -> dict[str, TensorRange]:
        groups = scale_sources(model.graph, CPU)
        names = dict.fromkeys([*(name for group in groups.values() for name in group), *groups])
        outputs = write_observed(saved(model), names, home / "observed.onnx")
        batches = np.array_split(images, 8)
        return dict(collect(OrtSession(home / "observed.onnx", early=True), batches, outputs))

    def int8(model: ir.Model) -> PairedAccuracy:
        recipe = Recipe(method=Method(name="percentile"))
        quantize(model, Thresholds(ranges(model)), recipe, CPU)
        return paired_accuracy(plain, logits(model), labels)

    def hostile() -> ir.Model:
        model = unclipped(home / "out" / "model.onnx")
        assert rescale(model) > 8
        return model

    plain = logits(unclipped(home / "out" / "model.onnx"))
    assert np.allclose(plain, logits(hostile()), atol=1e-4)
    repaired = hostile()
    assert len(equalize(repaired, ranges(repaired))) > 8
    broken, mended = int8(hostile()), int8(repaired)
    assert broken.reference.share > 0.97
    assert broken.low_pp > 1 > mended.high_pp, (broken, mended)
