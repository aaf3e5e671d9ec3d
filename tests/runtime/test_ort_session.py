from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from convexport.runtime.errors import InputError, MachineError, UsageError
from convexport.runtime.ort_session import OrtSession, providers
from convexport.runtime.specs import TensorSpec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = 2 x + z, with a free batch, a free unnamed width, and two outputs."""
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 3, ?] x, int64[N, 3] z) => (float[N, 3, ?] y, int64[N, 3] w)
        <float two = {2.0}> {
            y = Mul (x, two)
            w = Identity (z)
        }""")
    proto.metadata_props.add(key="convexport.name", value="tiny")
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_specs_are_those_of_the_file(model: Path) -> None:
    session = OrtSession(model)
    assert session.inputs == (
        TensorSpec("x", ("N", 3, "dim2"), "float32"),
        TensorSpec("z", ("N", 3), "int64"),
    )
    assert [spec.name for spec in session.outputs] == ["y", "w"]
    assert session.metadata == {"convexport.name": "tiny"}
    assert session.provider == "CPUExecutionProvider"
    assert session.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_it_runs(model: Path, optimize: bool, threads: int) -> None:
    session = OrtSession(model, optimize=optimize, threads=threads, spin=False)
    for batch, width in ((1, 1), (4, 7)):
        x = np.random.default_rng(0).standard_normal((batch, 3, width), dtype=np.float32)
        z = np.arange(3 * batch).reshape(batch, 3)
        outputs = session.run({"x": x, "z": z})
        np.testing.assert_array_equal(outputs["y"], 2 * x)
        np.testing.assert_array_equal(outputs["w"], z)


X, Z = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("x", "z", "what"),
    [
        (None, Z, "no input named x"),
        (X.astype(np.float64), Z, "float64"),
        (X[:, :2], Z, "2x2x4"),
        (X[0], Z, "3x4"),
        (X[:0], Z[:0], "0x3x4"),
        (X[..., :0], Z, "2x3x0"),
        (X, Z.astype(np.int32), "int32"),
        (np.array("text"), Z, "expected x: float32 Nx3xdim2"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    model: Path, x: np.ndarray | None, z: np.ndarray, what: str
) -> None:
    feed = {"z": z} if x is None else {"x": x, "z": z}
    with pytest.raises(UsageError) as error:
        OrtSession(model).run(feed)
    assert what in str(error.value) and error.value.code == "E0201"


@pytest.mark.parametrize("content", [b"", b"junk", b"<!DOCTYPE html>", None])
def test_a_file_that_is_no_model_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        OrtSession(path)
    assert error.value.code == "E0303" and error.value.why


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "NoSuchProvider", ""])
def test_a_provider_is_never_replaced_by_another(model: Path, provider: str) -> None:
    if provider in providers():
        pytest.skip(f"this machine has {provider}")
    with pytest.raises(MachineError) as error:
        OrtSession(model, provider=provider)
    assert error.value.code == "E0402" and "CPUExecutionProvider" in error.value.where


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_listed_and_does_not_work_is_never_replaced(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where onnxruntime-gpu is installed and CUDA's libraries are not."""
    if "CUDAExecutionProvider" in providers():
        pytest.skip("this machine has CUDA")
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    plain = onnxruntime.InferenceSession(str(model), providers=listed[:1])
    assert plain.get_providers() == ["CPUExecutionProvider"], "ONNX Runtime alone would replace it"
    with pytest.raises(MachineError) as error:
        OrtSession(model, provider="CUDAExecutionProvider")
    assert error.value.code == "E0402"


def test_a_session_that_ended_up_on_another_provider_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnTheCpu:
        def __init__(self, *arguments: object, **options: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheCpu)
    with pytest.raises(MachineError) as error:
        OrtSession(model, provider="CUDAExecutionProvider")
    assert error.value.code == "E0402" and "CPUExecutionProvider" in error.value.where


def test_a_broken_onnxruntime_is_said_with_the_fix(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError) as error:
        OrtSession(model)
    assert error.value.hint == "pip install 'convexport[cpu]'"


def test_external_data_does_not_leave_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}> { y = Mul (x, w) }""")
    proto.graph.initializer[0].raw_data = np.ones(2, np.float32).tobytes()
    proto.graph.initializer[0].ClearField("float_data")
    onnx.save(
        proto, tmp_path / "sub/m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    OrtSession(tmp_path / "sub/m.onnx")
    (tmp_path / "sub/w").rename(tmp_path / "w")
    proto = onnx.load(tmp_path / "sub/m.onnx", load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = "../w"
    (tmp_path / "sub/m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError) as error:
        OrtSession(tmp_path / "sub/m.onnx")
    assert error.value.code == "E0303"


def test_onnxruntime_reports_to_nobody(model: Path, tmp_path: Path) -> None:
    """Official builds keep a device id in the home and send events, unless told not to."""
    home = tmp_path / "home"
    home.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    code = (
        "import pathlib, sys\n"
        "from convexport.runtime.ort_session import OrtSession\n"
        "OrtSession(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, model], env={**env, "HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []
