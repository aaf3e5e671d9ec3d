"""The build through the command line: what a bundle holds, and what a second run does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import convexport

Read = Callable[[Path], dict[str, str]]

DIGITS = ("build", "lenet5", "--weights", "digits", "--int8")
FILES = {
    "README.md",
    "calibration.json",
    "labels.txt",
    "manifest.json",
    "model.onnx",
    "reference.onnx",
    "report.html",
    "report.json",
    "sample/expected.npy",
    "sample/input.npy",
}
SAME_EVERYWHERE = ("model.onnx", "reference.onnx", "calibration.json", "manifest.json")


def manifest_of(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text())


def stages_of(bundle: Path) -> dict[str, bool]:
    """Stage -> whether it was cached, as the report says."""
    report = json.loads((bundle / "report.json").read_text())
    return {stage["name"]: stage["cached"] for stage in report["stages"]}


def run_onnx(model: Path, batch: np.ndarray) -> np.ndarray:
    """The oracle: ONNX Runtime on the file, called by the test itself."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


def test_a_bundle_is_complete_and_its_hashes_are_right(int8_bundle: Path, contents: Read) -> None:
    found = contents(int8_bundle)
    assert set(found) == FILES
    named = manifest_of(int8_bundle)["files"]
    assert named == {
        name: digest
        for name, digest in found.items()
        if name not in ("manifest.json", "report.html", "report.json")
    }


def test_the_report_has_accuracy_with_its_interval_and_no_latency(int8_bundle: Path) -> None:
    report = json.loads((int8_bundle / "report.json").read_text())
    accuracy = report["bundles"][0]["accuracy"]
    for side in ("reference", "actual"):
        share = accuracy[side]
        assert share["n"] > 400
        assert share["low"] < share["k"] / share["n"] == share["share"] < share["high"]
        assert share["share"] > 0.9
    assert accuracy["low_pp"] < accuracy["high_pp"]
    assert report["latency"] == "not measured"


