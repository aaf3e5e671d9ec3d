"""A build for TensorRT from end to end: a device's bundle, and an engine by the double."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import convexport
from convexport.exporter import summary
from convexport.exporter.console import console
from convexport.exporter.options import BuildOptions
from convexport.exporter.pipeline import build
from convexport.exporter.trt_request import TrtRequest
from convexport.runtime import cuda
from convexport.runtime.errors import GateError, MachineError, UnsupportedError, UsageError
from convexport.runtime.trt_config import TrtOptions, require_options
from convexport.runtime.trt_versions import generations
from tests.tiny import WEIGHTS, logits

from .conftest import Says


def saved(path: Path, batch: str) -> Path:
    """What the double computes, as an ONNX file of a user's own."""
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[{batch}, 1, 2, 2] input) => (float[{batch}, 3] logits) {{
            flat = Flatten<axis = 1> (input)
            logits = Gemm<transB = 1> (flat, w)
        }}""")
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    onnx.save(model, path)
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return saved(tmp_path / "tiny.onnx", "batch")


def options(tmp_path: Path, target: str, **more: Any) -> BuildOptions:
    return BuildOptions(
        target=target,
        output=tmp_path / "bundle",
        offline=True,
        bench_seconds=0,
        cache_dir=tmp_path / "cache",
        **more,
    )


def shown(result: Any) -> str:
    terminal = console()
    with terminal.capture() as captured:
        terminal.print(summary.as_text(result))
    return captured.get()


@pytest.mark.parametrize("version", ["8.5", "10.16"])
def test_on_a_machine_with_tensorrt_the_bundle_has_an_engine(
    tensorrt: Says, net: Path, tmp_path: Path, version: str
) -> None:
    tensorrt(version, layers=["a"])
    asked = options(tmp_path, "tensorrt", tensorrt=TrtRequest(batch=(1, 2, 4)))
    result = build(str(net), asked)
    names = [stage.name for stage in result.stages]
    assert names[-3:] == ["flavour", "engine", "target"]
    parity = result.manifest.data["parity"]["target"]
    assert parity["runtime"].startswith("tensorrt ") and set(parity["fp32"]["max_rel"]) >= {"all"}
    about = result.manifest.data["tensorrt"]
    assert about["options"]["batch"] == [1, 2, 4]
    assert about["engine"]["engine"]["counts"] == {"not told": 1}
    assert "engine: 1 not told layers, 0 reformats" in shown(result)
    engine = convexport.load(result.bundle)
    batch = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 1, 2, 2)
    np.testing.assert_allclose(engine(batch), logits(batch), 1e-6)
    assert "convexport bench" in shown(result) and "on the target, tensorrt" in shown(result)
    tensorrt(version, fail="say nothing is built twice")
    assert build(str(net), asked).stages == ()


def test_an_engine_that_computes_something_else_is_no_bundle(
    tensorrt: Says, net: Path, tmp_path: Path
) -> None:
    model = onnx.load(net)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS[::-1].copy(), "w"))
    onnx.save(model, net)
    tensorrt("8.5")
    with pytest.raises(GateError, match="E0561"):
        build(str(net), options(tmp_path, "tensorrt"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("kind", "passes"), [("Half", False), ("Int8", True)])
def test_an_engine_that_is_not_int8_is_no_int8_bundle(
    tensorrt: Says, net: Path, tmp_path: Path, kind: str, passes: bool
) -> None:
    """Though its answers are near enough: FP16's always are."""
    tensorrt("8.5", layers=[{"Name": "c/Conv", "Inputs": [{"Format/Datatype": kind}]}])
    asked = options(tmp_path, "tensorrt", precision="int8")
    if passes:
        about = build(str(net), asked).manifest.data["tensorrt"]["engine"]["engine"]
        assert about["convolutions"] == {"int8": 1}
    else:
        with pytest.raises(GateError, match="E0502 0 of 1 convolutions"):
            build(str(net), asked)
        assert not (tmp_path / "bundle").exists()


