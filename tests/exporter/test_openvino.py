"""The target openvino: graphs in common with the CPU's, compared again where they run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import convexport
from convexport.benchmarks.parity import compare
from convexport.benchmarks.verify import require_signal
from convexport.exporter import target_stage
from convexport.exporter.targets import TARGETS, graph_of
from convexport.runtime import openvino_session, sessions
from convexport.runtime.cpu import cpu_flags, multiplies_bf16
from convexport.runtime.errors import GateError

Refused = Callable[..., Any]
Quick = tuple[str, ...]

installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino"
)
with_bf16 = pytest.mark.skipif(
    not multiplies_bf16(cpu_flags()), reason="needs a CPU with BF16 units"
)
LENET = ("build", "lenet5", "--weights", "digits")
OPENVINO = (*LENET, "--target", "openvino")


def read(bundle: Path, name: str) -> Any:
    return json.loads((bundle / f"{name}.json").read_text())


def by_onnxruntime(model: Path, batch: np.ndarray) -> np.ndarray:
    """The oracle: ONNX Runtime on the file, called by the test itself."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


def zero_points(bundle: Path) -> set[str]:
    """The types that activations are quantized to."""
    graph = onnx.load(bundle / "model.onnx").graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    return {str(held[n.input[2]].dtype) for n in graph.node if n.op_type == "QuantizeLinear"}


@installed
@pytest.mark.parametrize("net", ["lenet5", "resnet20_cifar"])
def test_fp32_agrees_with_onnxruntime(invoke: Any, quick: Quick, home: Path, net: str) -> None:
    done = invoke("build", net, "--weights", "digits", "--target", "openvino", *quick, "-o", "b")
    assert done.code == 0, done.err
    engine = convexport.load(home / "b", threads=1)
    assert engine.manifest.runtime == "openvino" and engine.manifest.provider == "CPU"
    shape = engine.manifest.input.shape[1:]
    for size in (1, 5):
        batch = np.random.default_rng(0).standard_normal((size, *shape)).astype(np.float32)
        expected = by_onnxruntime(home / "b/model.onnx", batch)
        assert np.abs(engine(batch) - expected).max() <= 1e-5 * np.abs(expected).max()


@installed
def test_int8_passes_its_gate_and_shares_the_cpus_stages(
    invoke: Any, quick: Quick, home: Path
) -> None:
    assert invoke(*LENET, "--int8", *quick, "-o", "cpu").code == 0
    done = invoke(*OPENVINO, "--int8", *quick, "-o", "openvino")
    assert done.code == 0, done.err
    for name in ("reference.onnx", "calibration.json"):
        assert (home / "cpu" / name).read_bytes() == (home / "openvino" / name).read_bytes()
    # Its kernels take the input, which has both signs, as S8; what a ReLU gives is U8 for both.
    assert zero_points(home / "cpu") == {"uint8"}
    assert zero_points(home / "openvino") == {"uint8", "int8"}
    cached = {
        stage["name"]: stage["cached"] for stage in read(home / "openvino", "report")["stages"]
    }
    assert all(cached[name] for name in ("export", "simplify", "calibrate", "quantize"))
    parity = read(home / "openvino", "manifest")["parity"]["target"]
    assert parity["runtime"].startswith("openvino ") and parity["precision"] == "int8"
    assert parity["artefact"]["sqnr_db"] > 20 and parity["artefact"]["top1"]["n"] == 64
    accuracy = read(home / "openvino", "manifest")["accuracy"]
    assert accuracy["actual"]["k"] >= accuracy["reference"]["k"] - 5
    assert "openvino" in done.out and "dB" in done.out
    assert invoke("verify", "openvino", "--data", "digits").code == 0
    times = invoke("diagnose", "openvino", "--times", "--json").json()["times"]
    # A kernel may stand for both matrices of the classifier.
    layers = {name for each in times for name in each["layer"].split(" + ")}
    assert layers >= {"", "c1/Conv", "c3/Conv", "f6/Gemm", "output/Gemm"}


@installed
def test_what_follows_a_convolution_is_not_rounded_before_it(
    invoke: Any, quick: Quick, home: Path
) -> None:
    """MobileNet v3 has hard swishes and gates, which OpenVINO computes within convolutions."""
    net = ("build", "mobilenet_v3_small_050", "--weights", "digits", "--int8", *quick)
    assert invoke(*net, "-o", "cpu").code == 0
    done = invoke(*net, "--target", "openvino", "-o", "openvino")
    assert done.code == 0, done.err
    seen = [read(home / target, "calibration") for target in ("cpu", "openvino")]
    # From the same pass over the images, another choice of tensors.
    assert seen[0]["fingerprint"] == seen[1]["fingerprint"]
    assert {*seen[1]["thresholds"]} < {*seen[0]["thresholds"]}
    stages = {each["name"]: each["cached"] for each in read(home / "openvino", "report")["stages"]}
    assert stages["calibrate"] and not stages["quantize"]
    lost = [read(home / target, "manifest")["parity"] for target in ("cpu", "openvino")]
    assert lost[1]["target"]["artefact"]["sqnr_db"] > lost[0]["quantize"]["sqnr_db"] - 1


