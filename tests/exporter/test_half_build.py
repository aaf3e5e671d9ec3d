"""Builds in FP16 for a target of these tests alone: ONNX Runtime's CPU provider.

The target that is meant is CUDA. What a GPU computes was never seen by these tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from convexport.benchmarks.parity import compare
from convexport.exporter import half_stage
from convexport.exporter.targets import TARGETS, Target
from convexport.runtime.engine import load
from convexport.runtime.errors import GateError

Quick = tuple[str, ...]
Refused = Callable[..., Any]
EPSILON = 2.0**-11  # FP16 rounds to nearest, by at most this share


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    row = Target(
        name="half",
        runtime="onnxruntime",
        provider="CPUExecutionProvider",
        opset=18,
        precisions=("fp16",),
    )
    monkeypatch.setitem(TARGETS, "half", row)
    yield


FP16 = ("--fp16", "--target", "half", "-o", "out")


def manifest(home: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((home / "out/manifest.json").read_text())
    return data


def absolute(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same net with the magnitudes of its weights: what rounding errors grow by at most."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.abs(array), tensor.name))
    return copy


def test_lenet_keeps_its_digits_and_the_bound(invoke: Any, quick: Quick, home: Path) -> None:
    done = invoke("build", "lenet5", "--weights", "digits", *FP16, *quick)
    assert done.code == 0, done.err
    data = manifest(home)
    assert data["accuracy"]["reference"] == data["accuracy"]["actual"]
    assert set(data["layers"].values()) == {"fp16"} and len(data["layers"]) == 12
    assert data["fp16"]["kept"] == [] and data["fp16"]["casts"] == 2
    report = json.loads((home / "out/report.json").read_text())
    assert report["bundles"][0]["fp16"] == data["fp16"]
    assert "FP16 against the same" in done.out and "12 of 12 nodes in FP16" in done.err

    engine, narrow = load(home / "out"), onnx.load(home / "out/model.onnx")
    wide, batch = onnx.load(home / "out/reference.onnx"), np.load(home / "out/sample/input.npy")
    assert engine(batch).dtype == np.float32
    assert [v.type.tensor_type.elem_type for v in narrow.graph.input] == [TensorProto.FLOAT]
    (expected,) = ReferenceEvaluator(wide).run(None, {"input": batch})
    (largest,) = ReferenceEvaluator(absolute(wide)).run(None, {"input": np.abs(batch)})
    # The input, 12 outputs and the weights of 5 layers are rounded once each, and each error
    # grows no more than the net with all its signs taken away lets it.
    share = 18 * EPSILON / (1 - 18 * EPSILON)
    difference = np.abs(engine(batch) - expected)
    assert (difference <= share * largest).all() and difference.any()
    (emulated,) = ReferenceEvaluator(narrow).run(None, {"input": batch})
    # It adds up in FP16 as well: 400 terms at most, of which each sum is rounded.
    assert (np.abs(emulated - expected) <= (share + 400 * EPSILON) * largest).all()


@pytest.mark.slow
def test_resnet_keeps_its_digits(invoke: Any, quick: Quick, home: Path) -> None:
    assert invoke("build", "resnet20_cifar", "--weights", "digits", *FP16, *quick).code == 0
    data = manifest(home)
    before, after = data["accuracy"]["reference"], data["accuracy"]["actual"]
    assert before["k"] == after["k"]
    # 54 outputs and 22 layers' weights, each rounded on its own: errors add up like a random walk.
    assert data["parity"]["half"]["max_rel"] <= np.sqrt(76) * EPSILON


def test_what_is_kept_is_said(
    invoke: Any, quick: Quick, home: Path, small_onnx: Callable[..., onnx.ModelProto]
) -> None:
    model = small_onnx()
    tensor = next(each for each in model.graph.initializer if each.name == "v")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = -1e5
    tensor.CopyFrom(numpy_helper.from_array(array, "v"))
    done = build_onnx(invoke, home, model, quick, mean=0.5, std=0.5)
    assert done.code == 0, done.err
    assert "FP32 for Gemm_4: weight overflow of v, 1e+05 against 6.55e+04" in done.err
    data = manifest(home)
    assert data["layers"] == {
        "Conv_0": "fp16",
        "Relu_1": "fp16",
        "GlobalAveragePool_2": "fp16",
        "Flatten_3": "fp16",
        "Gemm_4": "fp32",
    }
    assert any("Gemm_4" in note for note in data["notes"])


def test_images_that_reach_further_than_the_calibration_are_a_failed_gate(
    invoke: Any, quick: Quick, home: Path, small_onnx: Callable[..., onnx.ModelProto]
) -> None:
    """Black images for the ranges; the stand-in photographs for parity overflow."""
    (home / "dark").mkdir()
    random = np.random.default_rng(0)
    for index in range(8):
        pixels = random.integers(0, 3, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(home / f"dark/{index}.png")
    done = build_onnx(invoke, home, small_onnx(), (*quick, "--calib", "dark"), mean=0.0, std=2.5e-5)
    assert done.failed_with(5, "FP16") and "--keep-fp32 Conv_0" in done.err
    assert not (home / "out").exists()


def test_the_first_bad_layer_is_named(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = half_stage.save

    def save_scaled(model: onnx.ModelProto, path: Path) -> None:
        for tensor in model.graph.initializer if path.name == half_stage.HALF else ():
            if tensor.name.startswith("c5.weight"):
                array = numpy_helper.to_array(tensor) * np.float16(1.1)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        save(model, path)

    monkeypatch.setattr(half_stage, "save", save_scaled)
    done = refused(5, "E0561", "build", "lenet5", "--weights", "random:201", *FP16, *quick)
    assert "begins at c5/Conv" in done.err and "--keep-fp32 c5/Conv" in done.err


@pytest.mark.parametrize(
    ("errors", "blamed", "hint"),
    [
        ((1e-3, 2e-3, 0.05, 0.06), "2", "--keep-fp32 2"),
        ((4e-3, 8e-3, 0.012, 0.02), "2", "none is to blame alone"),
        ((1e-3, 0.02, None, None), "2", "--keep-fp32 2"),
        ((1e-3, 2e-3, 8e-3, 9e-3), "3", "none is to blame alone"),
    ],
    ids=["sudden", "gradual", "infinite", "only the output is off"],
)
def test_a_layer_is_blamed_only_for_its_own_error(
    errors: tuple[float | None, ...], blamed: str, hint: str
) -> None:
    layers = [half_stage.Layer(str(place), "t", error) for place, error in enumerate(errors)]
    parity = compare(np.eye(3), np.eye(3) + 0.05)
    with pytest.raises(GateError) as error:
        half_stage.require_half(parity, layers)
    assert error.value.exit_code == 5
    assert f"begins at {blamed}" in error.value.where and hint in error.value.hint


def test_a_layer_that_is_not_finite_fails_though_the_output_is() -> None:
    layers = [half_stage.Layer("a", "t", 1e-4), half_stage.Layer("b", "u", None)]
    with pytest.raises(GateError, match="u is not finite") as error:
        half_stage.require_half(compare(np.eye(3), np.eye(3)), layers)
    assert "--keep-fp32 b" in error.value.hint


def test_a_node_may_be_kept_and_a_typo_is_answered(
    invoke: Any, refused: Refused, scratch: Quick, home: Path
) -> None:
    net = ("build", "lenet5", "--weights", "digits", *FP16, *scratch)
    done = invoke(*net, "--keep-fp32", "c5/Con")
    assert done.failed_with(2, "E0289") and "c5/Conv" in done.err
    assert invoke(*net, "--keep-fp32", "c5/Conv", "--keep-fp32", "*/Gemm").code == 0
    layers = manifest(home)["layers"]
    assert {name for name, kind in layers.items() if kind == "fp32"} >= {
        "c5/Conv",
        "f6/Gemm",
        "output/Gemm",
    }
    refused(2, "E0283", *net)  # another request is another bundle


def test_keeping_is_for_fp16(refused: Refused) -> None:
    refused(2, "E0284", "build", "lenet5", "--keep-fp32", "x")
    refused(2, "E0284", "build", "lenet5", *FP16, "--method", "minmax")


RANDOM = ("--weights", "random:0")
SMALL = (*RANDOM, "--input-shape", "3x64x64")
NETS = {
    "lenet5_original": RANDOM,
    "nin_small": RANDOM,
    "cnn_gap": RANDOM,
    "inception_keras_small": RANDOM,
    "densenet_40_k12_cifar": RANDOM,
    "alexnet_original": RANDOM,
    "squeezenet1_1": SMALL,
    "se_resnet18": SMALL,
    "mobilenet_v1_025": ("--weights", "digits"),
    "mobilenet_v3_small": SMALL,
    "efficientnet_b0": SMALL,
    "googlenet": SMALL,
    "lenet5+lenet5_original*2": RANDOM,
}
STAY = {"LRN", "Softmax", "Log"}
# What an ensemble makes of its members' probabilities before their logarithm.
AVERAGE = {"Unsqueeze", "Concat", "Mul", "ReduceSum", "Clip"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_the_operators_of_the_families(invoke: Any, quick: Quick, home: Path, name: str) -> None:
    few = ("--parity-images", "4", "--calib-images", "4")
    done = invoke("build", name, *NETS[name], *few, *FP16, *quick)
    assert done.code == 0, done.err
    data, graph = manifest(home), onnx.load(home / "out/model.onnx").graph
    operators = {node.name: node.op_type for node in graph.node}
    wide = {operators[name] for name, kind in data["layers"].items() if kind == "fp32"}
    assert wide <= STAY | (AVERAGE if "+" in name else set()), data["fp16"]["kept"]
    assert STAY & set(operators.values()) == STAY & wide
    assert data["fp16"]["headroom_bits"] > 2


def build_onnx(
    invoke: Any, home: Path, model: onnx.ModelProto, options: Quick, *, mean: float, std: float
) -> Any:
    """Build a grey net of 16x16 with that normalisation."""
    spec = {"crop": [16, 16], "resize": [16], "interpolation": "bilinear", "channels": "L"}
    spec |= {"mean": [mean], "std": [std], "exif": "apply"}
    (home / "preprocess.json").write_text(json.dumps(spec))
    (home / "net.onnx").write_bytes(model.SerializeToString())
    return invoke("build", "net.onnx", "--preprocess", "preprocess.json", *FP16, *options)
