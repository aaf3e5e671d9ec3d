"""``bench`` from the command line: a run that is too short says so."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import parser

from convexport.benchmarks import compare_bundles
from convexport.benchmarks.bundle_subjects import batch_for, read_bundles
from convexport.benchmarks.samples import pack, unpack
from convexport.benchmarks.torch_baseline import torch_subject
from convexport.runtime.bundle import read_manifest
from convexport.runtime.errors import MachineError, UnsupportedError

Refused = Callable[..., Any]

SHORT = ("--seconds", "0.5", "--processes", "2", "--threads", "1")


@pytest.mark.slow
def test_a_short_run_is_unstable_and_names_the_very_file(
    command: Any, bundle: Path, home: Path
) -> None:
    shutil.copy(bundle / "reference.onnx", home / "other.onnx")
    done = command("bench", "bundle", "--against", "other.onnx", *SHORT, "--json")
    assert done.code == 0, done.err
    latency = done.json()["latency"]
    assert latency["verdict"] == "UNSTABLE"
    assert any("0.5 s" in reason for reason in latency["reasons"])
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    baseline, subject = latency["subjects"]
    assert (baseline["label"], subject["label"]) == ("other.onnx", "bundle")
    assert subject["sha256"] == done.json()["parity"]["bundle"]["model_sha256"] == digest
    assert done.json()["parity"]["bundle"]["parity"]["top1"]["n"] > 0
    assert subject["n"] > 0 and subject["percentiles_ms"]["p50"]["value"] > 0
    assert subject["speedup"]["value"] > 0 and baseline["speedup"] is None
    assert latency["conditions"]["processes"] == 2


@pytest.mark.slow
def test_a_person_reads_the_verdict_first(command: Any, bundle: Path) -> None:
    done = command("bench", "bundle", *SHORT)
    assert done.code == 0, done.err
    assert (
        "UNSTABLE: closed loop" in done.out
        and "fp32 reference" in done.out
        and "\x1b" not in done.out
    )


def test_a_bundle_that_was_changed_is_not_measured(refused: Refused, bundle: Path) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    refused(3, "E0306", "bench", "bundle", *SHORT)


def test_what_is_not_there_is_not_measured(refused: Refused, bundle: Path) -> None:
    refused(3, "E0304", "bench", "nowhere", *SHORT)
    refused(3, "E0", "bench", "bundle", "--against", "nowhere.onnx", *SHORT)
    refused(2, "E0267", "bench", "bundle", "bundle", *SHORT)


def test_a_baseline_with_another_input_is_refused(
    refused: Refused, bundle: Path, home: Path, small_onnx: Any
) -> None:
    (home / "other.onnx").write_bytes(small_onnx().SerializeToString())
    refused(3, "E0369", "bench", "bundle", "--against", "other.onnx", *SHORT)


@pytest.mark.parametrize(
    ("inputs", "code", "words"),
    [
        ("float[N, 1, H, W] x", "E0369", "x: float32 Nx1xHxW"),
        ("float[N, 1, 32, 32] x, float[N] more", "E0369", "more: float32 N"),
        ("float[N, 32, 32] x", "E0369", "does not take one float batch of images"),
        ("uint8[N, 1, 32, 32] x", "E0369", "x: uint8"),
        ("", "E0369", "no inputs"),
        ("float[2, 1, 32, 32] x", "E0272", "takes 2 images a call, not 1"),
    ],
)
def test_a_file_that_takes_anything_but_images_is_no_baseline(
    refused: Refused, bundle: Path, home: Path, inputs: str, code: str, words: str
) -> None:
    node = "y = Identity (x)" if inputs else "y = Constant<value_float = 1.0> ()"
    kind = "uint8" if "uint8" in inputs else "float"
    graph = f'<ir_version: 8, opset_import: ["": 17]> net ({inputs}) => ({kind}[] y) {{ {node} }}'
    if inputs:
        graph = graph.replace(f"({kind}[] y)", f"({inputs.split(' x')[0]} y)")
    onnx.save(parser.parse_model(graph), home / "other.onnx")
    exit_code = 2 if code == "E0272" else 3
    done = refused(exit_code, code, "bench", "bundle", "--against", "other.onnx", *SHORT)
    assert words in done.err and "parity" not in done.err


def test_a_batch_that_is_fixed_is_taken_and_no_other(
    refused: Refused, bundle: Path, home: Path
) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    data["input"]["shape"][0] = data["output"]["shape"][0] = 4
    path.write_text(json.dumps(data))
    done = refused(2, "E0272", "bench", "bundle", "--batch", "1", *SHORT)
    assert "--batch 4" in done.err
    manifests = read_bundles([bundle])
    assert (batch_for(manifests, None), batch_for(manifests, 4)) == (4, 4)
    shutil.copytree(bundle, home / "other")
    data["input"]["shape"][0] = data["output"]["shape"][0] = "batch"
    path.write_text(json.dumps(data))
    assert batch_for(read_bundles([bundle]), None) == 1
    assert batch_for(read_bundles([bundle, home / "other"]), None) == 4


def test_bundles_of_different_nets_are_refused_before_anything_is_measured(
    refused: Refused, bundle: Path, home: Path
) -> None:
    shutil.copytree(bundle, home / "other")
    path = home / "other/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "resnet18"}))
    done = refused(3, "E0377", "bench", "bundle", "other", *SHORT)
    assert "lenet5 and resnet18" in done.err


@pytest.mark.slow
def test_an_extra_that_fails_costs_nothing_else(
    invoke: Any, bundle: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: Any) -> None:
        raise MachineError("E0410", "a measuring process crashed (SIGKILL)")

    monkeypatch.setattr(compare_bundles, "run_soak", crash)
    quick = ("--seconds", "0.3", "--processes", "1", "--threads", "1")
    extras = ("--soak", "30m", "--batches", "1,2", "--parts")
    done = invoke("bench", "bundle", *quick, *extras, "--save", "saved.json")
    assert done.failed_with(4, "E0410")
    assert "not measured: soak of bundle: 1800 s: E0410 a measuring process" in done.out
    saved = json.loads((home / "saved.json").read_text())
    assert saved["soak"] == {} and len(saved["batches"]["bundle"]["rows"]) == 2
    (failed,) = saved["failed"].values()
    assert failed["code"] == "E0410"
    latency = saved["latency"]
    assert latency["conditions"]["fed"] == "images"
    assert {each["data"] for each in latency["recording"]["subjects"]} == {"parity_inputs.npy"}
    assert saved["parts"]["bundle"]["watch"]["settled"]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("--qps", "5"), 2, "E0284"),
        (("--bound-ms", "5", "--scenario", "offline"), 2, "E0284"),
        (("--samples-per-query", "4", "--scenario", "offline"), 2, "E0284"),
        (("--max-slowdown", "5%"), 2, "E0284"),
        (("--scenario", "sever"), 2, "did you mean server"),
        (("--scenario", "server"), 2, "E0269"),
        (("--scenario", "server", "--bound-ms", "0"), 2, "E0269"),
        (("--soak", "30"), 2, "30m, 90s or 1h"),
        (("--batches", "1,x"), 2, "1,8,32"),
        (("--baseline", "nowhere.json"), 3, "E0302"),
        (("--save", "nowhere/saved.json"), 2, "E0292"),
        (("--save", "bundle"), 2, "E0292"),
        (("--baseline", "bundle/manifest.json"), 3, "E0361"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_measured(
    refused: Refused, bundle: Path, arguments: tuple[str, ...], code: int, error: str
) -> None:
    refused(code, error, "bench", "bundle", *arguments, *SHORT)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"source": "module"}, "no single net of the zoo"),
        ({"weights": {"kind": "file", "source": "mine.pt"}}, "a file of your own"),
        ({"weights": {"classifier": "random"}}, "drawn at random"),
        ({"weights": {"sha256": "0" * 64}}, "today are others"),
    ],
)
def test_a_net_that_cannot_be_made_again_is_no_baseline(
    refused: Refused, bundle: Path, facts: dict[str, Any], why: str
) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    weights = {**manifest["weights"], **facts.pop("weights", {})}
    path.write_text(json.dumps({**manifest, **facts, "weights": weights}))
    done = refused(6, "E0660", "bench", "bundle", "--against", "torch", *SHORT)
    assert why in done.err


def test_pytorch_on_the_cpu_is_no_baseline_for_a_gpu(bundle: Path) -> None:
    manifest = replace(read_manifest(bundle), provider="CUDAExecutionProvider")
    with pytest.raises(UnsupportedError, match="E0660") as caught:
        torch_subject(manifest, "torch", cache_dir=bundle, scratch=bundle)
    assert "PyTorch runs on the CPU" in caught.value.why


def test_compiling_without_a_compiler_says_what_to_install(
    refused: Refused, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(bundle))
    monkeypatch.setenv("CXX", "")
    done = refused(4, "E0463", "bench", "bundle", "--against", "torch.compile", *SHORT)
    assert "g++" in done.err


def test_a_baseline_bundle_is_verified_too(refused: Refused, bundle: Path, home: Path) -> None:
    shutil.copytree(bundle, home / "other")
    with (home / "other/model.onnx").open("ab") as file:
        file.write(b"x")
    refused(3, "E0306", "bench", "bundle", "--against", "other", *SHORT)


@pytest.mark.slow
def test_pytorch_is_a_baseline_with_a_parity_of_its_own(command: Any, bundle: Path) -> None:
    done = command("bench", "bundle", "--against", "torch", *SHORT, "--json")
    assert done.code == 0, done.err
    baseline, subject = done.json()["latency"]["subjects"]
    assert baseline["label"] == "torch" and baseline["runtime"].startswith("torch 2")
    assert subject["speedup"]["value"] > 0
    parity = done.json()["torch_parity"]
    assert parity["n"] == 64 and 0 <= parity["max_rel"] < 1e-4


@pytest.mark.slow
def test_all_extras_and_the_gate(command: Any, bundle: Path, home: Path) -> None:
    quick = ("--seconds", "0.3", "--processes", "3", "--threads", "1")
    extras = ("--scenario", "single-stream", "--parts", "--batches", "1,4", "--soak", "0.5s")
    done = command("bench", "bundle", *quick, *extras, "--save", "saved.json")
    assert done.code == 0, done.err
    for words in ("single-stream, closed loop", "postprocess", "on end", "images/s"):
        assert words in done.out
    saved = json.loads((home / "saved.json").read_text())
    assert [row["batch"] for row in saved["batches"]["bundle"]["rows"]] == [1, 4]
    assert saved["parts"]["bundle"]["decode_ms"]["value"] > 0
    assert saved["latency"]["recording"]["runs"][0]["trace"]["t_s"] is not None
    again = command("bench", "bundle", *quick, "--baseline", "saved.json", "--max-slowdown", "900%")
    assert again.code == 0 and "bundle: not slower than the baseline" in again.out
    # A baseline of which every call took a hundredth of the time.
    for run in saved["latency"]["recording"]["runs"]:
        samples = run["models"]["bundle"]["samples"]
        samples["ns"] = pack(unpack(samples["ns"]) // 100 + 1)
    (home / "saved.json").write_text(json.dumps(saved))
    gate = command("bench", "bundle", *quick, "--baseline", "saved.json", "--json")
    assert gate.failed_with(5, "E0565")
    assert gate.json()["regression"][0]["verdict"] == "slower"
    other = ("--seconds", "0.3", "--processes", "3", "--threads", "2")
    done = command("bench", "bundle", *other, "--baseline", "saved.json")
    assert done.failed_with(3, "E0371") and "threads: 1 then, 2 now" in done.err