@installed
def test_a_budget_is_counted_again_where_the_net_runs(
    invoke: Any, refused: Refused, quick: Quick, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = (*OPENVINO, "--int8", "--max-drop", "2.5%", *quick)
    done = invoke(*request, "-o", "net")
    assert done.code == 0, done.err
    assert "within the budget" in done.err
    proof = read(home / "net", "manifest")["parity"]["target"]["budget"]
    assert 0 < proof["upper_bound"] <= proof["max_drop"] == 0.025
    # Kernels of which nearly every answer is another.
    run = openvino_session.OpenvinoSession.run

    def worse(self: Any, given: Any) -> Any:
        outputs = run(self, given)
        integers = b"QuantizeLinear" in self.model.read_bytes()
        return {k: np.roll(v, 1, axis=1) for k, v in outputs.items()} if integers else outputs

    init = openvino_session.OpenvinoSession.__init__

    def remember(self: Any, model: Path, **options: Any) -> None:
        self.model = model
        init(self, model, **options)

    monkeypatch.setattr(openvino_session.OpenvinoSession, "__init__", remember)
    monkeypatch.setattr(openvino_session.OpenvinoSession, "run", worse)
    monkeypatch.setattr(target_stage, "require_faithful", lambda *_: None)
    loses = refused(5, "E0586", *request, "--max-drop", "3.5%", "-o", "worse")
    assert "openvino" in loses.err and not (home / "worse").exists()


@installed
@with_bf16
def test_bf16_is_another_computation_of_the_same_file(
    invoke: Any, quick: Quick, home: Path
) -> None:
    assert invoke(*OPENVINO, "--bf16", *quick, "-o", "bf16").code == 0
    manifest = read(home / "bf16", "manifest")
    assert manifest["precision"] == "bf16"
    assert (home / "bf16/model.onnx").read_bytes() == (home / "bf16/reference.onnx").read_bytes()
    batch = np.load(home / "bf16/sample/input.npy")
    expected = by_onnxruntime(home / "bf16/model.onnx", batch)
    actual = convexport.load(home / "bf16", threads=1)(batch)
    assert 1e-4 < np.abs(actual - expected).max() / np.abs(expected).max() < 0.1
    assert invoke("verify", "bf16").code == 0


def test_bf16_is_not_for_onnxruntime(refused: Refused) -> None:
    done = refused(6, "E0680", *LENET, "--bf16")
    assert "--fp32 or --int8" in done.err


@pytest.mark.parametrize(
    ("precision", "flags", "others"),
    [("bf16", {"avx512_vnni"}, "--fp32 or --int8"), ("int8", {"avx2"}, "--fp32")],
)
def test_what_the_cpu_lacks_is_refused(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    flags: set[str],
    others: str,
) -> None:
    monkeypatch.setattr(sessions, "cpu_flags", lambda: frozenset(flags))
    done = refused(6, "E0680", *OPENVINO, f"--{precision}")
    assert "this CPU has no" in done.err and f"choose {others}\n" in done.err


def test_a_missing_openvino_is_said_with_the_fix(
    invoke: Any, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = refused(4, "E0401", *OPENVINO)
    assert "pip install 'convexport[openvino]'" in done.err
    rows = {each["what"]: each for each in invoke("doctor", "--json").json()}
    assert rows["target openvino"]["state"] == "missing"
    assert rows["target openvino"]["fix"] == "pip install 'convexport[openvino]'"
    assert rows["target cpu"]["state"] == "ok"


@installed
def test_doctor_names_what_openvino_runs_here(invoke: Any) -> None:
    rows = {each["what"]: each for each in invoke("doctor", "--json").json()}
    assert rows["target openvino"]["state"] == "ok" and "fp32" in rows["target openvino"]["detail"]


@installed
def test_a_runtime_that_is_off_fails_the_gate(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = openvino_session.OpenvinoSession.run

    def off(self: Any, feed: Any) -> Any:
        return {name: array * 1.01 for name, array in run(self, feed).items()}

    monkeypatch.setattr(openvino_session.OpenvinoSession, "run", off)
    done = refused(5, "E0561", *OPENVINO, *quick, "--parity-images", "63", "-o", "out")
    assert "openvino" in done.err


@installed
def test_a_net_that_the_runtime_cannot_load_is_not_supported(
    refused: Refused, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "_properties", lambda *_: {"NO_SUCH_PROPERTY": "1"})
    done = refused(6, "E0686", *OPENVINO, *quick, "--parity-images", "63", "-o", "out")
    assert "NO_SUCH_PROPERTY" in done.err


@pytest.mark.parametrize(
    ("precision", "noise", "fails"),
    [("bf16", 0.2, True), ("bf16", 0.05, False), ("int8", 0.2, False), ("int8", 0.8, True)],
)
def test_the_gate_is_signal_to_noise(precision: str, noise: float, fails: bool) -> None:
    """BF16 may leave noise of a tenth of the signal's amplitude (20 dB), INT8 of 0.7 (3 dB)."""
    rng = np.random.default_rng(0)
    reference, disturbance = rng.standard_normal((2, 64, 10))
    disturbance *= noise * np.linalg.norm(reference) / np.linalg.norm(disturbance)
    parity = compare(reference, reference + disturbance)
    if not fails:
        require_signal(parity, "here", precision)
        return
    with pytest.raises(GateError) as error:
        require_signal(parity, "here", precision)
    assert error.value.code == "E0564" and ("--calib" in error.value.hint) == (precision == "int8")


def test_each_target_runs_each_precision_or_says_why_not() -> None:
    for target in TARGETS.values():
        assert {*target.precisions} | {*target.refusals} == {"fp32", "bf16", "fp16", "int8"}
        assert not {*target.precisions} & {*target.refusals}
        assert graph_of(target).graph == ""
