"""TensorRT's session between a fake driver and a double of TensorRT: that proves wiring alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexport.runtime.trt_config import TrtOptions
from tests.tiny import logits, seal

from .conftest import lines_of
from .plans import IN, OPTIONS, OUT, Make, as_tensorrt
from .toolchain import SOURCES, TENSORRT, compiler

pytestmark = [
    pytest.mark.slow,  # builds the library first
    pytest.mark.usefixtures("found"),
]

# A folder with a folder of NVIDIA's headers for each version, CUDA's beside them.
HEADERS = "CONVEXPORT_TENSORRT_HEADERS"
DEPENDENT = ("trt_session", "trt_library")  # on the version; nothing else is


def run(program: Path, bundle: Path, images: np.ndarray, scratch: Path) -> np.ndarray | str:
    """What the net gives, or the error."""
    images.tofile(scratch / "in")
    words = ("run", bundle, scratch / "in", scratch / "out", *map(str, images.shape))
    said = lines_of(program, *words)
    return said[0] if said else np.fromfile(scratch / "out", np.float32).reshape(-1, 3)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 1, 2, 2), np.float32)


@pytest.mark.parametrize("options", [OPTIONS, TrtOptions(typed=True, batch=(1, 4, 8))])
def test_every_batch_of_the_profile_is_run(
    asan: Path, planned: Make, tmp_path: Path, options: TrtOptions
) -> None:
    folder = planned(options=options)
    for count in (1, 3, 8):
        given = run(asan / "probe", folder, images(count), tmp_path)
        np.testing.assert_allclose(given, logits(images(count)), rtol=1e-6)
    assert str(run(asan / "probe", folder, images(9), tmp_path)).startswith(
        "E0203 the engine takes batches of 1 to 8, not 9"
    )
    assert lines_of(asan / "probe", "load", folder) == ["ok tensorrt 10.3.0.26"]


@pytest.mark.parametrize("built", ["10.3.0", "10.3.0.post1"])
def test_a_plan_of_python_is_run_whose_version_has_three_parts(
    asan: Path, planned: Make, built: str
) -> None:
    folder = planned(tensorrt=built)
    assert lines_of(asan / "probe", "load", folder) == ["ok tensorrt 10.3.0.26"]


def test_a_plan_is_told_what_it_needs(asan: Path, planned: Make) -> None:
    needs = TrtOptions(typed=True, version_compatible=True, dla=1)
    lines = (IN.replace("-1", "1"), OUT.replace("-1", "1"), "needs host-code", "needs dla 1")
    folder = planned(*lines, options=needs)

    def fixed(data: dict[str, Any]) -> None:
        as_tensorrt(data)
        data["input"]["shape"][0] = data["output"]["shape"][0] = 1

    assert lines_of(asan / "probe", "load", seal(folder, fixed)) == ["ok tensorrt 10.3.0.26"]


@pytest.mark.parametrize(("fails", "fewest", "most"), [("", 2, 4), ("context:1", 1, 1)])
def test_threads_compute_side_by_side_while_there_is_room(
    tsan: Path,
    planned: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
    fewest: int,
    most: int,
) -> None:
    monkeypatch.setenv("FAKE_TRT_FAIL", fails)
    assert fewest <= at_once(tsan / "probe", planned(), tmp_path, monkeypatch) <= most


def at_once(
    program: Path, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, threads: int = 6
) -> int:
    """How many calls of threads that share an engine were in TensorRT at the same time."""
    monkeypatch.setenv("FAKE_TRT_MOST", str(scratch / "most"))
    images(2).tofile(scratch / "in")
    words = ("threads", folder, scratch / "in", str(threads), "20", "2", "1", "2", "2")
    assert lines_of(program, *words) == ["0"] * threads
    return int((scratch / "most").read_text())


@pytest.mark.parametrize("name", [name for name in TENSORRT if name != "10.3"])
def test_other_versions_run_it_too(
    asan: Path,
    planned: Make,
    doubles: dict[str, Path],
    driver: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{doubles[name]}:{driver.parent}")
    parts = [str(part) for part in TENSORRT[name]]
    folder, program = planned(tensorrt=".".join(parts)), asan / f"probe-{name}"
    given = run(program, folder, images(5), tmp_path)
    np.testing.assert_allclose(given, logits(images(5)), rtol=1e-6)
    # Before 10 the library does not tell its last part.
    told = parts if int(parts[0]) > 8 else parts[:3]
    assert lines_of(program, "load", folder) == [f"ok tensorrt {'.'.join(told)}"]
    if int(parts[0]) < 10:  # where two contexts must not share a profile
        assert at_once(program, folder, tmp_path, monkeypatch) == 1


def test_the_headers_of_nvidia_compile_without_warnings(tmp_path: Path) -> None:
    root = os.environ.get(HEADERS)
    if root is None:
        pytest.skip(f"{HEADERS} names no folder: no registry has NVIDIA's headers")
    folders = [path.parent for path in sorted(Path(root).glob("*/NvInferRuntime.h"))]
    assert folders
    strict = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow"]
    cuda = Path(root) / "cuda"
    for folder in folders:
        for name in DEPENDENT:
            words = [compiler(), *strict, "-Werror", "-I", SOURCES / "include"]
            words += ["-isystem", folder, "-isystem", cuda, SOURCES / f"src/{name}.cpp"]
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0, f"{folder.name}: {done.stderr[:2000]}"
