from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from convexport.runtime import openvino_session
from convexport.runtime.cpu import cpu_flags, multiplies_bf16
from convexport.runtime.errors import InputError, MachineError, UnsupportedError, UsageError
from convexport.runtime.openvino_session import OpenvinoSession
from convexport.runtime.sessions import open_session
from convexport.runtime.specs import TensorSpec

# Not imported here: that would report to its maker, which the session prevents.
installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)
with_bf16 = pytest.mark.skipif(
    not multiplies_bf16(cpu_flags()), reason="needs a CPU with BF16 units"
)
WEIGHTS = np.random.default_rng(1).standard_normal((64, 10), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x weights, and w = -z, with a free batch."""
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 64] x, int64[N, 3] z) => (float[N, 10] y, int64[N, 3] w) {
            y = MatMul (x, weights)
            w = Neg (z)
        }""")
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "weights"))
    proto.metadata_props.add(key="convexport.name", value="tiny")
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def feed(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 64), dtype=np.float32)
    return {"x": x, "z": np.arange(3 * batch).reshape(batch, 3)}


def as_bf16(values: np.ndarray) -> np.ndarray:
    """The nearest numbers with 8 bits of significand, ties to even: BF16 by hand."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


@installed
def test_the_specs_are_those_of_the_file(model: Path) -> None:
    session = OpenvinoSession(model)
    assert session.inputs == (
        TensorSpec("x", ("batch", 64), "float32"),
        TensorSpec("z", ("batch", 3), "int64"),
    )
    assert [(spec.name, spec.shape[1]) for spec in session.outputs] == [("y", 10), ("w", 3)]
    assert session.metadata == {"convexport.name": "tiny"}
    assert session.provider == "CPU" and session.runtime.startswith("openvino 20")


@installed
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_it_computes_in_fp32_on_any_batch(model: Path, threads: int) -> None:
    session = OpenvinoSession(model, threads=threads)
    for batch in (1, 5, 2):
        given = feed(batch)
        outputs = session.run(given)
        expected = given["x"].astype(np.float64) @ WEIGHTS
        # In BF16 it would be off by some thousandths.
        np.testing.assert_allclose(outputs["y"], expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(outputs["w"], -given["z"])


@installed
def test_each_batch_has_its_own_graph_but_not_without_end(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "BATCHES", 3)
    session = OpenvinoSession(model, profile=True)
    graphs: dict[int, set[str]] = {}
    for batch in (2, 7, 4, 5, 2, 1, 4, 7):
        given = feed(batch)
        outputs = session.run(given)
        np.testing.assert_allclose(outputs["y"], given["x"] @ WEIGHTS, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(outputs["w"], -given["z"])
        # Compiling numbers the nodes that are put in.
        graphs.setdefault(batch, set()).add(str([node["name"] for node in session.executed()]))
    assert graphs[4] == graphs[5]
    assert [len(graph) for graph in graphs.values()] == [1] * 5
    assert len(set.union(*graphs.values())) == 4


@installed
@pytest.mark.parametrize("shape", ["N, C", "N, 2, H", "4, 2"])
def test_a_graph_with_other_free_dimensions_stays_as_it_is(tmp_path: Path, shape: str) -> None:
    proto = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[{shape}] x, float[N, 2] z) => (float[{shape}] y, float[N, 2] w) {{
            y = Neg (x)
            w = Neg (z)
        }}""")
    onnx.save(proto, tmp_path / "m.onnx")
    session = OpenvinoSession(tmp_path / "m.onnx")
    x = np.ones((4, 2, 3)[: len(shape.split(","))], np.float32)
    for batch in (1, 3):
        outputs = session.run({"x": x, "z": np.ones((batch, 2), np.float32)})
        np.testing.assert_array_equal(outputs["y"], -x)
        assert outputs["w"].shape == (batch, 2)


@installed
def test_outputs_are_the_callers_and_inputs_stay_as_they_were(model: Path) -> None:
    session = OpenvinoSession(model)
    first, before = feed(3), feed(3)
    outputs = session.run(first)
    kept = outputs["y"].copy()
    session.run(feed(3, seed=1))
    np.testing.assert_array_equal(outputs["y"], kept)
    np.testing.assert_array_equal(first["x"], before["x"])
    outputs["y"][:] = 0  # it can be written to


@installed
def test_views_and_read_only_arrays_are_taken(model: Path) -> None:
    session, given = OpenvinoSession(model), feed(6)
    expected = session.run({name: array[::2].copy() for name, array in given.items()})["y"]
    for array in given.values():
        array.flags.writeable = False
    actual = session.run({name: array[::2] for name, array in given.items()})["y"]
    np.testing.assert_array_equal(actual, expected)


