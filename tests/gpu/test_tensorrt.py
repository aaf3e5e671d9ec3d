"""What a real TensorRT makes of our graphs, on a real GPU: ``python -m pytest tests/gpu``.

They are skipped where there is none. Everything that the recording double cannot tell is here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import convexport
from convexport.runtime.cuda import cuda
from convexport.runtime.errors import ConvexportError, InputError, UnsupportedError
from convexport.runtime.files import sha256_of
from convexport.runtime.trt_child import BuiltEngine, build_engine
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_engine import require_gpu
from convexport.runtime.trt_layers import counts, require_int8
from convexport.runtime.trt_plan import facts_file
from convexport.runtime.trt_session import TrtSession
from convexport.runtime.trt_versions import generation

from .nets import KINDS, TOLERANCE, expected, images, write_bundle, write_net
from .small import FORMS, batch_for, write_form

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def trt() -> Any:
    """TensorRT's module."""
    try:
        return require_gpu("CUDA")
    except ConvexportError as error:
        pytest.skip(f"{error.what} {error.why}".strip())


def options(trt: Any, kind: str, *, typed: bool, **more: Any) -> TrtOptions:
    """For a graph of that kind; without cuBLAS and cuDNN, which need not be there."""
    types = generation(trt.__version__).types
    if types not in ("either", "graph" if typed else "builder"):
        pytest.skip(f"in TensorRT {trt.__version__} the {types} chooses types")
    return TrtOptions.of_graph(kind, typed, **{"batch": (1, 4, 8), "own_kernels": True, **more})


def build(tmp_path: Path, kind: str, chosen: TrtOptions, **more: Any) -> BuiltEngine:
    net = "fp32" if kind == "fp16" and not chosen.typed else kind
    onnx_file = write_net(tmp_path / f"{kind}.onnx", net)
    return build_engine(onnx_file, tmp_path / "model.plan", chosen, **more)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_gives_what_the_graph_says(
    trt: Any, tmp_path: Path, kind: str, typed: bool
) -> None:
    chosen = options(trt, kind, typed=typed)
    made = build(tmp_path, kind, chosen)
    session = TrtSession(tmp_path / "model.plan")
    for count in (1, 3, 8):
        batch = images(count, "fp16" if kind == "fp16" and typed else "fp32")
        given = session.run({"input": batch})["logits"].astype(np.float32)
        wanted = expected(tmp_path / f"{kind}.onnx", batch)
        assert np.abs(given - wanted).max() <= TOLERANCE[kind] * np.abs(wanted).max()
    kinds = made.layers["counts"]
    assert kinds.get("not told", 0) == 0, made.layers
    if kind == "int8":
        layers = [each for each in made.layers["layers"] if each["precision"] == "int8"]
        assert {"conv1", "conv2"} <= {module for each in layers for module in each["modules"]}
    else:
        assert not kinds.get("int8")


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_q_dq_run_in_int8(
    trt: Any, tmp_path: Path, form: str, typed: bool, record_property: Any
) -> None:
    """Which of them are taken, and with how many reformats, is what nobody could look up."""
    onnx_file, plan = write_form(tmp_path / "net.onnx", form), tmp_path / "model.plan"
    made = build_engine(onnx_file, plan, options(trt, "int8", typed=typed))
    record_property("layers", counts(made.layers))
    session = TrtSession(plan)
    kept = generation(trt.__version__).int64
    kind = ("int64" if kept else "int32") if form == "INT64 input" else "float32"
    assert session.inputs[0].dtype == kind
    batch = batch_for(form, 3)
    given, wanted = session.run({"input": batch.astype(kind)})["logits"], expected(onnx_file, batch)
    assert np.abs(given - wanted).max() <= TOLERANCE["int8"] * np.abs(wanted).max()
    assert "convolutions of the engine run in INT8" in require_int8(made.layers, {})


def test_a_recorded_pass_gives_the_same_bits(trt: Any, tmp_path: Path) -> None:
    build(
        tmp_path, "fp32", options(trt, "fp32", typed=generation(trt.__version__).types == "graph")
    )
    plain = TrtSession(tmp_path / "model.plan")
    recorded = TrtSession(tmp_path / "model.plan", cuda_graph=True)
    for count in (4, 4, 4, 2, 2, 2, 4, 4):
        batch = {"input": images(count, "fp32")}
        np.testing.assert_array_equal(plain.run(batch)["logits"], recorded.run(batch)["logits"])