def test_load_computes_what_onnxruntime_does(int8_bundle: Path) -> None:
    engine = convexport.load(int8_bundle)
    batch = np.random.default_rng(0).standard_normal((3, 1, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(engine(batch), run_onnx(int8_bundle / "model.onnx", batch))
    assert engine.labels == tuple("0123456789")


def test_the_golden_sample_is_what_the_model_gives(int8_bundle: Path) -> None:
    sample = np.load(int8_bundle / "sample/input.npy")
    expected = np.load(int8_bundle / "sample/expected.npy")
    assert (sample.dtype, expected.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(
        run_onnx(int8_bundle / "model.onnx", sample), expected, rtol=1e-6, atol=1e-6
    )
    assert convexport.load(int8_bundle).self_test(int8_bundle) < 1e-6


def test_int8_weights_are_in_the_model(int8_bundle: Path) -> None:
    import onnx

    kinds = {t.data_type for t in onnx.load(int8_bundle / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert (int8_bundle / "model.onnx").stat().st_size < (
        int8_bundle / "reference.onnx"
    ).stat().st_size / 2
    assert manifest_of(int8_bundle)["layers"]["c1/Conv"] == "int8"


@pytest.mark.slow
def test_two_builds_give_the_same_bytes_and_a_third_touches_nothing(
    command: Any, invoke: Any, home: Path, contents: Read
) -> None:
    options = ("--offline", "--bench-seconds", "0")
    for name in ("a", "b"):
        done = command(*DIGITS, *options, "--cache-dir", f"cache-{name}", "-o", f"{name}/net")
        assert done.code == 0, done.err
    first, second = contents(home / "a/net"), contents(home / "b/net")
    assert {n: first[n] for n in SAME_EVERYWHERE} == {n: second[n] for n in SAME_EVERYWHERE}
    # The cache is not asked at all: what stands there says what it was built from.
    os.utime(home / "a/net/model.onnx", (1, 1))
    shutil.rmtree(home / "cache-a")
    again = invoke(*DIGITS, *options, "--cache-dir", "cache-a", "-o", "a/net")
    assert again.code == 0 and "unchanged" in again.out, again.err
    assert contents(home / "a/net") == first
    assert (home / "a/net/model.onnx").stat().st_mtime == 1
    assert not (home / "cache-a").exists()
    assert not [path for path in home.rglob(".*") if path.name.startswith(".net")]


def test_fp32_is_the_default_and_has_no_calibration(
    invoke: Any, quick: tuple[str, ...], contents: Read, home: Path
) -> None:
    done = invoke("build", "lenet5", "--weights", "digits", *quick)
    assert done.code == 0, done.err
    bundle = home / "lenet5-fp32-cpu"
    assert set(contents(bundle)) == FILES - {"calibration.json"}
    assert contents(bundle)["model.onnx"] == contents(bundle)["reference.onnx"]
    assert manifest_of(bundle)["calibration"] is None


def test_random_weights_are_said_loudly_and_follow_their_seed(
    invoke: Any, quick: tuple[str, ...], contents: Read, home: Path
) -> None:
    for seed in (7, 8):
        done = invoke("build", "lenet5", "--weights", f"random:{seed}", *quick, "-o", f"r{seed}")
        assert done.code == 0 and "RANDOM WEIGHTS" in done.out, done.err
    assert contents(home / "r7")["model.onnx"] != contents(home / "r8")["model.onnx"]
    assert manifest_of(home / "r7")["weights"] == {
        "kind": "random",
        "licence": "",
        "sha256": hashlib.sha256(b"random:7").hexdigest(),
        "source": "random weights, seed 7",
    }
    assert "random" in (home / "r7/README.md").read_text()
    assert not (home / "r7/labels.txt").exists()


def test_without_weights_to_be_had_the_default_is_random_and_exit_code_0(
    invoke: Any, quick: tuple[str, ...], home: Path
) -> None:
    done = invoke("build", "resnet20_cifar", *quick, "-o", "net", "--json")
    assert done.code == 0, done.err
    assert "RANDOM WEIGHTS" in done.err
    assert done.json()["manifest"]["weights"]["kind"] == "random"
    assert any("RANDOM" in note for note in done.json()["report"]["warnings"])


def test_another_request_needs_force_to_replace_a_bundle(
    invoke: Any, quick: tuple[str, ...], contents: Read, home: Path
) -> None:
    assert invoke("build", "lenet5", "--weights", "digits", *quick, "-o", "net").code == 0
    before = contents(home / "net")
    other = ("build", "lenet5", "--weights", "random:1", *quick, "-o", "net")
    assert invoke(*other).failed_with(2, "--force")
    assert contents(home / "net") == before
    assert invoke(*other, "--force").code == 0
    assert manifest_of(home / "net")["weights"]["kind"] == "random"
    assert sorted(path.name for path in home.iterdir()) == ["net"]


def test_a_damaged_bundle_is_replaced_with_force_alone(
    invoke: Any, quick: tuple[str, ...], home: Path, bundle: Path
) -> None:
    with (bundle / "labels.txt").open("a") as file:
        file.write("more\n")
    request = (*DIGITS, *quick, "-o", bundle)
    assert invoke(*request).failed_with(2, "damaged")
    assert invoke(*request, "--force").code == 0
    assert (bundle / "labels.txt").read_text() == "".join(f"{n}\n" for n in range(10))


def test_a_build_goes_on_where_it_failed(
    invoke: Any, scratch: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ("build", "lenet5", "--weights", "random:3", *scratch, "-o", "net", "--int8")
    with monkeypatch.context() as broken:
        broken.setattr("convexport.calibration.quantize.insert_qdq", lambda *_: {}["no such thing"])
        assert invoke(*request).code == 1
    assert sorted(path.name for path in home.iterdir()) == ["cache"]
    done = invoke(*request)
    assert done.code == 0, done.err
    before, after = ("reference", "export", "simplify", "calibrate", "equalize"), ("quantize",)
    assert stages_of(home / "net") == {**dict.fromkeys(before, True), **dict.fromkeys(after, False)}


def test_a_poisoned_cache_entry_is_made_anew(
    invoke: Any, scratch: tuple[str, ...], home: Path, contents: Read
) -> None:
    request = ("build", "lenet5", "--weights", "random:4", *scratch)
    assert invoke(*request, "-o", "good").code == 0
    (entry,) = (home / "cache/stages").glob("export-*/exported.onnx")
    clean = entry.read_bytes()
    entry.write_bytes(clean[:-4] + b"evil")
    assert invoke(*request, "-o", "again").code == 0
    assert stages_of(home / "again") == {"reference": True, "export": False, "simplify": True}
    assert entry.read_bytes() == clean
    assert contents(home / "again")["model.onnx"] == contents(home / "good")["model.onnx"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"facts": {}}', '{"facts": {}, "files": 3}'])
def test_a_broken_entry_is_made_anew(
    invoke: Any, quick: tuple[str, ...], home: Path, cache: Path, text: str
) -> None:
    request = ("build", "lenet5", "--weights", "random:5", *quick)
    assert invoke(*request, "-o", "good").code == 0
    reached = home / "good/manifest.json"
    (entry,) = [
        path
        for path in (cache / "stages").glob("simplify-*/entry.json")
        if (path.parent / "simplified.onnx").read_bytes() == (home / "good/model.onnx").read_bytes()
    ]
    entry.write_text(text)
    assert invoke(*request, "-o", "again").code == 0
    assert stages_of(home / "again")["simplify"] is False
    assert (home / "again/manifest.json").read_bytes() == reached.read_bytes()


def test_a_world_writable_cache_is_refused(
    invoke: Any, scratch: tuple[str, ...], home: Path
) -> None:
    (home / "cache").mkdir()
    (home / "cache").chmod(0o777)
    done = invoke("build", "lenet5", "--weights", "random", *scratch, "-o", "net")
    assert done.failed_with(4, "E0480") and "chmod o-w" in done.err
    assert not (home / "net").exists()
