"""A bundle is carried to a device and built there: the script itself, with the recording double.

Nothing of this ran on a board. It runs under this Python, and under the oldest that a board has, if
one is found (``old_python``).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convexport
from convexport.exporter.device_bundle import (
    add_device_files,
    device_facts,
    trtexec_line,
    write_sums,
)
from convexport.runtime import board
from convexport.runtime.errors import MachineError
from convexport.runtime.trt_config import TrtOptions
from tests import tiny
from tests.tiny import logits

from .conftest import Says, sha256
from .old_python import old_python

INT8 = TrtOptions(typed=False, fp16=True, int8=True, batch=(1, 1, 4))
LAYERS = [
    {
        "Name": "stem.conv/Conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Row major Int8 format"}],
        "Outputs": [],
    }
]
FEW = [
    LAYERS[0],
    *(
        {
            "Name": f"features.{index}/Conv + features.{index}/Relu",
            "Inputs": [{"Format/Datatype": "Row major linear FP16"}],
        }
        for index in range(2)
    ),
]
SAMPLE = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
MANIFEST: dict[str, Any] = {
    **tiny.MANIFEST,
    "precision": "int8",
    "target": "jetson",
    "runtime": "tensorrt",
    "provider": "CUDA",
    "golden_tolerance": 2e-2,
    **device_facts(INT8, ">=8.5.2,<8.6"),
}
Build = Callable[..., "subprocess.CompletedProcess[str]"]


def write_bundle(folder: Path, manifest: Mapping[str, Any] = MANIFEST) -> Path:
    """A bundle for a device, its parts written by hand."""
    (folder / "sample").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"an ONNX file")
    np.save(folder / "sample/input.npy", SAMPLE)
    np.save(folder / "sample/expected.npy", logits(SAMPLE))
    (folder / "labels.txt").write_text("ant\nbee\ncat\n")
    add_device_files(folder, manifest)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    write_sums(folder)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def old(pytestconfig: pytest.Config) -> tuple[str, str]:
    """A Python 3.8 with numpy, made once and kept in pytest's cache, or why there is none."""
    assert pytestconfig.cache is not None
    return old_python(Path(pytestconfig.cache.mkdir("python3.8")))


