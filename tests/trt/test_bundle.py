"""The bundle writer's part in bundles for TensorRT; with the recording double."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import convexport
from convexport.benchmarks.verify import verify
from convexport.exporter.bundle_writer import Parts, write_bundle
from convexport.exporter.device_bundle import device_facts
from convexport.exporter.source import Source
from convexport.exporter.targets import TARGETS, Target
from convexport.exporter.trt_build import engine_stage
from convexport.runtime.bundle import verify_files
from convexport.runtime.errors import InputError
from convexport.runtime.specs import Preprocess
from convexport.runtime.trt_config import TrtOptions
from tests.tiny import WEIGHTS, logits

from .conftest import Says

OPTIONS = TrtOptions(typed=False, batch=(1, 1, 8))
TENSORRT = Target(
    name="board", runtime="tensorrt", provider="CUDA", opset=17, precisions=("fp32", "int8")
)
LAYERS = [{"Name": "a/Conv", "Inputs": [{"Format/Datatype": "Row major Int8 format"}]}]


def source() -> Source:
    """A net of which only the ONNX file is there."""
    odd: Any = None
    return Source(
        name="tiny",
        kind="onnx",
        shape=(1, 2, 2),
        preprocess=Preprocess(crop=(2, 2), resize=(2,), channels="L", mean=(0.0,), std=(1.0,)),
        labels=("ant", "bee", "cat"),
        weights={"kind": "file", "source": "tiny"},
        identity={},
        notes=(),
        export=odd,
        reference=odd,
        reference_name="",
    )


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[batch, 1, 2, 2] input) => (float[batch, 3] logits) {
            flat = Flatten<axis = 1> (input)
            logits = Gemm<transB = 1> (flat, w)
        }""")
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w"))
    onnx.save(model, tmp_path / "net.onnx")
    return Parts(
        model=tmp_path / "net.onnx",
        reference=tmp_path / "net.onnx",
        calibration=None,
        sample=np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 2, 2),
        facts={"output_kind": "logits", **device_facts(OPTIONS, ">=8.5.2,<8.6")},
        report={},
        build_key="key",
    )


def write(folder: Path, parts: Parts) -> Path:
    write_bundle(folder, parts, source(), TENSORRT, "int8", TARGETS["cpu"])
    return folder


def test_a_bundle_for_a_device_is_built_there(tensorrt: Says, parts: Parts, tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle", parts)
    tensorrt("8.5", layers=LAYERS)
    ended = subprocess.run(
        [sys.executable, str(bundle / "build_on_device.py"), "--runs", "0"],
        capture_output=True,
        text=True,
    )
    assert ended.stdout.endswith("PASS\n"), ended.stderr
    batch = np.ones((2, 1, 2, 2), np.float32)
    for engine in (convexport.load(bundle), convexport.load(bundle, cuda_graph=True)):
        for count in (1, 1, 2, 2):  # recorded the second time
            np.testing.assert_allclose(engine(batch[:count]), logits(batch[:count]), 1e-6)
    verify_files(bundle, engine.manifest)
    assert "ON_DEVICE.md" in (bundle / "README.md").read_text()


def test_an_engine_of_this_machine_travels_along(
    tensorrt: Says, parts: Parts, tmp_path: Path
) -> None:
    tensorrt("8.5", layers=LAYERS)
    (tmp_path / "stage").mkdir()
    engine_stage(parts.model, OPTIONS, tmp_path / "cache", tmp_path / "stage")
    (tmp_path / "stage/entry.json").touch()  # the cache's own
    bundle = write(tmp_path / "bundle", replace(parts, engine=tmp_path / "stage"))
    names = {path.name for path in (bundle / "engine").iterdir()}
    assert names == {"model.plan", "model.plan.json", "model.plan.log"}
    found = verify(bundle)  # with the reference, which ONNX Runtime runs
    assert found.runtime == "tensorrt 8.5.3.1" and found.parity.max_rel < 1e-5
    batch = np.ones((8, 1, 2, 2), np.float32)
    np.testing.assert_allclose(convexport.load(bundle)(batch), logits(batch), 1e-6)


def test_an_engine_of_another_model_is_refused(
    tensorrt: Says, parts: Parts, tmp_path: Path, onnx_file: Path
) -> None:
    tensorrt("8.5", layers=LAYERS)
    (tmp_path / "stage").mkdir()
    engine_stage(onnx_file, OPTIONS, tmp_path / "cache", tmp_path / "stage")
    bundle = write(tmp_path / "bundle", replace(parts, engine=tmp_path / "stage"))
    with pytest.raises(InputError, match=r"E0316 model\.plan was built from another file"):
        convexport.load(bundle)