@installed
def test_threads_may_share_a_session(model: Path) -> None:
    session = OpenvinoSession(model, threads=2)
    feeds = [feed(1 + seed % 4, seed) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(session.run, feeds))
    for given, outputs in zip(feeds, results, strict=True):
        np.testing.assert_allclose(outputs["y"], given["x"] @ WEIGHTS, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(outputs["w"], -given["z"])


@installed
@with_bf16
def test_bf16_is_computed_where_it_is_asked_for(model: Path) -> None:
    given = feed(16)
    actual = OpenvinoSession(model, precision="bf16").run(given)["y"]
    exact = given["x"].astype(np.float64) @ WEIGHTS
    assert np.abs(actual - exact).max() > 1e-3
    expected = as_bf16(given["x"]).astype(np.float64) @ as_bf16(WEIGHTS)
    np.testing.assert_allclose(actual, expected, rtol=2**-8, atol=1e-5)


@installed
@pytest.mark.parametrize(
    ("precision", "flags", "refused"),
    [
        ("bf16", {"avx512f", "avx512_vnni"}, True),
        ("bf16", set(), True),  # not x86, or not Linux
        ("int8", {"avx2"}, True),
        ("int8", {"avx2", "avx_vnni"}, False),
        ("fp32", {"avx2"}, False),
    ],
)
def test_a_cpu_without_the_units_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, precision: str, flags: set[str], refused: bool
) -> None:
    monkeypatch.setattr(openvino_session, "cpu_flags", lambda: frozenset(flags))
    if not refused:
        OpenvinoSession(model, precision=precision)
        return
    with pytest.raises(MachineError) as error:
        OpenvinoSession(model, precision=precision)
    assert error.value.code == "E0403" and error.value.why and error.value.hint


X, Z = feed(2)["x"], feed(2)["z"]


@installed
@pytest.mark.parametrize(
    ("x", "z", "what"),
    [
        (None, Z, "no input named x"),
        (X.astype(np.float64), Z, "float64"),
        (X[:, :2], Z, "2x2"),
        (X[:0], Z[:0], "0x64"),
        (X, Z.astype(np.int32), "int32"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    model: Path, x: np.ndarray | None, z: np.ndarray, what: str
) -> None:
    with pytest.raises(UsageError) as error:
        OpenvinoSession(model).run({"z": z} if x is None else {"x": x, "z": z})
    assert what in str(error.value) and error.value.code == "E0201"


@installed
@pytest.mark.parametrize("content", [b"", b"junk", b"<!DOCTYPE html>", b"<net></net>", None])
def test_a_file_that_is_no_onnx_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        OpenvinoSession(path)
    assert error.value.code == "E0303" and error.value.why


@installed
def test_an_operator_that_it_does_not_know_is_an_input_error(tmp_path: Path) -> None:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "nobody": 1]>
        net (float[N, 2] x) => (float[N, 2] y) { y = nobody.Nothing (x) }""")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError) as error:
        OpenvinoSession(tmp_path / "m.onnx")
    assert error.value.code == "E0303" and "Nothing" in error.value.why


@installed
@pytest.mark.parametrize("device", ["GPU", "AUTO", "CPUExecutionProvider", ""])
def test_a_device_is_never_replaced_by_another(model: Path, device: str) -> None:
    with pytest.raises(MachineError) as error:
        OpenvinoSession(model, provider=device)
    assert error.value.code == "E0402"


def test_a_missing_openvino_is_said_with_the_fix(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MachineError) as error:
        OpenvinoSession(model)
    assert error.value.code == "E0401"
    assert error.value.hint == "pip install 'convexport[openvino]'"


@installed
def test_external_data_does_not_leave_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N, 2] x) => (float[N, 2] y) { y = Mul (x, w) }""")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    path = tmp_path / "sub/m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w", size_threshold=0)
    OpenvinoSession(path)
    (tmp_path / "sub/w").rename(tmp_path / "w")
    proto = onnx.load(path, load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = "../w"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError) as error:
        OpenvinoSession(path)
    assert error.value.code == "E0303"


@installed
def test_openvino_reports_to_nobody(model: Path, tmp_path: Path) -> None:
    """Its import sends an event, and keeps an id in the home, unless it is kept from it."""
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import pathlib, sys\n"
        "from convexport.runtime.openvino_session import OpenvinoSession\n"
        "OpenvinoSession(pathlib.Path(sys.argv[1]))\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "import concurrent.futures as futures\n"
        "import openvino_telemetry  # which others may want\n"
    )
    # As on a user's machine: in CI the package keeps quiet by itself.
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "JENKINS_URL")}
    subprocess.run([sys.executable, "-c", code, model], env={**env, "HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []


@installed
def test_a_bundle_names_its_runtime(
    bundle: Path, seal: Callable[..., Path], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    import convexport

    seal(bundle, lambda data: data.update(runtime="openvino", provider="CPU"))
    batch = np.ones((2, 1, 2, 2), np.float32)
    engine = convexport.load(bundle, threads=1)
    np.testing.assert_allclose(engine(batch), expected(batch), rtol=1e-5)
    seal(bundle, lambda data: data.update(runtime="openvino", provider="GPU"))
    with pytest.raises(MachineError):
        convexport.load(bundle)


def test_an_unknown_runtime_is_not_supported(model: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        open_session(model, runtime="tensorflow", provider="CPU")
    assert error.value.code == "E0600" and "openvino" in error.value.hint