@pytest.fixture(params=["this", "old"])
def build(
    request: pytest.FixtureRequest, bundle: Path, tensorrt: Says, old: tuple[str, str]
) -> Build:
    """Runs the script as a person would, under this Python and an old one."""
    python, why = (sys.executable, "") if request.param == "this" else old
    if not python:
        pytest.skip(why)

    def run(*arguments: str, version: str = "8.5", **says: Any) -> Any:
        tensorrt(version, **{"layers": LAYERS, **says})
        command = [python, "-s", str(bundle / "build_on_device.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd="/")

    return run


def test_an_engine_is_built_tested_and_put_in_place(build: Build, bundle: Path) -> None:
    ended = build("--runs", "5")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "PASS"
    assert "engine: 1 int8 layers, 0 reformats" in ended.stdout
    assert "1 of 1 convolutions of the engine run in INT8" in ended.stdout
    assert "latency: median" in ended.stdout and "5 runs of batch 1" in ended.stdout
    assert "4096 MiB GPU" in ended.stdout
    report = json.loads((bundle / "engine/report.json").read_text())
    assert report["device"]["gpu"] == "Orin (8.7)"
    assert report["golden_error"] < 1e-6
    names = {path.name for path in (bundle / "engine").iterdir()}
    assert names == {
        "model.plan",
        "model.plan.json",
        "model.plan.log",
        "report.json",
        "timing.cache",
    }
    engine = convexport.load(bundle)
    np.testing.assert_allclose(engine(SAMPLE), logits(SAMPLE), 1e-6)


def test_what_runs_is_what_travels(build: Build, bundle: Path, tmp_path: Path) -> None:
    """Also in the process that builds, and though this checkout is installed."""
    mark = tmp_path / "ran"
    for name in ("trt_device.py", "trt_layers.py"):
        with (bundle / "lib/convexport/runtime" / name).open("a") as file:
            file.write(f"\nopen({str(mark)!r}, 'a').write(__name__ + ' ')\n")
    write_sums(bundle)
    assert build("--runs", "0").returncode == 0
    ran = mark.read_text().split()
    assert ran.count("convexport.runtime.trt_device") == 1
    assert ran.count("convexport.runtime.trt_layers") == 2


@pytest.mark.parametrize(
    ("says", "code", "text"),
    [
        ({"off_by": 1.0}, 5, "FAIL E0500 the golden sample's output is off"),
        ({"layers": []}, 5, "FAIL E0502 no layer of the engine runs in INT8"),
        ({"layers": FEW}, 5, "FAIL E0502 1 of 3 convolutions of the engine run in INT8"),
        ({"version": "10.3"}, 4, "FAIL E0413 the bundle is not for TensorRT 10.3.0.26"),
        ({"fail": "signal 9"}, 4, "FAIL E0412 TensorRT's build did not survive"),
        ({"parser_errors": ["no such operator"]}, 6, "FAIL E0603"),
    ],
)
def test_the_old_engine_stays_until_the_new_one_has_passed(
    build: Build, bundle: Path, says: dict[str, Any], code: int, text: str
) -> None:
    assert build("--runs", "0").returncode == 0
    before = {path.name: path.read_bytes() for path in (bundle / "engine").iterdir()}
    ended = build("--runs", "0", **says)
    assert ended.returncode == code, ended.stderr
    assert text in ended.stdout.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert {path.name: path.read_bytes() for path in (bundle / "engine").iterdir()} == before


def test_a_failed_build_keeps_its_log_and_what_was_measured(build: Build, bundle: Path) -> None:
    assert build("--runs", "0", off_by=1.0).returncode == 5
    kept = {path.name: path.read_bytes() for path in (bundle / "engine.failed").iterdir()}
    assert b"plugins are there" in kept["model.plan.log"]
    assert build("--runs", "0").returncode == 0
    assert len((bundle / "engine/timing.cache").read_bytes()) > len(kept["timing.cache"])
    assert not (bundle / "engine.failed").exists()


@pytest.mark.parametrize("odd", [("--runs", "-1"), ("--timeout", "0"), ("--timeout", "nan")])
def test_arguments_that_make_no_sense_are_refused_at_once(
    build: Build, bundle: Path, odd: tuple[str, str]
) -> None:
    ended = build(*odd)
    assert ended.returncode == 2 and ended.stdout.startswith("FAIL E0206")
    assert not (bundle / "engine").exists()


def test_what_nobody_foresaw_ends_with_fail_too(build: Build, bundle: Path) -> None:
    with (bundle / "lib/convexport/runtime/trt_device.py").open("a") as file:
        file.write("\ndef describe_board():\n    raise RuntimeError('odd')\n")
    write_sums(bundle)
    ended = build()
    assert (ended.returncode, ended.stdout) == (1, "FAIL RuntimeError: odd\n")


def test_a_gpu_without_memory_is_told_first(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_FREE_MIB", "0")
    ended = build()
    assert ended.returncode == 4
    assert "0 MiB are free" in ended.stderr and "FAIL E0406" in ended.stdout


def test_a_file_that_was_changed_on_the_way_is_told(build: Build, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"an ONNX fike")
    ended = build()
    assert ended.returncode == 3
    assert "FAIL E0306 model.onnx is missing or was changed" in ended.stdout


def test_the_sums_are_those_of_sha256sum(bundle: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum")
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = {line.split(": ")[0] for line in done.stdout.splitlines()}
    there = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert there - listed == {"SHA256SUMS"}


def test_a_bundle_without_an_engine_is_told_before_it_is_loaded(
    bundle: Path, tensorrt: Says
) -> None:
    tensorrt("8.5")
    with pytest.raises(MachineError, match="E0409"):
        convexport.load(bundle)


@pytest.mark.parametrize(
    ("options", "versions", "words"),
    [
        (
            INT8,
            ">=8.5",
            {"--fp16", "--int8", "--noTF32", "--maxShapes=input:4x1x2x2"},
        ),
        (
            TrtOptions(typed=True, workspace_mib=64, level=5, version_compatible=True, refit=True),
            ">=10.3,<10.4",
            {
                "--stronglyTyped",
                "--memPoolSize=workspace:64",
                "--builderOptimizationLevel=5",
                "--versionCompatible",
                "--refit",
            },
        ),
        (
            TrtOptions(typed=False, fp16=True, tf32=True, dla=1, own_kernels=True),
            ">=8.5.2,<8.6",
            {
                "--fp16",
                "--useDLACore=1",
                "--allowGPUFallback",
                "--tacticSources=-CUDNN,-CUBLAS,-CUBLAS_LT",
                "--preview=+disableExternalTacticSourcesForCore0805",
            },
        ),
        (
            TrtOptions(typed=False, own_kernels=True),
            ">=10.3,<10.4",
            {"--tacticSources=-CUDNN,-CUBLAS,-CUBLAS_LT"},
        ),
        (TrtOptions(typed=True, own_kernels=True), ">=10.13,<12", {"--stronglyTyped"}),
    ],
)
def test_trtexec_is_told_the_same(options: TrtOptions, versions: str, words: set[str]) -> None:
    line = shlex.split(trtexec_line({**MANIFEST, **device_facts(options, versions)}))
    assert line[:2] == ["/usr/src/tensorrt/bin/trtexec", "--onnx=model.onnx"]
    flags = {"--stronglyTyped", "--fp16", "--int8", "--noTF32", "--refit", "--versionCompatible"}
    assert words <= set(line)
    sources = ("--tacticSources", "--preview")
    assert {word for word in line if word.startswith(sources)} <= words
    assert {word for word in line if word in flags} == words & flags | (
        set() if options.tf32 else {"--noTF32"}
    )


def test_a_board_is_described_as_far_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, text in {
        "proc/device-tree/model": "NVIDIA Orin Nano\0",
        "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1\nmore",
        "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
        "var/lib/dpkg/status": "Package: a\nVersion: 1\n\nPackage: nvidia-jetpack\n"
        "Status: install ok installed\nVersion: 5.1.2-b104\nDescription: NVIDIA\n more: text\n",
        "bin/nvpmodel": "#!/bin/sh\necho 'NV Power Mode: 15W'\necho 0\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "bin/nvpmodel").chmod(0o755)
    monkeypatch.setattr(board, "_ROOT", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert board.describe_board() == {
        "board": "NVIDIA Orin Nano",
        "l4t": "# R35 (release), REVISION: 4.1",
        "gpu_hz": "624750000",
        "jetpack": "5.1.2-b104",
        "power_mode": "15W",
    }