class OnGpu:
    """Memory of the GPU, as a library of arrays would offer it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.address = cuda().allocate(4 * int(np.prod(shape)))
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }


def test_arrays_on_the_gpu_stay_there(trt: Any, tmp_path: Path) -> None:
    build(
        tmp_path, "fp32", options(trt, "fp32", typed=generation(trt.__version__).types == "graph")
    )
    session, gpu, batch = TrtSession(tmp_path / "model.plan"), cuda(), images(4, "fp32")
    given, taken, out = OnGpu(batch.shape), OnGpu((4, 10)), np.empty((4, 10), np.float32)
    stream = gpu.stream()
    gpu.upload(given.address, batch.ctypes.data, batch.nbytes, stream)
    gpu.synchronize(stream)
    session.run_on_device({"input": given, "logits": taken})
    gpu.download(out.ctypes.data, taken.address, out.nbytes, stream)
    gpu.synchronize(stream)
    np.testing.assert_array_equal(out, session.run({"input": batch})["logits"])


def test_measured_timings_are_taken_again(trt: Any, tmp_path: Path) -> None:
    chosen = options(trt, "fp32", typed=generation(trt.__version__).types == "graph")
    cache = tmp_path / "timing.cache"
    first = build(tmp_path, "fp32", chosen, timing_cache=cache)
    assert cache.stat().st_size and not first.cache_taken
    assert build(tmp_path, "fp32", chosen, timing_cache=cache).cache_taken


def test_bytes_that_are_no_plan_are_told(trt: Any, tmp_path: Path) -> None:
    chosen = options(trt, "fp32", typed=generation(trt.__version__).types == "graph")
    build(tmp_path, "fp32", chosen)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"no plan " * 1000)
    facts = json.loads(facts_file(plan).read_text())
    facts_file(plan).write_text(json.dumps({**facts, "sha256": sha256_of(plan)}))
    with pytest.raises(InputError, match="E0316"):
        TrtSession(plan)


def test_an_operator_that_it_does_not_know_is_named(trt: Any, tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[2, 4] input) => (float[2, 4] logits) { logits = Hardmax (input) }""")
    onnx.save(model, tmp_path / "odd.onnx")
    typed = generation(trt.__version__).types == "graph"
    with pytest.raises(UnsupportedError, match=r"E0603|E0604"):
        build_engine(
            tmp_path / "odd.onnx",
            tmp_path / "model.plan",
            TrtOptions(typed=typed, batch=(2, 2, 2), own_kernels=True),
        )


def test_tensorrt_8_reads_a_newer_mean_as_one_over_all_axes(trt: Any, tmp_path: Path) -> None:
    """Why opsets beyond 17 are refused there: it is a wrong answer, not an error."""
    if generation(trt.__version__).int64:
        pytest.skip("from TensorRT 10 on the axes are read")
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        net (float[2, 4, 8] input) => (float[2, 4, 1] logits)
        <int64[1] axes = {2}> { logits = ReduceMean<keepdims = 1> (input, axes) }""")
    onnx.save(model, tmp_path / "mean.onnx")
    chosen = TrtOptions(typed=False, batch=(2, 2, 2), own_kernels=True)
    build_engine(tmp_path / "mean.onnx", tmp_path / "model.plan", chosen)
    session = TrtSession(tmp_path / "model.plan")
    assert session.outputs[0].shape == (1, 1, 1)


def test_a_bundle_builds_its_engine_and_is_loaded(trt: Any, tmp_path: Path) -> None:
    kind = "int8"
    chosen = options(trt, kind, typed=False)
    folder, batch = write_bundle(tmp_path / "bundle", kind, chosen), images(1, kind)
    ended = subprocess.run(
        [sys.executable, str(folder / "build_on_device.py")], capture_output=True, text=True
    )
    print(ended.stdout)
    assert ended.returncode == 0 and ended.stdout.endswith("PASS\n"), ended.stderr
    wanted = expected(folder / "model.onnx", batch)
    off = np.abs(convexport.load(folder)(batch) - wanted).max()
    assert off <= TOLERANCE[kind] * np.abs(wanted).max()