def test_a_device_builds_its_own(tensorrt: Says, net: Path, tmp_path: Path) -> None:
    asked = options(tmp_path, "jetson-jp5", tensorrt=TrtRequest(batch=(1, 1, 2), workspace_mib=64))
    result = build(str(net), asked)
    assert "no engine" not in json.dumps(result.manifest.data["parity"])
    assert "build_on_device.py" in shown(result) and "convexport bench" not in shown(result)
    with pytest.raises(MachineError, match="E040"):
        convexport.load(result.bundle)
    tensorrt("8.5", layers=["a"])
    command = [sys.executable, str(result.bundle / "build_on_device.py"), "--runs", "0"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout.endswith("PASS\n"), ended.stdout + ended.stderr
    batch = np.ones((2, 1, 2, 2), np.float32)
    np.testing.assert_allclose(convexport.load(result.bundle)(batch), logits(batch), 1e-6)


def test_a_free_batch_may_be_called_anything(tensorrt: Says, tmp_path: Path) -> None:
    tensorrt("8.5")
    result = build(str(saved(tmp_path / "n.onnx", "N")), options(tmp_path, "tensorrt"))
    batch = np.ones((3, 1, 2, 2), np.float32)
    np.testing.assert_allclose(convexport.load(result.bundle)(batch), logits(batch), 1e-6)


def test_a_fixed_batch_is_the_engines(tensorrt: Says, tmp_path: Path) -> None:
    net = saved(tmp_path / "four.onnx", "4")
    tensorrt("8.5", input=[4, 1, 2, 2])
    result = build(str(net), options(tmp_path, "tensorrt"))
    assert result.manifest.data["tensorrt"]["options"]["batch"] == [4, 4, 4]
    batch = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)
    np.testing.assert_allclose(convexport.load(result.bundle)(batch), logits(batch), 1e-6)
    other = options(tmp_path, "jetson-jp5", tensorrt=TrtRequest(batch=(1, 2, 2)), force=True)
    with pytest.raises(UsageError, match="E0291"):
        build(str(net), other)


def test_a_batch_that_leaves_single_images_out_is_refused(net: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E0291"):
        build(str(net), options(tmp_path, "jetson-jp5", tensorrt=TrtRequest(batch=(2, 4, 8))))


def test_an_engine_that_is_gone_or_of_another_gpu_is_built_again(
    tensorrt: Says, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt("8.5")
    result = build(str(net), options(tmp_path, "tensorrt"))
    shutil.rmtree(result.bundle / "engine")
    assert build(str(net), options(tmp_path, "tensorrt")).stages
    convexport.load(result.bundle)
    monkeypatch.setenv("FAKE_CUDA_NAME", "another GPU")
    cuda.cuda.cache_clear()
    with pytest.raises(MachineError, match="E0407"):
        convexport.load(result.bundle)
    build(str(net), options(tmp_path, "tensorrt", force=True))
    convexport.load(result.bundle)


@pytest.mark.parametrize(
    ("target", "more", "name"),
    [
        ("jetson-jp5", {"level": 5}, "--level"),
        ("jetson-jp5", {"version_compatible": True}, "--version-compatible"),
        ("jetson-jp5", {"hardware": "ampere_plus"}, "--hardware ampere_plus"),
        ("jetson-jp6", {"hardware": "same_compute_capability"}, "--hardware same_compute"),
    ],
)
def test_what_no_board_of_the_target_knows_is_refused_here(
    net: Path, tmp_path: Path, target: str, more: dict[str, Any], name: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"E0602 TensorRT .*{name}"):
        build(str(net), options(tmp_path, target, tensorrt=TrtRequest(**more)))
    assert not (tmp_path / "cache").exists()


def test_what_some_boards_of_the_target_know_is_said() -> None:
    asked = TrtOptions(typed=True, dla=0)
    assert require_options(asked, generations(">=10.13,<12")) == (
        "--dla: known from TensorRT 11.4 on, not by older ones"
    )
    assert require_options(asked, generations(">=10.3,<10.4")) == ""
    with pytest.raises(UnsupportedError, match="E0602"):
        require_options(asked, generations(">=10.13,<11.4"))


def test_what_cannot_be_finished_is_refused_before_the_work(net: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="E0401"):
        build(str(net), options(tmp_path, "tensorrt"))
    with pytest.raises(UsageError, match="E0204"):
        build(str(net), options(tmp_path, "jetson-jp6", tensorrt=TrtRequest(batch=(4, 2, 1))))
    with pytest.raises(UsageError, match="E0284"):
        options(tmp_path, "cpu", tensorrt=TrtRequest())
    assert not (tmp_path / "cache").exists()
